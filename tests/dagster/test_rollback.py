"""The job `rollback`, and what Dagster shows of a partition whose batch was taken back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagster as dg

from batch_pipelines.engine.ledger.stages import STAGES
from tests.support_shop import FEED, failure_of, orders, stage_key

if TYPE_CHECKING:
    from tests.support_shop import Shop

DAY = "2024-05-01"
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def run_rollback(shop: Shop, **config: Any) -> dg.ExecuteInProcessResult:
    return shop.defs.resolve_job_def("rollback").execute_in_process(
        instance=shop.instance, run_config={"reason": "a test", **config}, raise_on_error=False
    )


def status_of(shop: Shop, stage: str) -> str | None:
    found = shop.instance.get_status_by_partition(stage_key(stage), [DAY], shop.feed_partitions())
    status = (found or {}).get(DAY)
    return None if status is None else status.name


def test_a_dry_run_is_the_default(shop: Shop) -> None:
    shop.deliver(DAY, orders(3))
    assert shop.run(DAY).success
    before = shop.rows()
    result = run_rollback(shop, batches=[f"{FEED}/{DAY}"])
    assert result.success
    assert shop.rows() == before
    assert status_of(shop, "bulk_write") == "MATERIALIZED"


def test_a_partition_rolled_back_reads_failed_until_it_is_loaded_again(shop: Shop) -> None:
    shop.deliver(DAY, orders(3))
    first = shop.run(DAY)
    result = run_rollback(shop, batches=[first.run_id[:8]], dry_run=False)
    assert result.success
    assert shop.rows() == []
    (batch,) = shop.batches()
    assert (batch.status, batch.rolled_back_by) == ("ROLLED_BACK", "unauthenticated")
    assert {status_of(shop, stage) for stage in STAGES} == {"FAILED"}
    # Once more: nothing to do, and nothing told twice.
    runs = shop.instance.get_runs_count()
    assert run_rollback(shop, batches=[first.run_id], dry_run=False).success
    assert shop.instance.get_runs_count() == runs + 1
    again = shop.run(DAY)
    assert again.success
    assert shop.stamps() == {again.run_id}
    assert {status_of(shop, stage) for stage in STAGES} == {"MATERIALIZED"}


def test_a_backfill_of_failed_partitions_takes_it(shop: Shop) -> None:
    shop.deliver(DAY, orders(3))
    first = shop.run(DAY)
    assert run_rollback(shop, batches=[first.run_id], dry_run=False).success
    (run, *_) = shop.instance.get_runs(dg.RunsFilter(job_name=FEED))
    assert (run.status, run.tags["dagster/partition"]) == (dg.DagsterRunStatus.FAILURE, DAY)
    # What the UI's "only failed and missing" selects: the whole chain, of this partition.
    failed = [stage for stage in STAGES if status_of(shop, stage) == "FAILED"]
    assert failed == list(STAGES)


def test_one_stage_alone_refuses(shop: Shop) -> None:
    shop.deliver(DAY, orders(3))
    first = shop.run(DAY)
    assert run_rollback(shop, batches=[first.run_id], dry_run=False).success
    assert not shop.run(DAY, "validate").success


def test_what_stands_in_the_way_fails_the_run(shop: Shop) -> None:
    shop.deliver(DAY, orders(3))
    first = shop.run(DAY)
    shop.query("UPDATE public.orders SET note = 'by hand' WHERE id = 2")
    assert run_rollback(shop, batches=[first.run_id]).success
    assert not run_rollback(shop, batches=[first.run_id], dry_run=False).success
    assert len(shop.rows()) == 3
    kept = run_rollback(shop, batches=[first.run_id], dry_run=False, keep_touched=True)
    assert kept.success
    assert [row[0] for row in shop.rows()] == [2]


def test_a_batch_that_fails_validation_is_rolled_back_by_its_run_and_all_stages_read_failed(
    shop: Shop,
) -> None:
    feed = shop.settings.feeds / "orders.yaml"
    feed.write_text(feed.read_text() + "on_validation_failure: roll_back\n")
    # What a trigger of the ledger does, after publish has proven the rows, only validation sees.
    shop.query(
        "CREATE FUNCTION forget() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN UPDATE public.orders SET host = NULL; RETURN NULL; END'"
    )
    shop.query("ALTER TABLE public.orders ADD host inet")
    shop.query(
        "CREATE TRIGGER forgets AFTER INSERT ON batch_audit.batch_table EXECUTE FUNCTION forget()"
    )
    head, line, *_ = orders(1).splitlines()
    shop.deliver(DAY, f"{head},host\n{line},10.0.0.1\n")
    first = shop.run(DAY)
    assert not first.success
    stage, message = failure_of(first)
    assert stage == "validate"
    assert "aggregates.host" in message
    assert "The batch was rolled back." in message
    assert shop.rows() == []
    assert shop.batch(first.run_id).status == "ROLLED_BACK"
    assert {status_of(shop, stage) for stage in STAGES} == {"FAILED"}
    shop.query("DROP TRIGGER forgets ON batch_audit.batch_table")
    assert shop.run(DAY).success
    assert {status_of(shop, stage) for stage in STAGES} == {"MATERIALIZED"}
