"""`retention`: archive and delete what is due, or say what would go and what keeps it."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import TYPE_CHECKING, Annotated

import typer

from batch_pipelines.cli.imports import user
from batch_pipelines.cli.show import Json, complain, print_json, print_table, say
from batch_pipelines.engine.feed_files import load_feeds
from batch_pipelines.engine.postgres.migrate import require_current
from batch_pipelines.engine.retention.course import Result, Retention
from batch_pipelines.engine.retention.plan import Planner
from batch_pipelines.engine.retention.record import Course
from batch_pipelines.engine.retention.site import read_site
from batch_pipelines.engine.retention.trail_plan import due_months
from batch_pipelines.engine.settings import load_settings
from batch_pipelines.instance import open_instance, prepared

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.postgres.database import Database
    from batch_pipelines.engine.retention.plan import Found
    from batch_pipelines.engine.retention.trail_plan import DueMonth

_FAILED, _PARTIAL = 1, 3


def retention(
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and change nothing.")
    ] = False,
    feed: Annotated[str | None, typer.Option(help="Only of this feed.")] = None,
    json: Json = False,
) -> None:
    """Archive what is due by the feeds' rules, read it back, and only then delete it."""
    settings = load_settings()
    feeds = load_feeds(settings.feeds)
    now, site = dt.datetime.now(dt.UTC), read_site(settings.retention)
    planner = Planner(feeds, settings.regulations, now, site)
    with prepared(settings) as database:
        with database.connect("retention plan") as connection:
            require_current(connection)
            plan = planner.plan(connection, feed)
            months = due_months(connection, planner) if feed is None else ()
        if dry_run:
            if json:
                print_json(
                    {"dry_run": True, "plan": plan, "chunks": [], "trail": months, "months": []}
                )
            else:
                _print_plan(plan)
                _print_months(months)
            return
        course = Course(str(uuid.uuid4()), f"{user()} (command line)")
        result = Retention(database, settings, planner, course).run(feed)
        _tell_dagster(database, feeds, planner, course, result)
    if json:
        print_json(
            {
                "dry_run": False, "plan": result.plan, "chunks": result.chunks, "trail": months,
                "months": result.months,
            }
        )  # fmt: skip
    else:
        _print_plan([item for item in result.plan if not item.goes])
        _print_months([month for month in months if not month.goes])
        _print_result(result)
    for failure in result.failures:
        complain(failure)
    if result.failures:
        gone = [month for month in result.months if month.state == "REMOVED"]
        raise typer.Exit(_PARTIAL if result.of_state("DELETED") or gone else _FAILED)


def _tell_dagster(
    database: Database,
    feeds: Mapping[str, Feed],
    planner: Planner,
    course: Course,
    result: Result,
) -> None:
    # Dagster takes a second and a half to import.
    from resources.archived import retire_keys, tell_archived  # noqa: PLC0415

    with open_instance() as instance, database.connect("retention") as connection:
        for chunk in result.of_state("DELETED"):
            tell_archived(instance, chunk)
        retire_keys(instance, connection, feeds, course, planner.now)


def _print_plan(plan: Sequence[Found]) -> None:
    going, kept = [i for i in plan if i.goes], [i for i in plan if not i.goes]
    if not plan:
        say("Nothing is due.")
    if going:
        print_table(
            "What would go",
            ["partition", "batch", "class", "rows", "bytes", "rule", "legal source", "due since"],
            [
                [i.name, i.batch_id[:8], i.data_class, i.records, i.bytes, i.rule, i.legal_source,
                 f"{i.due_at:%Y-%m-%d}"]
                for i in going
            ],
        )  # fmt: skip
    if kept:
        print_table(
            "What stays, and what keeps it",
            ["partition", "batch", "class", "rows", "rule", "kept by"],
            [
                [i.name, i.batch_id[:8], i.data_class, i.records, i.rule, "; ".join(i.kept_by)]
                for i in kept
            ],
        )  # fmt: skip


def _print_months(months: Sequence[DueMonth]) -> None:
    if months:
        print_table(
            "The audit trail",
            ["month", "entries", "bytes", "rule", "legal source", "due since", "kept by"],
            [
                [m.name, m.entries, m.bytes, m.rule, m.legal_source, f"{m.due_at:%Y-%m-%d}",
                 "; ".join(m.kept_by)]
                for m in months
            ],
        )  # fmt: skip


def _print_result(result: Result) -> None:
    if result.months:
        print_table(
            "The audit trail: done",
            ["month", "state", "entries", "archived in", "why"],
            [[m.month, m.state, m.entries, m.place, m.reason] for m in result.months],
        )
    if not result.chunks:
        say("Nothing was to go.")
        return
    print_table(
        "Done",
        ["partition", "batch", "class", "rows", "state", "archived in", "why"],
        [
            [c.name, c.batch_id[:8], c.data_class, c.records, c.state, c.place, c.reason]
            for c in result.chunks
        ],
    )
