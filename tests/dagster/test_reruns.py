"""Failed partitions are run again: by the sensor what may have healed, by people what they ask for."""

from __future__ import annotations

import datetime as dt
import time
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest

from batch_pipelines.engine.alerts import listed
from batch_pipelines.engine.failpoints import armed
from batch_pipelines.engine.ledger import pauses
from resources.batches import Batches
from resources.reruns import choose_due, stand_failed
from tests.support_daemon import put_in_queue, started
from tests.support_engine import new_id
from tests.support_shop import DAY, FEED, failure_of, orders

if TYPE_CHECKING:
    from tests.support_shop import Shop

LONG_AGO = "UPDATE batch_audit.{} SET completed_at = completed_at - interval '1 day'"


def lose_database(shop: Shop, place: str = "bulk_write.before_fence") -> str:
    """Import, and let the server end the session in the middle of it; give the run's id."""
    if not (shop.folder / "landing").exists():
        shop.deliver(DAY, orders(5))
    end = "SELECT pg_terminate_backend(work_pid, 5000) FROM batch_audit.batch_lease"
    with armed(place, lambda value: (shop.query(end), value)[1]):
        result = shop.run(DAY)
    assert not result.success
    return result.run_id


def age(shop: Shop) -> None:
    """Let the failures be of yesterday."""
    for table in ("import_history", "batch_stage"):
        shop.query(LONG_AGO.format(table))


def tick(shop: Shop) -> dg.SensorResult | dg.SkipReason:
    defs = shop.defs
    with dg.build_sensor_context(
        instance=shop.instance, resources=dict(defs.resources or {})
    ) as context:
        found = defs.resolve_sensor_def("rerun_failed")(context)
    assert isinstance(found, dg.SensorResult | dg.SkipReason)
    return found


def launched(shop: Shop) -> list[dg.RunRequest]:
    found = tick(shop)
    return list(found.run_requests or ()) if isinstance(found, dg.SensorResult) else []


def ask(shop: Shop, **config: Any) -> None:
    """Run the job that people launch in the UI."""
    result = shop.defs.resolve_job_def("rerun_failed").execute_in_process(
        instance=shop.instance,
        run_config={"ops": {"ask": {"config": config}}},
        tags={"batch-pipelines/requested_by": "Ada"},
    )
    assert result.success


def test_a_batch_that_lost_its_database_is_run_again_once_its_pause_is_over(shop: Shop) -> None:
    first = lose_database(shop)
    batch = shop.batch(first)
    assert (batch.status, batch.failure_cause) == ("FAILED", "database")
    found = tick(shop)
    assert isinstance(found, dg.SkipReason)
    assert f"{FEED}/{DAY}: its pause lasts until" in str(found.skip_message)

    age(shop)
    (request,) = launched(shop)
    assert (request.job_name, request.partition_key) == (FEED, DAY)
    # Dagster launches nothing twice under one key; the next failure has another one.
    assert request.run_key == f"{FEED}/{DAY}:{first}:1"
    assert [each.run_key for each in launched(shop)] == [request.run_key]
    assert request.tags["batch-pipelines/requested_by"] == "sensor rerun_failed"

    again = shop.run(DAY)
    assert again.success
    assert shop.stamps() == {again.run_id}
    assert "No partition stands failed" in str(tick(shop))


def test_each_failure_is_another_occasion_and_they_end(shop: Shop) -> None:
    runs = [lose_database(shop) for _ in range(2)]
    age(shop)
    (request,) = launched(shop)
    assert request.run_key == f"{FEED}/{DAY}:{runs[1]}:2"

    shop.query("INSERT INTO batch_audit.batch_run (run_id, batch_id) SELECT gen_random_uuid(), "
               "batch_id FROM batch_audit.import_history, generate_series(1, 3)")  # fmt: skip
    assert launched(shop) == []
    with shop.database.connect("test") as connection:
        (alert,) = listed(connection)
    assert alert.alert.kind == "rerun_given_up"
    assert alert.alert.details["next"] == f"batch-pipelines rerun-failed {FEED}/{DAY}"


@pytest.mark.parametrize("place", ["archive.written"])
def test_a_batch_in_force_whose_last_stage_failed_is_finished(shop: Shop, place: str) -> None:
    run = lose_database(shop, place)
    batch = shop.batch(run)
    assert (batch.status, batch.failure_cause) == ("SUCCESS", None)
    age(shop)
    (request,) = launched(shop)
    assert request.partition_key == DAY
    assert shop.run(DAY).success
    assert shop.is_archived(run)
    assert launched(shop) == []


def test_a_wrong_checksum_is_run_again_only_if_somebody_asks(shop: Shop) -> None:
    shop.deliver(DAY, orders(5), sidecar=True).write_text(orders(4))
    stage, _ = failure_of(shop.run(DAY))
    assert stage == "checksum"
    age(shop)
    assert launched(shop) == []
    ask(shop)
    assert launched(shop) == []
    ask(shop, partitions=[f"{FEED}/{DAY}"], dry_run=True)
    assert launched(shop) == []
    ask(shop, partitions=[f"{FEED}/{DAY}"])
    (request,) = launched(shop)
    assert request.tags["batch-pipelines/requested_by"] == "Ada"
    assert not shop.run(DAY).success
    # What he asked for has been done; the next failure is another one.
    assert launched(shop) == []


def test_a_new_delivery_is_reason_enough_where_somebody_asks(shop: Shop) -> None:
    shop.deliver(DAY, orders(5, customer=9))
    assert not shop.run(DAY).success
    assert shop.batches()[0].failure_cause == "threshold"
    ask(shop)
    assert launched(shop) == []
    shop.deliver(DAY, orders(5))
    ask(shop)
    assert [each.partition_key for each in launched(shop)] == [DAY]


def test_nothing_is_run_again_that_waits_works_or_is_paused_or_gone(shop: Shop) -> None:
    lose_database(shop)
    age(shop)
    assert len(launched(shop)) == 1
    queued = put_in_queue(
        shop.instance, shop.defs.resolve_job_def(FEED), {"dagster/partition": DAY}
    )
    assert launched(shop) == []
    shop.instance.delete_run(queued.run_id)

    with shop.database.connect("test") as connection:
        pauses.pause(connection, FEED, by="Ada", reason="a test")
        assert "its feed is paused" in str(tick(shop))
        pauses.resume(connection, FEED, by="Ada")
    assert len(launched(shop)) == 1
    (shop.folder / "landing" / FEED / DAY / "orders.csv").unlink()
    assert "its delivery is not in landing any more" in str(tick(shop))


def test_a_run_that_failed_before_it_had_a_batch_is_run_again(shop: Shop) -> None:
    """The database was away when it began, or its process was killed: the ledger knows nothing."""
    shop.deliver(DAY, orders(5))
    run = dg.DagsterRun(
        job_name=FEED, run_id=new_id(), status=dg.DagsterRunStatus.STARTED,
        tags={"dagster/partition": DAY},
    )  # fmt: skip
    shop.instance.add_run(run)
    shop.instance.report_run_failed(run)
    batches = Batches(shop.settings, shop.database)
    feeds = {FEED: shop.feed}
    (failed,) = stand_failed(shop.instance, batches, feeds)
    assert (failed.batch_id, failed.cause, failed.tries) == (run.run_id, "no_batch", 1)
    (now, later) = (
        choose_due(shop.instance, batches, feeds, dt.datetime.now(dt.UTC) + pause)
        for pause in (dt.timedelta(0), dt.timedelta(minutes=2))
    )
    assert [each.decision.run for each in (*now, *later)] == [False, True]
    assert shop.run(DAY).success
    assert stand_failed(shop.instance, batches, feeds) == []


def test_what_was_rolled_back_stays_so_until_somebody_asks_for_it(shop: Shop) -> None:
    shop.deliver(DAY, orders(5))
    run = shop.run(DAY)
    shop.query("UPDATE batch_audit.import_history SET status = 'ROLLED_BACK', "
               "rolled_back_at = now() - interval '1 day' WHERE batch_id = %s", run.run_id)  # fmt: skip
    assert launched(shop) == []
    ask(shop, any_cause=True)
    assert launched(shop) == []
    ask(shop, rolled_back=True)
    assert [each.partition_key for each in launched(shop)] == [DAY]


def test_a_retry_of_the_daemon_goes_on_with_the_batch_and_the_sensor_keeps_out_of_its_way(
    shop: Shop,
) -> None:
    """Given a run with `dagster/max_retries` that loses its process, and the real daemon's retry."""
    shop.deliver(DAY, orders(5))
    shop.instance.add_dynamic_partitions(FEED, [DAY])
    # No such customer: what fails first.
    shop.query("ALTER TABLE public.orders ADD CHECK (id < 0) NOT VALID")
    with started(shop.instance) as daemon:
        run = daemon.launch(FEED, DAY, tags={"dagster/max_retries": "1"})
        daemon.dequeue()
        assert ended(shop, run.run_id) is dg.DagsterRunStatus.FAILURE
        shop.query("ALTER TABLE public.orders DROP CONSTRAINT orders_id_check")
        retry = daemon.retry(run.run_id)
        shop.query("UPDATE batch_audit.import_history SET failure_cause = 'database'")
        age(shop)
        # It waits in the queue, so nobody else runs the partition again.
        assert launched(shop) == []
        daemon.dequeue()
        assert ended(shop, retry) is dg.DagsterRunStatus.SUCCESS
    (batch,) = shop.batches()
    assert (batch.batch_id, batch.status) == (run.run_id, "SUCCESS")
    assert shop.runs(batch.batch_id) == [run.run_id, retry]


def ended(shop: Shop, run_id: str) -> dg.DagsterRunStatus:
    """Wait for the end of a run; give its status."""
    for _ in range(600):
        run = shop.instance.get_run_by_id(run_id)
        assert run is not None
        if run.is_finished:
            return run.status
        time.sleep(0.2)
    message = "the run does not end"
    raise AssertionError(message)


def test_the_sensor_runs_unasked(shop: Shop) -> None:
    sensor = shop.defs.resolve_sensor_def("rerun_failed")
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
