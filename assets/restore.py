"""The op of the job `restore`: rows of an archived batch brought back, or the plan of that."""

import dagster as dg
import pydantic

from assets.common import table
from batch_pipelines.engine.ledger.batches import find
from batch_pipelines.engine.restoring.report import told
from batch_pipelines.engine.restoring.restore import KEPT_DAYS, RestoreRequest, restore
from batch_pipelines.partitions import register
from resources.archived import tell_restored
from resources.batches import Batches, requester


class RestoreConfig(dg.Config):
    """What can be set in the launchpad."""

    batch: str = pydantic.Field(description="Batch id, a unique prefix of one, or FEED/KEY.")
    reason: str = pydantic.Field(default="", description="Why; it is kept in the audit trail.")
    days: int = pydantic.Field(
        default=KEPT_DAYS, ge=0, description="Days for which retention leaves them alone."
    )
    dry_run: bool = pydantic.Field(
        default=True, description="Only print the plan. Untick it to bring the rows back."
    )


@dg.op(
    name="restore_rows",
    description="Brings the rows of an archived batch back into their tables, all of them or none.",
)
def restore_op(
    context: dg.OpExecutionContext, config: RestoreConfig, batches: dg.ResourceParam[Batches]
) -> None:
    """Restore, or plan it."""
    with batches.connect("restore") as connection:
        batch = find(connection, config.batch)
    by = requester(context.run)
    request = RestoreRequest(batch.batch_id, by, config.reason.strip(), config.dry_run, config.days)
    done = restore(batches.acting_for(context.run), batches.settings, request)
    for line in told(done, dry_run=config.dry_run):
        context.log.info(line)
    plan, feed = done.plan, batches.feeds().get(batch.feed)
    if plan is not None and done.refusal is None and not config.dry_run and feed is not None:
        # Retention may have had its key forgotten.
        register(context.instance, feed, [batch.partition_key])
        tell_restored(context.instance, done.batch)
    tables = () if plan is None else plan.tables
    context.add_output_metadata(
        {
            "batch": batch.batch_id,
            "batch_status": done.batch.status,
            "dry_run": config.dry_run,
            "possible": done.refusal is None,
            "tables": table({"table": each.full_name, "rows": each.rows} for each in tables),
            **({} if done.refusal is None else {"refusal": done.refusal}),
        }
    )
