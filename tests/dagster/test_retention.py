"""The job `retention`: a plan, then what is due goes; archived partitions read as such."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagster as dg

from tests.support_shop import DAY, FEED, failure_of, orders, stage_key

if TYPE_CHECKING:
    from tests.support_shop import Shop

RULES = """
retention:
  rows: {keep: 7 years, legal_source: tax code}
  partitions: {keep: 30 days}
"""
OLD = """
UPDATE batch_audit.import_history SET started_at = started_at - interval '8 years',
    published_at = published_at - interval '8 years', completed_at = completed_at - interval '8 years'
"""
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def run(shop: Shop, job: str = "retention", **config: Any) -> dg.ExecuteInProcessResult:
    return shop.defs.resolve_job_def(job).execute_in_process(
        instance=shop.instance, run_config=config, raise_on_error=False
    )


def metadata(result: dg.ExecuteInProcessResult, op: str) -> dict[str, Any]:
    (event,) = [e for e in result.events_for_node(op) if e.is_successful_output]
    return {name: value.value for name, value in event.step_output_data.metadata.items()}


def seen(shop: Shop) -> tuple[str | None, dict[str, Any]]:
    """Description and metadata of the newest observation of the partition's rows."""
    (record,) = shop.instance.fetch_observations(stage_key("bulk_write"), limit=1).records
    assert record.asset_observation is not None
    assert record.partition_key == DAY
    found = record.asset_observation
    return found.description, {name: value.value for name, value in found.metadata.items()}


def test_a_plan_by_default_then_archived_then_restored(shop: Shop) -> None:
    with (shop.settings.feeds / f"{FEED}.yaml").open("a") as file:
        file.write(RULES)
    shop.deliver(DAY, orders(20))
    assert shop.run(DAY).success
    shop.query(OLD)
    plan = run(shop)
    assert plan.success
    assert (metadata(plan, "plan")["due"], len(shop.rows())) == (1, 20)
    done = run(shop, dry_run=False)
    assert done.success
    assert shop.rows() == []
    told = metadata(done, "report")
    assert (told["deleted"], told["kept"], told["failed"]) == (1, 0, 0)
    description, what = seen(shop)
    assert str(description).startswith("ARCHIVED: its rows have left the tables")
    assert (what["batch_status"], what["rows"], what["legal source"]) == (
        "ARCHIVED",
        20,
        "tax code",
    )
    assert shop.instance.has_dynamic_partition(FEED, DAY)
    # Long archived, its key goes; the ledger keeps all.
    shop.query("UPDATE batch_audit.import_history SET archived_at = now() - interval '31 days'")
    retired = run(shop, dry_run=False)
    assert retired.success
    assert not shop.instance.has_dynamic_partition(FEED, DAY)
    (batch,) = shop.batches()
    assert batch.status == "ARCHIVED"
    # Restored, it is there again.
    restored = {"ops": {"restore_rows": {"config": {"batch": f"{FEED}/{DAY}", "dry_run": False}}}}
    assert run(shop, "restore", **restored).success
    assert len(shop.rows()) == 20
    assert shop.instance.has_dynamic_partition(FEED, DAY)
    assert seen(shop)[1]["batch_status"] == "SUCCESS"


def test_what_fails_fails_the_run_and_is_named(shop: Shop) -> None:
    shop.deliver(DAY, orders(3))
    assert shop.run(DAY).success
    shop.query(OLD)
    with (shop.settings.feeds / f"{FEED}.yaml").open("a") as file:
        file.write(RULES + "archive: {to: /dev/null/archive}\n")
    result = run(shop, dry_run=False)
    assert not result.success
    where, why = failure_of(result)
    assert where == "report"
    assert "cannot be written" in why
    assert len(shop.rows()) == 3


def test_every_night_it_is_no_dry_run(shop: Shop) -> None:
    schedule = shop.defs.resolve_schedule_def("retention_nightly")
    assert schedule.job_name == "retention"
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    tick = schedule.evaluate_tick(dg.build_schedule_context(instance=shop.instance))
    (request,) = tick.run_requests or []
    assert request.run_config == {"dry_run": False}
    assert request.tags["batch-pipelines/requested_by"] == "schedule retention_nightly"
