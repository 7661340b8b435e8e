"""`db track`, `db adopt` and `db untrack`: tables that were there before us."""

from __future__ import annotations

import dataclasses
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from batch_pipelines.cli.imports import user
from batch_pipelines.cli.show import Json, print_json, print_table, say
from batch_pipelines.engine.adoption import adopt as adoption
from batch_pipelines.engine.adoption import give_back
from batch_pipelines.engine.adoption import track as tracking
from batch_pipelines.engine.adoption.records import Options
from batch_pipelines.engine.adoption.short_locks import Pace
from batch_pipelines.engine.postgres.database import open_as_owner
from batch_pipelines.engine.postgres.migrate import require_current
from batch_pipelines.engine.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from batch_pipelines.engine.postgres.database import Database

_PARTIAL = 3

Wait = Annotated[
    float, typer.Option(help="Seconds to go on trying for a lock that others hold.", min=0)
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be done, and what it locks.")
]


def track(
    tables: Annotated[
        list[str], typer.Argument(metavar="SCHEMA.TABLE...", help="Tables to track.")
    ],
    *,
    convert: Annotated[
        bool, typer.Option("--convert", help="Make a stamp of a text type a uuid.")
    ] = False,
    dry_run: DryRun = False,
    wait: Wait = Pace.give_up_after,
    json: Json = False,
) -> None:
    """Give tables that are in use the stamp import_batch_id, with its index.

    No row is rewritten, and no writer waits for longer than a moment. Exit code 3: the stamp is of a
    text type, which feeds cannot write.
    """
    with _database() as database:
        found = [
            tracking.track(
                database, table, by=user(), convert=convert, dry_run=dry_run,
                pace=Pace(give_up_after=wait), tell=_silence if json or dry_run else say,
            )
            for table in tables
        ]  # fmt: skip
    if json:
        print_json([{**dataclasses.asdict(t), "dry_run": dry_run} for t in found])
    for one in [] if json else found:
        if dry_run:
            _print_steps(one.table, one.steps)
        elif one.ready:
            say(
                f"{one.table} is tracked: feeds can fill it."
                + ("" if one.steps else " It was before.")
            )
        else:
            say(
                f"{one.table}.import_batch_id is {one.stamp_type}, with an index: its rows can be found "
                f"by their id, but feeds write uuid. What making it one takes and locks: "
                f"batch-pipelines db track {one.table} --convert --dry-run"
            )
    if not dry_run and not all(one.ready for one in found):
        raise typer.Exit(_PARTIAL)


def adopt(
    table: Annotated[str, typer.Argument(metavar="SCHEMA.TABLE", help="The import history.")],
    *,
    column: Annotated[
        list[str] | None,
        typer.Option(help="Which column means what, as in started_at=begun; repeatable."),
    ] = None,
    status: Annotated[
        list[str] | None,
        typer.Option(help="Which of its words is which state, as in ok=SUCCESS; repeatable."),
    ] = None,
    feed: Annotated[
        str | None, typer.Option(help="Feed of its batches in the ledger. [default: adopted]")
    ] = None,
    dry_run: DryRun = False,
    wait: Wait = Pace.give_up_after,
    json: Json = False,
) -> None:
    """Take over the import history of another system: its jobs become batches of the ledger.

    Typed again it goes on where it stopped, as it was told the first time, and takes over the jobs that
    have ended since.
    """
    options = Options(_pairs("--column", column), _pairs("--status", status), feed or "")
    with _database() as database:
        found = adoption.adopt(
            database, table, options, by=user(), dry_run=dry_run, pace=Pace(give_up_after=wait),
            tell=_silence if json or dry_run else say,
        )  # fmt: skip
    if json:
        print_json({**dataclasses.asdict(found), "dry_run": dry_run})
        return
    if dry_run:
        say(
            "Read as: "
            + ", ".join(f"{meaning} = {name}" for meaning, name in found.columns.items())
        )
        _print_steps(table, found.steps)
        return
    say(f"{table} is adopted: {found.batches:,} new batches of feed {found.feed} in the ledger.")
    if found.unfinished:
        say(
            f"{found.unfinished:,} jobs have not ended; type the same command again when they have."
        )


def untrack(
    table: Annotated[str, typer.Argument(metavar="SCHEMA.TABLE")],
    *,
    drop_stamps: Annotated[
        bool, typer.Option("--drop-stamps", help="Even if rows lose the id of their batch.")
    ] = False,
    keep_column: Annotated[
        bool, typer.Option("--keep-column", help="Leave the table as it is; only forget it.")
    ] = False,
    wait: Wait = Pace.give_up_after,
    json: Json = False,
) -> None:
    """Take back what `db track` or `db adopt` did to a table."""
    if drop_stamps and keep_column:
        raise typer.BadParameter("--drop-stamps and --keep-column exclude each other.")
    with _database() as database:
        give_back.give_back(
            database, table, drop_stamps=drop_stamps, keep_column=keep_column,
            pace=Pace(give_up_after=wait),
        )  # fmt: skip
    if json:
        print_json({"table": table})
        return
    say(f"{table} is no longer tracked or adopted.")


@contextmanager
def _database() -> Iterator[Database]:
    with open_as_owner(load_settings()) as database:
        with database.connect("adoption") as connection:
            require_current(connection)
        yield database


def _print_steps(name: str, steps: Sequence[tuple[str, str]]) -> None:
    if steps:
        print_table(f"Left to do to {name}", ["step", "locks"], steps)
    else:
        say(f"{name}: nothing is left to do.")


def _pairs(option: str, said: Sequence[str] | None) -> dict[str, str]:
    pairs = {}
    for text in said or ():
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            message = f"{option} {text}: expected NAME=VALUE"
            raise typer.BadParameter(message)
        pairs[name] = value
    return pairs


def _silence(_: str) -> None:
    pass
