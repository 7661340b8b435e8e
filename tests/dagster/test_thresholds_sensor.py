"""The sensor `thresholds`: real failing runs are told, a feed is paused, a batch is taken back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest
import yaml

from assets.rollback import THRESHOLD_EVENT_TAG
from batch_pipelines.engine.alerts import listed
from batch_pipelines.engine.ledger import pauses
from tests.support_sensors import evaluated
from tests.support_shop import FEED, orders, stage_key

if TYPE_CHECKING:
    from batch_pipelines.engine.alerts import Alert
    from tests.support_shop import Shop

BROKEN = "id,customer\n1,2,3\n"


def say(shop: Shop, **more: object) -> None:
    """Let the feed say more."""
    path = shop.settings.feeds / "orders.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **more}, sort_keys=False))


def looked(shop: Shop, cursor: str | None = None) -> dg.SensorResult:
    found = evaluated(shop, "thresholds", cursor)
    assert isinstance(found, dg.SensorResult), found
    return found


def alerts(shop: Shop, kind: str) -> list[Alert]:
    with shop.database.connect("test") as connection:
        return [a.alert for a in listed(connection)[::-1] if a.alert.kind == kind]


def fail(shop: Shop, *keys: str) -> None:
    for key in keys:
        shop.deliver(key, BROKEN)
        assert not shop.run(key).success


def test_failing_runs_pause_the_feed_and_show_in_its_check(shop: Shop) -> None:
    say(shop, monitor={"on_breach": "pause"})
    first = looked(shop)
    (well,) = first.asset_events
    assert isinstance(well, dg.AssetCheckEvaluation)
    assert well.passed
    assert isinstance(evaluated(shop, "thresholds", first.cursor), dg.SkipReason)
    fail(shop, "2024-05-01", "2024-05-02", "2024-05-03")
    second = looked(shop, first.cursor)
    (shown,) = second.asset_events
    assert isinstance(shown, dg.AssetCheckEvaluation)
    assert shown.asset_key == stage_key("ingest")
    assert not shown.passed
    assert shown.severity is dg.AssetCheckSeverity.ERROR
    assert "breach" in str(shown.metadata["thresholds"])
    assert "feeds resume orders" in str(shown.metadata["paused"].value)
    assert [alert.severity for alert in alerts(shop, "threshold")] == ["critical"]
    assert len(alerts(shop, "batch_failed")) == 3

    again = evaluated(shop, "thresholds", second.cursor)
    assert isinstance(again, dg.SkipReason)
    assert again.skip_message == "No threshold has changed."
    skipped = evaluated(shop, "landing_orders")
    assert isinstance(skipped, dg.SkipReason)
    assert "failed batches in a row is 3 (warn at 2, breach at 3)" in str(skipped.skip_message)

    with shop.database.connect("test") as connection:
        pauses.resume(connection, FEED, by="ann")
    third = looked(shop, second.cursor)
    (well,) = third.asset_events
    assert isinstance(well, dg.AssetCheckEvaluation)
    assert well.passed


def test_a_pause_by_hand_shows_in_the_check(shop: Shop) -> None:
    first = looked(shop)
    with shop.database.connect("test") as connection:
        pauses.pause(connection, FEED, by="ann", reason="the sender repeats itself")
    (shown,) = looked(shop, first.cursor).asset_events
    assert isinstance(shown, dg.AssetCheckEvaluation)
    assert not shown.passed
    assert "by ann: the sender repeats itself" in str(shown.metadata["paused"].value)


def test_the_check_can_be_launched_and_is_none_of_a_batch_s_run(shop: Shop) -> None:
    shop.deliver("2024-05-01", orders(3))
    run = shop.run("2024-05-01")
    assert run.success
    assert "thresholds" not in {check.check_name for check in run.get_asset_check_evaluations()}
    evaluated(shop, "thresholds")
    defs = shop.defs
    job = dg.define_asset_job("look", dg.AssetSelection.checks_for_assets(stage_key("ingest")))
    whole = dg.Definitions.merge(defs, dg.Definitions(jobs=[job]))
    done = whole.resolve_job_def("look").execute_in_process(instance=shop.instance)
    (found,) = done.get_asset_check_evaluations()
    assert found.passed
    assert "warn at 2, breach at 3" in str(found.metadata["thresholds"])


@pytest.fixture
def breached(shop: Shop) -> tuple[Shop, dict[str, Any]]:
    """A batch of which a third was set aside; how the daemon would launch what the sensor asks for."""
    say(shop, monitor={"rejected_rows": {"breach": "20%"}, "on_breach": "roll_back"})
    shop.deliver("2024-05-01", orders(4) + "9,77,2024-05-01,1.00,\n10,77,2024-05-01,1.00,\n")
    assert shop.run("2024-05-01").success
    (request,) = looked(shop).run_requests or ()
    assert request.run_key == f"threshold/{request.tags[THRESHOLD_EVENT_TAG]}"
    wanted = {
        "run_config": request.run_config,
        "tags": dict(request.tags),
        "instance": shop.instance,
        "raise_on_error": False,
    }
    return shop, wanted


def test_a_breach_takes_the_batch_back(breached: tuple[Shop, dict[str, Any]]) -> None:
    shop, wanted = breached
    # Asked for again under the same key, until it is done.
    assert len(looked(shop).run_requests or ()) == 1
    assert shop.defs.resolve_job_def("rollback").execute_in_process(**wanted).success
    (batch,) = shop.batches()
    assert (batch.status, batch.rolled_back_by) == ("ROLLED_BACK", "sensor thresholds")
    assert batch.rollback_reason == "orders breached its threshold rejected_rows"
    assert shop.rows() == []
    assert not looked(shop).run_requests
    assert alerts(shop, "rollback_refused") == []


def test_a_rollback_that_is_refused_is_an_alert(breached: tuple[Shop, dict[str, Any]]) -> None:
    shop, wanted = breached
    shop.query("UPDATE public.orders SET note = 'SECRET' WHERE id = 1")
    assert not shop.defs.resolve_job_def("rollback").execute_in_process(**wanted).success
    assert shop.batches()[0].status == "PARTIAL_SUCCESS"
    (alert,) = alerts(shop, "rollback_refused")
    assert alert.severity == "critical"
    assert alert.batch_id == shop.batches()[0].batch_id
    assert "SECRET" not in str(alert)
    assert "changed" in str(alert.details["why"])
    assert not looked(shop).run_requests
