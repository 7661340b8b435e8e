"""The ops of the job `rollback`: plan, rollback, verify. A dry run, the default, ends with the plan."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg
import pydantic

from assets.common import Cell, table
from batch_pipelines.engine.alerts import raise_alert
from batch_pipelines.engine.errors import BatchError
from batch_pipelines.engine.monitoring.refused import rollback_refused
from batch_pipelines.engine.rollback import Plan, Request, Rollback, plan, roll_back, verify
from batch_pipelines.engine.rollback.approval import ask
from batch_pipelines.engine.rollback.report import told
from batch_pipelines.engine.rollback.selection import select
from batch_pipelines.engine.rollback.takeback import needs_two
from resources.batches import Batches, requester
from resources.rolled_back import tell_rolled_back

THRESHOLD_EVENT_TAG = "batch-pipelines/threshold_event"


class RollbackConfig(dg.Config):
    """What can be set in the launchpad."""

    batches: list[str] = pydantic.Field(
        default=[], description="Batch ids, unique prefixes of them, or FEED/KEY."
    )
    since: str = pydantic.Field(
        default="",
        description="Also every batch published at or after this time, as in 2026-03-01T00:00Z.",
    )
    reason: str = pydantic.Field(description="Why; it is kept in the ledger.")
    dry_run: bool = pydantic.Field(
        default=True, description="Only print the plan. Untick it to take the batches back."
    )
    cascade: bool = pydantic.Field(
        default=False, description="Take later batches that depend on them back, too."
    )
    keep_touched: bool = pydantic.Field(
        default=False,
        description="Let rows stay that a later batch or a person has changed, or refers to.",
    )


@dg.config_mapping
def rollback_config(val: RollbackConfig) -> dict[str, Any]:
    """Hand the job's one configuration to its ops."""
    config = {"config": val.model_dump()}
    return {"ops": {"plan": config, "rollback": config, "verify": config}}


@dg.op(name="plan", description="What would happen in each table, and what stands in the way.")
def plan_op(
    context: dg.OpExecutionContext, config: RollbackConfig, batches: dg.ResourceParam[Batches]
) -> list[str]:
    """Plan; hand on the ids of the batches."""
    with _refusal_told(context, config, batches):
        return _plan(context, config, batches)


def _plan(context: dg.OpExecutionContext, config: RollbackConfig, batches: Batches) -> list[str]:
    wanted = _request(context, config, batches, ())
    found = plan(batches.acting_for(context.run), batches.settings, batches.feeds(), wanted)
    for line in told(found, dry_run=True):
        context.log.info(line)
    context.add_output_metadata(
        {
            "plan": table(row for each in found.plans for row in _rows(each)),
            "possible": found.refusal is None,
            **({} if found.refusal is None else {"refusal": found.refusal}),
        }
    )
    if found.refusal is not None and not config.dry_run:
        raise dg.Failure(found.refusal, allow_retries=False)
    if not config.dry_run:
        with batches.connect("rollback") as connection:
            strict = needs_two([each.batch for each in found.plans], batches.feeds())
            if strict:
                # The UI knows nobody's name, so the second person has to use the command line.
                asked = ask(connection, wanted)
                why = f"Feed {', '.join(strict)} wants two people for a rollback. Somebody else types:"
                raise dg.Failure(f"{why} batch-pipelines rollback --approve {asked}")
    return list(wanted.batch_ids)


# A definition may not have the name of its job; in the job it is `rollback`.
@dg.op(name="take_back", description="Takes the batches back, all of them or none.")
def rollback_op(
    context: dg.OpExecutionContext,
    config: RollbackConfig,
    batches: dg.ResourceParam[Batches],
    batch_ids: list[str],
) -> list[str]:
    """Take back; hand on the ids of all that went."""
    if config.dry_run:
        context.log.info("A dry run: nothing was changed.")
        return []
    wanted = _request(context, config, batches, tuple(batch_ids))
    with _refusal_told(context, config, batches):
        done = roll_back(batches.acting_for(context.run), batches.settings, batches.feeds(), wanted)
    for line in told(done, dry_run=False):
        context.log.info(line)
    context.add_output_metadata(_metadata(done))
    return [each.batch.batch_id for each in done.done] + [b.batch_id for b in done.already]


@dg.op(
    name="verify_rollback", description="Whether the tables are as if the batches had never been."
)
def verify_rollback_op(
    context: dg.OpExecutionContext,
    config: RollbackConfig,
    batches: dg.ResourceParam[Batches],
    batch_ids: list[str],
) -> None:
    """Verify, and show the partitions as what they are."""
    if config.dry_run:
        return
    with batches.connect("verify rollback") as connection:
        found = [verify(connection, batch_id) for batch_id in batch_ids]
    for each in found:
        tell_rolled_back(context.instance, each.batch)
    rows: list[dict[str, Cell]] = [
        {
            "batch": each.batch.batch_id, "check": check.name, "expected": check.expected,
            "actual": check.actual, "status": check.status,
        }
        for each in found
        for check in each.checks
    ]  # fmt: skip
    context.add_output_metadata({"checks": table(rows)})
    if failed := [check.name for each in found for check in each.failed]:
        raise dg.Failure(f"After the rollback: {', '.join(failed)}.", allow_retries=False)


@contextmanager
def _refusal_told(
    context: dg.OpExecutionContext, config: RollbackConfig, batches: Batches
) -> Iterator[None]:
    """Raise an alert where a rollback that a threshold's breach asked for cannot be done."""
    try:
        yield
    except (BatchError, dg.Failure) as error:
        if event := context.run.tags.get(THRESHOLD_EVENT_TAG):
            why = error.description or "" if isinstance(error, dg.Failure) else str(error)
            with batches.connect("alert") as connection:
                raise_alert(connection, rollback_refused(event, config.batches[0], why))
        raise


def _request(
    context: dg.OpExecutionContext,
    config: RollbackConfig,
    batches: Batches,
    batch_ids: tuple[str, ...],
) -> Request:
    if not batch_ids:
        with batches.connect("rollback") as connection:
            batch_ids = select(connection, config.batches, config.since or None)
    return Request(
        batch_ids=batch_ids,
        reason=config.reason,
        requested_by=requester(context.run),
        cascade=config.cascade,
        keep_touched=config.keep_touched,
        dry_run=config.dry_run,
        correlation_id=context.run.run_id,
    )


def _rows(found: Plan) -> list[dict[str, Cell]]:
    return [
        {
            "batch": found.batch.batch_id,
            "table": each.target_table,
            "delete": each.delete,
            "restore": each.restore,
            "reinstate": each.reinstate,
            "owned": each.owned,
        }
        for each in found.tables
    ]


def _metadata(done: Rollback) -> dict[str, Any]:
    rows: list[dict[str, Cell]] = [
        {
            "batch": each.batch.batch_id,
            "table": own.target_table,
            "deleted": own.deleted,
            "restored": own.restored,
            "reinstated": own.reinstated,
            "owned": own.owned,
            "kept": own.kept,
        }
        for each in done.done
        for own in each.tables
    ]
    return {"done": table(rows), "seconds": round(done.seconds, 3)}
