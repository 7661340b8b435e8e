"""`import --dry-run`: what importing deliveries would do."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import typer

from batch_pipelines.cli.show import (
    complain,
    print_changes,
    print_fidelity,
    print_json,
    reason_text,
    say,
)
from batch_pipelines.engine.postgres.lease import acquire
from batch_pipelines.engine.rehearsal import rehearse
from batch_pipelines.engine.work import Work

if TYPE_CHECKING:
    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.postgres.database import Database
    from batch_pipelines.engine.rehearsal import Rehearsal
    from batch_pipelines.engine.settings import Settings

_FAILED, _PARTIAL = 1, 3


def rehearse_all(
    feed: Feed, keys: list[str], settings: Settings, database: Database, *, json: bool
) -> None:
    """Rehearse the import of partitions one after the other, and say what would happen.

    Args:
        feed: The feed.
        keys: Partition keys.
        settings: The settings.
        database: The target database.
        json: Whether to print JSON.

    Raises:
        BatchError: A delivery cannot be loaded at all.
        typer.Exit: The import would end other than with success.
    """
    found = {f"{feed.feed}/{key}": _rehearse(feed, key, settings, database) for key in keys}
    if json:
        print_json([_plain(name, rehearsal) for name, rehearsal in found.items()])
    else:
        for name, rehearsal in found.items():
            _report(name, rehearsal)
        say("Nothing was changed.")
    if any(rehearsal.problem for rehearsal in found.values()):
        raise typer.Exit(_FAILED)
    if any(rehearsal.reasons or rehearsal.set_aside for rehearsal in found.values()):
        raise typer.Exit(_PARTIAL)


def _rehearse(feed: Feed, key: str, settings: Settings, database: Database) -> Rehearsal:
    run_id = str(uuid.uuid4())
    seconds = settings.lease_seconds
    with (
        acquire(database, feed.feed, key, run_id, seconds=seconds) as lease,
        database.connect("rehearsal") as connection,
    ):
        work = Work(
            database=database, settings=settings, feed=feed, key=key, lease=lease,
            requested_by="", correlation_id=run_id,
        )  # fmt: skip
        return rehearse(connection, work)


def _report(name: str, rehearsal: Rehearsal) -> None:
    say(f"{name}: {'would be refused' if rehearsal.problem else 'would be published'}")
    if rehearsal.supersedes is not None and rehearsal.problem is None:
        say(f"  in place of batch {rehearsal.supersedes}")
    for each in rehearsal.balances:
        say(
            f"  {each.target_table}: {each.source_records:,} records, {each.inserted:,} inserted, "
            f"{each.updated:,} updated, {each.unchanged:,} unchanged, {each.rejected:,} set aside, "
            f"{each.skipped:,} skipped, {each.removed:,} rows removed"
        )
    for table, columns in rehearsal.fidelity.items():
        print_fidelity(table, columns)
    for problem in rehearsal.set_aside:
        say(f"  file set aside: {problem}")
    for comparison in rehearsal.comparisons:
        print_changes(str(comparison), comparison.changes)
    for reason, records in sorted(rehearsal.reasons.items(), key=lambda item: -item[1]):
        breach = reason.breach
        why = reason_text(reason.target_table, breach.column, breach.message, breach.sqlstate)
        say(f"  {records:>7,}  {why}")
    if rehearsal.problem is not None:
        complain(rehearsal.problem)


def _plain(name: str, rehearsal: Rehearsal) -> dict[str, object]:
    return {
        "name": name,
        "problem": rehearsal.problem,
        "supersedes": rehearsal.supersedes,
        "tables": [vars(each) for each in rehearsal.balances],
        "signatures": [
            {
                "target_table": each.table.full_name, "verdict": each.verdict,
                "signature_hash": each.signature.hash, "changes": each.changes,
                "previous_version": each.previous,
            }
            for each in rehearsal.comparisons
        ],
        "files_set_aside": rehearsal.set_aside,
        "columns": {name: [*map(vars, own)] for name, own in rehearsal.fidelity.items()},
        "reasons": [
            {
                "target_table": reason.target_table, "sqlstate": reason.breach.sqlstate,
                "column": reason.breach.column, "constraint": reason.breach.constraint,
                "message": reason.breach.message, "records": records,
            }
            for reason, records in rehearsal.reasons.items()
        ],
    }  # fmt: skip
