"""The run queue: its limits, its order, one writer a table, and slots that dead runs held."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import dagster as dg
import pytest

from batch_pipelines.definitions import build_defs
from batch_pipelines.engine.ledger.stages import STAGES
from batch_pipelines.instance import open_instance, prepared
from batch_pipelines.run_queue import missing_tags
from resources.runs import report_dead
from tests.support_daemon import next_runs, put_in_queue, started
from tests.support_process import command
from tests.support_shop import DAY, FEED, orders

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support_daemon import Daemon
    from tests.support_shop import Shop

PRIORITY, WRITES = "dagster/priority", "batch-pipelines/writes"
OTHERS = {"urgent": "critical", "soon": "high", "sometime": "low"}
WAIT_SECONDS = 120


@pytest.fixture
def town(shop: Shop) -> Shop:
    """The shop with four feeds; `orders` and `urgent` want to be the only writer of their table."""
    mine = shop.settings.feeds / "orders.yaml"
    text = mine.read_text()
    for name, priority in OTHERS.items():
        alone = f"priority: {priority}\none_writer: {str(name == 'urgent').lower()}\n"
        other = text.replace("feed: orders", f"feed: {name}").replace("landing/orders", name)
        (shop.settings.feeds / f"{name}.yaml").write_text(other + alone)
    mine.write_text(text + "one_writer: true\n")
    for name in (FEED, *OTHERS):
        shop.instance.add_dynamic_partitions(name, [DAY, "b", "c"])
    return shop


@pytest.fixture
def daemon(town: Shop) -> Iterator[Daemon]:
    """The daemon, over those feeds."""
    with started(town.instance) as found:
        yield found


def queued(shop: Shop, job: str, *, tags: dict[str, str] | None = None) -> dg.DagsterRun:
    """Put a run of a job into the queue."""
    found = build_defs(load=lambda: shop.settings).resolve_job_def(job)
    return put_in_queue(shop.instance, found, {**found.tags, **(tags or {})})


def test_the_order_is_that_of_the_priorities_and_of_one_writer_the_next_waits(town: Shop) -> None:
    low = queued(town, "sometime")
    normal = queued(town, FEED)
    high = queued(town, "soon")
    first = queued(town, "urgent")
    second = queued(town, "urgent_replay")
    by_hand = queued(town, "sometime", tags={PRIORITY: "15"})
    assert [run.tags[PRIORITY] for run in (first, high, normal, low)] == ["20", "10", "0", "-10"]
    assert first.tags[WRITES] == second.tags[WRITES] == normal.tags[WRITES] == "public.orders"
    assert WRITES not in low.tags

    with prepared(town.settings.model_copy(update={"runs_at_once": 3})):
        instance = open_instance()
    # `second` and `normal` write the table that `first` is the only writer of.
    order = [run.run_id for run in (first, by_hand, high, low)]
    assert next_runs(instance) == order[:3]
    for run in (first, by_hand, high, low):
        instance.report_run_canceled(run)
    assert next_runs(instance) == [second.run_id]
    instance.report_run_canceled(second)
    assert next_runs(instance) == [normal.run_id]


def test_runs_of_assets_and_backfills_have_the_tags_of_their_feed(daemon: Daemon) -> None:
    whole = [dg.AssetKey(["urgent", stage]) for stage in STAGES]
    alone = daemon.launch("__ASSET_JOB", DAY, *whole)
    runs = daemon.backfill(whole, ["b", "c"])
    assert {run.tags["dagster/asset_partition_range_start"] for run in runs} == {"b", "c"}
    for run in (alone, *runs):
        assert run.tags[PRIORITY] == "20"
        assert run.tags[WRITES] == "public.orders"
        assert run.tags["batch-pipelines/feed"] == "urgent"
    assert len(next_runs(daemon.instance)) == 1


def test_a_run_that_is_killed_keeps_its_slot_until_it_is_found_dead(
    daemon: Daemon, shop: Shop
) -> None:
    """Given a process that the queue launched, when it is killed, the next one is launched after it."""
    for key, first in ((DAY, 1), ("b", 10)):
        shop.deliver(key, orders(5, first=first))
    dead = daemon.launch(FEED, DAY)
    waiting = daemon.launch(FEED, "b")
    daemon.dequeue()
    os.kill(pid_of(daemon, dead), signal.SIGKILL)
    # The code server sees its own child end; of one that was launched elsewhere nobody would.
    assert next_runs(daemon.instance) == [] or ended(daemon, dead) is dg.DagsterRunStatus.FAILURE
    report_dead(daemon.instance, dead.run_id, "It was killed.")
    assert next_runs(daemon.instance) == [waiting.run_id]
    daemon.dequeue()
    assert ended(daemon, waiting) is dg.DagsterRunStatus.SUCCESS
    assert [batch.partition_key for batch in shop.batches() if batch.status == "SUCCESS"] == ["b"]


def test_an_import_of_the_command_line_counts_in_the_queue(town: Shop) -> None:
    """Given a run that did not go through the queue, while it writes, the queue holds the table back."""
    town.deliver(DAY, orders(5))
    killed = command(
        "import", FEED, "--batch", DAY, environment=dict(os.environ), killed_at="bulk_write.parsed"
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    (run,) = town.instance.get_runs()
    assert (run.tags[PRIORITY], run.tags[WRITES]) == ("0", "public.orders")
    # It is not known to be dead yet.
    urgent = queued(town, "urgent")
    assert next_runs(town.instance) == []
    report_dead(town.instance, run.run_id, "It was killed.")
    assert next_runs(town.instance) == [urgent.run_id]


def test_a_rollback_goes_before_and_a_verification_behind_all_others(shop: Shop) -> None:
    jobs = shop.defs
    assert jobs.resolve_job_def("rollback").tags[PRIORITY] == "20"
    assert jobs.resolve_job_def("verify_batches").tags[PRIORITY] == "-10"
    assert jobs.resolve_job_def("orders_replay").tags["batch-pipelines/feed"] == FEED


def test_a_tag_that_a_run_has_stays() -> None:
    of_feed = {PRIORITY: "20", WRITES: "public.orders"}
    assert missing_tags({PRIORITY: "3"}, [of_feed]) == {WRITES: "public.orders"}
    assert missing_tags({}, []) == {}


def pid_of(daemon: Daemon, run: dg.DagsterRun) -> int:
    """Wait for a run's process to say which one it is."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        for entry in daemon.instance.all_logs(run.run_id):
            event = entry.dagster_event
            if (
                event is not None
                and event.is_engine_event
                and "pid" in event.engine_event_data.metadata
            ):
                return int(str(event.engine_event_data.metadata["pid"].value))
        time.sleep(0.05)
    pytest.fail("the run said nothing")


def ended(daemon: Daemon, run: dg.DagsterRun) -> dg.DagsterRunStatus:
    """Wait for the end of a run, and say how it ended."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        found = daemon.instance.get_run_by_id(run.run_id)
        assert found is not None
        if found.is_finished:
            return found.status
        time.sleep(0.05)
    pytest.fail(f"run {run.run_id} did not end")
