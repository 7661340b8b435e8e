"""The ops of the job `retention`: plan, archive and delete, report. A dry run ends with the plan."""

import datetime as dt
from collections.abc import Iterable
from typing import Any

import dagster as dg
import pydantic

from assets.common import Cell, table
from batch_pipelines.engine.errors import BatchError
from batch_pipelines.engine.retention import trail
from batch_pipelines.engine.retention.course import Result, Retention, require_done
from batch_pipelines.engine.retention.plan import Found, Planner
from batch_pipelines.engine.retention.record import Chunk, Course, of_run
from batch_pipelines.engine.retention.site import read_site
from batch_pipelines.engine.retention.trail import MonthDone
from batch_pipelines.engine.retention.trail_plan import DueMonth, due_months
from resources.archived import retire_keys, tell_archived
from resources.batches import Batches, requester


class RetentionConfig(dg.Config):
    """What can be set in the launchpad."""

    dry_run: bool = pydantic.Field(
        default=True,
        description="Only show the plan. Untick it to archive and delete what is due.",
    )
    feed: str = pydantic.Field(default="", description="Only this feed; empty for all.")


@dg.config_mapping
def retention_config(val: RetentionConfig) -> dict[str, Any]:
    """Hand the job's one configuration to its ops."""
    config = {"config": val.model_dump()}
    return {"ops": {"plan": config, "archive_and_delete": config, "report": config}}


@dg.op(
    name="plan_retention", description="What is due by which rule, and what keeps the rest of it."
)
def plan_retention_op(
    context: dg.OpExecutionContext, config: RetentionConfig, batches: dg.ResourceParam[Batches]
) -> int:
    """Plan; hand on how much is to go."""
    planner = _planner(batches)
    with batches.connect("retention plan") as connection:
        found = planner.plan(connection, config.feed or None)
        months = () if config.feed else due_months(connection, planner)
    going = [item for item in found if item.goes]
    context.add_output_metadata(
        {
            "due": len(going),
            "rows due": sum(item.records for item in going if item.data_class == "rows"),
            "bytes due": sum(item.bytes for item in going),
            "goes": table(_going(going)),
            "stays": table(_staying(item for item in found if not item.goes)),
            "audit trail": table(_months(months)),
            "dry run": config.dry_run,
        }
    )
    return len(going)


@dg.op(
    name="archive_and_delete",
    description="Puts away what is due, reads it back, and only then deletes it.",
)
def archive_and_delete_op(
    context: dg.OpExecutionContext,
    config: RetentionConfig,
    batches: dg.ResourceParam[Batches],
    due: int,
) -> int:
    """Do it; hand on how much went. What fails stops nothing else, and is told by the report."""
    if config.dry_run:
        context.log.info("A dry run: %s are due, and nothing was changed.", due)
        return 0
    planner = _planner(batches)
    course = _course(context)

    def tell(chunk: Chunk) -> None:
        context.log.info("%s %s of %s", chunk.state, chunk.data_class, chunk.name)
        if chunk.state == "DELETED" and chunk.feed in planner.feeds:
            # One by one: what was done stays visible where the run ends early.
            tell_archived(context.instance, chunk)

    try:
        result = Retention(
            batches.acting_for(context.run), batches.settings, planner, course, tell
        ).run(config.feed or None)
    except BatchError as error:
        raise dg.Failure(str(error), allow_retries=False) from None
    with batches.connect("retention keys") as connection:
        gone = retire_keys(context.instance, connection, planner.feeds, course, planner.now)
    context.add_output_metadata(
        {"partition keys retired": table(_retired(gone))},
    )
    return len(result.of_state("DELETED"))


@dg.op(name="report_retention", description="What was done; it fails where something failed.")
def report_retention_op(
    context: dg.OpExecutionContext,
    config: RetentionConfig,
    batches: dg.ResourceParam[Batches],
    deleted: int,
) -> None:
    """Report."""
    if config.dry_run:
        context.log.info("A dry run: %s went.", deleted)
        return
    with batches.connect("retention report") as connection:
        chunks = of_run(connection, context.run.run_id)
        months = trail.of_run(connection, context.run.run_id)
    context.add_output_metadata(
        {
            **{
                state.lower(): sum(chunk.state == state for chunk in chunks)
                for state in ("DELETED", "KEPT", "FAILED")
            },
            "done": table(_done(chunks)),
            "audit trail": table(_months_done(months)),
        }
    )
    try:
        require_done(Result((), chunks, months))
    except BatchError as error:
        raise dg.Failure(str(error), allow_retries=False) from None


def _planner(batches: Batches) -> Planner:
    settings = batches.settings
    now, site = dt.datetime.now(dt.UTC), read_site(settings.retention)
    return Planner(batches.feeds(), settings.regulations, now, site)


def _course(context: dg.OpExecutionContext) -> Course:
    return Course(context.run.run_id, requester(context.run))


def _going(found: Iterable[Found]) -> Iterable[dict[str, Cell]]:
    for item in found:
        yield {
            "partition": item.name,
            "batch": item.batch_id,
            "class": item.data_class,
            "rows": item.records,
            "bytes": item.bytes,
            "rule": item.rule,
            "legal source": item.legal_source,
            "due since": f"{item.due_at:%Y-%m-%d}",
        }


def _staying(found: Iterable[Found]) -> Iterable[dict[str, Cell]]:
    for item in found:
        yield {
            "partition": item.name,
            "batch": item.batch_id,
            "class": item.data_class,
            "rows": item.records,
            "rule": item.rule,
            "kept by": "; ".join(item.kept_by),
        }


def _done(chunks: Iterable[Chunk]) -> Iterable[dict[str, Cell]]:
    for chunk in chunks:
        yield {
            "partition": chunk.name,
            "batch": chunk.batch_id,
            "class": chunk.data_class,
            "rows": chunk.records,
            "state": chunk.state,
            "archived in": chunk.place or "",
            "why": chunk.reason or "",
        }


def _months(months: Iterable[DueMonth]) -> Iterable[dict[str, Cell]]:
    for month in months:
        yield {
            "month": month.name,
            "entries": month.entries,
            "bytes": month.bytes,
            "rule": month.rule,
            "legal source": month.legal_source,
            "due since": f"{month.due_at:%Y-%m-%d}",
            "kept by": "; ".join(month.kept_by),
        }


def _months_done(months: Iterable[MonthDone]) -> Iterable[dict[str, Cell]]:
    for month in months:
        yield {
            "month": month.month,
            "state": month.state,
            "entries": month.entries,
            "archived in": month.place or "",
            "why": month.reason or "",
        }


def _retired(gone: dict[str, list[str]]) -> Iterable[dict[str, Cell]]:
    for feed, keys in gone.items():
        yield {"feed": feed, "keys": ", ".join(keys)}
