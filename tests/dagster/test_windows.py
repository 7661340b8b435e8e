"""Partitions that are windows of time: launched when over, late ones by themselves."""

from __future__ import annotations

import datetime as dt
import os
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import dagster as dg
import pytest

from batch_pipelines.engine.alerts import listed
from batch_pipelines.engine.ledger import pauses
from batch_pipelines.engine.ledger.stages import STAGES
from tests.support_process import command
from tests.support_sensors import evaluated, launched, requested, skipped
from tests.support_shop import FEED, orders, stage_key
from tests.support_windows import at, waiting, with_windows

if TYPE_CHECKING:
    from tests.support_shop import Shop

VIENNA = ZoneInfo("Europe/Vienna")
DAILY = "every: day, timezone: Europe/Vienna, start: 2024-05-01, late_after: 2h"
DAY, NEXT = "2024-05-01", "2024-05-02"
MIDNIGHT = dt.datetime(2024, 5, 2, tzinfo=VIENNA)
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@pytest.fixture
def daily(shop: Shop) -> Shop:
    with_windows(shop, DAILY)
    return shop


def status(shop: Shop, key: str) -> set[str]:
    """How the stages of a partition read in Dagster."""
    partitions = shop.feed_partitions()
    found = [
        (shop.instance.get_status_by_partition(stage_key(stage), [key], partitions) or {}).get(key)
        for stage in STAGES
    ]
    return {"MISSING" if each is None else each.name for each in found}


def verified(shop: Shop, batch: str) -> dg.ExecuteInProcessResult:
    config = _QUIET | {"ops": {"verify": {"config": {"batch": batch}}}}
    job = shop.defs.resolve_job_def("verify_batches")
    return job.execute_in_process(instance=shop.instance, run_config=config)


def taken_back(shop: Shop, batch_id: str) -> dg.ExecuteInProcessResult:
    config = {"batches": [batch_id], "dry_run": False, "reason": "a test"}
    job = shop.defs.resolve_job_def("rollback")
    return job.execute_in_process(instance=shop.instance, run_config=config)


def test_a_window_is_launched_when_it_is_over(daily: Shop) -> None:
    daily.deliver(DAY, orders(2))
    daily.deliver(NEXT, orders(2, first=10))
    (request,) = at(daily, MIDNIGHT)
    assert request.partition_key == DAY
    assert request.tags["batch-pipelines/requested_by"] == "schedule windows_orders"
    assert daily.run(DAY).success
    assert at(daily, MIDNIGHT) == []
    assert status(daily, DAY) == {"MATERIALIZED"}
    # One and the same run key, so that Dagster makes one run of it however often it is asked for.
    assert [each.partition_key for each in at(daily, MIDNIGHT + dt.timedelta(days=1))] == [NEXT]


def test_without_a_delivery_nothing_is_launched_and_it_comes_in_by_itself(daily: Shop) -> None:
    assert at(daily, MIDNIGHT) == []
    daily.deliver(DAY, orders(2))
    found = launched(daily)
    assert requested(found) == [DAY]
    # Windows are there by themselves: there is no key to add.
    assert not found.dynamic_partitions_requests
    assert daily.run(DAY).success
    daily.deliver(DAY, orders(3))
    assert requested(launched(daily)) == [DAY]


def test_what_the_schedule_has_launched_the_sensor_does_not(daily: Shop) -> None:
    daily.deliver(DAY, orders(2))
    (request,) = at(daily, MIDNIGHT)
    run = waiting(daily, request)
    assert "a run of its partition has not ended" in skipped(daily)
    assert at(daily, MIDNIGHT) == []
    daily.instance.report_run_canceled(run)
    assert requested(launched(daily)) == [DAY]


def test_the_sensor_says_what_is_of_no_window_and_leaves_open_ones_alone(daily: Shop) -> None:
    today = dt.datetime.now(VIENNA).strftime("%Y-%m-%d")
    for key in (today, "2024-04-30", "odd"):
        daily.deliver(key, orders(2))
    assert "2 are of no day of this feed (2024-04-30, odd)" in skipped(daily)


def test_a_paused_feed_launches_no_window(daily: Shop) -> None:
    daily.deliver(DAY, orders(2))
    with daily.database.connect("test") as connection:
        pauses.pause(connection, FEED, by="Ada", reason="a test")
    assert at(daily, MIDNIGHT) == []


def test_a_late_delivery_is_told_until_it_comes(daily: Shop) -> None:
    daily.deliver(DAY, orders(2))
    assert daily.run(DAY).success

    def told() -> list[tuple[str, bool]]:
        found = evaluated(daily, "late_orders")
        assert isinstance(found, dg.SkipReason)
        with daily.database.connect("test") as connection:
            return [(each.alert.details["partition"], each.is_open) for each in listed(connection)]  # type: ignore[misc]

    # Its window ended long ago, but so did hundreds of others: the last one is told.
    due = dt.datetime.now(VIENNA) - dt.timedelta(hours=2)
    last = (due.date() - dt.timedelta(days=1)).isoformat()
    assert told() == told() == [(last, True)]
    daily.deliver(last, orders(2, first=10))
    assert told() == [(last, False)]


def test_rollback_and_verification_go_on_as_with_any_partition(daily: Shop) -> None:
    daily.deliver(DAY, orders(2))
    run = daily.run(DAY)
    assert run.success
    assert verified(daily, f"{FEED}/{DAY}").success
    assert taken_back(daily, run.run_id).success
    assert status(daily, DAY) == {"FAILED"}
    assert daily.run(DAY).success
    assert status(daily, DAY) == {"MATERIALIZED"}


def test_on_the_command_line(daily: Shop) -> None:
    """Given a window, one that is not over, and a key of none, the first alone is imported."""
    daily.deliver(DAY, orders(2) + "3,7,2024-05-01,1.00,no such customer\n")
    today = dt.datetime.now(VIENNA).strftime("%Y-%m-%d")
    daily.deliver(today, orders(2, first=10))
    daily.deliver("odd", orders(2, first=20))

    def typed(*words: str) -> tuple[int, str]:
        ended = command(*words, environment=dict(os.environ))
        return ended.returncode, ended.stdout + ended.stderr

    code, said = typed("import", FEED)
    assert (code, said.count("PARTIAL_SUCCESS")) == (3, 1)
    assert [batch.partition_key for batch in daily.batches()] == [DAY]
    code, said = typed("import", FEED, "--batch", today)
    assert code == 1
    assert "this day is not over before" in said
    daily.query("INSERT INTO customers VALUES (7, 'Barbara')")
    code, said = typed("replay", f"{FEED}/{DAY}")
    assert code == 0, said
    assert len(daily.rows()) == 3


def test_the_history_stays_when_the_kind_of_partition_changes(shop: Shop) -> None:
    """Given batches of discovered partitions, then days, then hours, then discovered again."""
    for first, key in enumerate(("odd", DAY)):
        shop.deliver(key, orders(2, first=10 * first + 1))
        assert shop.run(key).success
    odd, day = shop.batches()

    with_windows(shop, DAILY)
    # The key that both have keeps its state, the other one is not shown.
    assert status(shop, DAY) == {"MATERIALIZED"}
    assert shop.feed_partitions().get_partition_keys()[0] == DAY
    assert not shop.feed_partitions().has_partition_key("odd")
    assert [batch.partition_key for batch in shop.batches()] == ["odd", DAY]
    # What is in landing under old names is not loaded again, and what is of a window supersedes.
    assert "1 are of no day of this feed (odd)" in skipped(shop)
    shop.deliver(DAY, orders(3, first=11))
    assert requested(launched(shop)) == [DAY]
    assert shop.run(DAY).success
    # A batch of the old kind is taken back all the same, and Dagster bears being told of it.
    assert taken_back(shop, odd.batch_id).success
    assert status(shop, DAY) == {"MATERIALIZED"}
    assert verified(shop, day.name).success

    with_windows(shop, "every: hour, start: 2024-05-01")
    assert shop.feed_partitions().get_partition_keys()[:2] == ["2024-05-01-00", "2024-05-01-01"]
    assert status(shop, "2024-05-01-00") == {"MISSING"}
    shop.deliver("2024-05-01-00", orders(1, first=50))
    assert shop.run("2024-05-01-00").success
    assert status(shop, "2024-05-01-00") == {"MATERIALIZED"}

    with_windows(shop, None)
    assert {"odd", DAY} <= set(shop.instance.get_dynamic_partitions(FEED))
    assert status(shop, DAY) == {"MATERIALIZED"}
    statuses = {batch.partition_key: batch.status for batch in shop.batches()}
    assert statuses == {"odd": "ROLLED_BACK", DAY: "SUCCESS", "2024-05-01-00": "SUCCESS"}
    assert day.batch_id not in shop.stamps()
