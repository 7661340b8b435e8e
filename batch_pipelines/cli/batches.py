"""`batches` and `show`: what happened, from the ledger."""

from __future__ import annotations

import shlex
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from batch_pipelines.cli.differences import print_differences
from batch_pipelines.cli.reconciled import print_reconciliation
from batch_pipelines.cli.retained import print_retained, print_standing, retained_of
from batch_pipelines.cli.show import (
    Json,
    print_changes,
    print_fidelity,
    print_json,
    print_table,
    say,
)
from batch_pipelines.engine.ledger import (
    archives,
    columns,
    costs,
    critical,
    files,
    proofs,
    rollbacks,
    staged_tables,
    stages,
    verifications,
)
from batch_pipelines.engine.ledger import batches as ledger
from batch_pipelines.engine.ledger import rejects as quarantine
from batch_pipelines.engine.ledger import signatures as feed_signatures
from batch_pipelines.engine.ledger.events import of_batch
from batch_pipelines.engine.ledger.staged_tables import SCHEMA
from batch_pipelines.engine.postgres.database import open_as_owner, open_database
from batch_pipelines.engine.postgres.migrate import require_current
from batch_pipelines.engine.reconciliation.reconcile import find_reconciled
from batch_pipelines.engine.settings import load_settings

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterator, Mapping, Sequence

    from batch_pipelines.cli.retained import Retained
    from batch_pipelines.engine.fidelity import ColumnFidelity
    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.ledger.costs import BatchCost
    from batch_pipelines.engine.ledger.critical import CriticalCount
    from batch_pipelines.engine.ledger.events import Recorded
    from batch_pipelines.engine.ledger.proofs import TableBalance
    from batch_pipelines.engine.ledger.rejects import RejectCount
    from batch_pipelines.engine.ledger.verifications import TableVerification
    from batch_pipelines.engine.postgres.database import Connection

# Reasons for rejects that are listed.
_REASONS = 50
_STATES = get_args(ledger.Status)


def _state(typed: str | None) -> str | None:
    """Accept a state in any case."""
    wanted = typed if typed is None else typed.upper()
    if wanted is not None and wanted not in _STATES:
        message = f"{typed!r} is no state of a batch. There are: {', '.join(_STATES)}."
        raise typer.BadParameter(message)
    return wanted


def batches(
    *,
    feed: Annotated[str | None, typer.Option(help="Only of this feed.")] = None,
    status: Annotated[
        str | None, typer.Option(help="Only in this state, e.g. FAILED.", callback=_state)
    ] = None,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1)] = 100,
    json: Json = False,
) -> None:
    """List batches, newest first."""
    with opened_ledger() as connection:
        found = ledger.history(connection, feed=feed, status=status, limit=limit)
    if json:
        print_json(found)
        return
    print_table(
        "Batches",
        ["batch", "feed/partition", "try", "state", "records", "written", "rejected", "started"],
        [
            [b.batch_id[:8], b.name, b.attempt, b.status, b.source_records, b.written_records,
             b.rejected_records, _time(b.started_at)]
            for b in found
        ],
    )  # fmt: skip


def show(
    batch: Annotated[str, typer.Argument(help="Batch id, a unique prefix of one, or FEED/KEY.")],
    *,
    json: Json = False,
) -> None:
    """Show what happened to a batch, and the one next command."""
    with opened_ledger() as connection:
        if _show_reconciled(connection, batch, json=json):
            return
        found = ledger.find(connection, batch)
        last = ledger.last_attempt(connection, found.feed, found.partition_key) or found
        original = ledger.by_id(connection, found.duplicate_of) if found.duplicate_of else None
        records = [*stages.of_batch(connection, found.batch_id).values()]
        runs = ledger.runs(connection, found.batch_id)
        staged = files.of_batch(connection, found.batch_id)
        checksums = files.checksums(connection, found.batch_id)
        tables = proofs.tables(connection, found.batch_id)
        signatures = proofs.signatures(connection, found.batch_id)
        events = feed_signatures.events(connection, found.batch_id)
        reasons = quarantine.summary(connection, found.batch_id)
        validations = proofs.validations(connection, found.batch_id)
        verified = verifications.newest(connection, found.batch_id)
        fidelity = columns.of_batch(connection, found.batch_id)
        told = critical.of_batch(connection, found.batch_id)
        archive = archives.bag(connection, found.batch_id)
        taken_back, kept = (
            rollbacks.of_batch(connection, found.batch_id),
            retained_of(connection, found),
        )
        waiting = staged_tables.of_batch(connection, found.batch_id)
        cost = costs.of_batch(connection, found.batch_id)
        trail = of_batch(connection, found.batch_id)
    if json:
        print_json({
            "batch": found, "runs": runs, "stages": records, "files": staged,
            "checksums": checksums, "tables": tables, "signatures": signatures,
            "signature_events": events, "rejects": reasons,
            "columns": fidelity, "critical": told, "validations": validations, "verifications": verified,
            "archive": archive, "last_attempt": last, "rollback": taken_back,
            "waiting": waiting, "cost": cost, "retention": kept, "events": trail,
            "next": next_command(found, archived=archive is not None),
        })  # fmt: skip
        return
    say(f"Batch {found.batch_id}  {found.name}, attempt {found.attempt}: {found.status}")
    say(f"asked for by {found.requested_by}; {_origin(found, runs)}")
    if original is not None:
        say(f"a duplicate of batch {original.batch_id} ({original.name}), {_standing(original)}")
    if last.duplicate_of == found.batch_id:
        again = f"attempt {last.attempt} (batch {last.batch_id[:8]})"
        say(f"{again} is a duplicate of this batch, {_standing(found)}")
    if found.error_details:
        say(f"why: {found.error_details}")
    _print_rollback(found, taken_back, kept)
    print_table(
        "Stages",
        ["stage", "state", "started", "seconds"],
        [[s.stage, s.status, _time(s.started_at), _seconds(s)] for s in records],
    )
    _print_files(staged)
    _print_balance(tables)
    for each in waiting:
        say(
            f"{each.digest.rows:,} rows for {each.target_table} wait in {SCHEMA}.{each.name}, "
            "not visible before validation has passed"
        )
    _print_critical(told)
    _print_signatures(signatures, len(tables))
    _print_events(events)
    print_reasons(reasons)
    _print_validations(fidelity, validations)
    _print_verified(verified, kept)
    if archive is not None:
        say(
            f"Bag: {archive.place} ({archive.payload_files} files, {archive.payload_bytes:,} bytes)"
        )
    _print_trail_and_cost(cost, trail)
    say(f"Next: {next_command(found, archived=archive is not None)}")


def _print_trail_and_cost(cost: BatchCost, trail: Sequence[Recorded]) -> None:
    print_table(
        "Audit trail",
        ["entry", "when", "action", "status", "by"],
        [[str(e.seq), _time(e.created_at), e.action, e.status, e.principal_id] for e in trail],
    )
    if cost.publish_seconds is None or cost.wal_bytes is None:
        return
    row = "" if cost.wal_bytes_per_row is None else f" ({cost.wal_bytes_per_row:,.0f} a row)"
    say(
        f"Cost: {cost.wal_bytes:,} bytes of write-ahead log{row}, {cost.publish_seconds:,.2f} s of a "
        f"server process, {cost.stage_seconds or 0:,.2f} s of stages"
    )


def _show_reconciled(connection: Connection, reference: str, *, json: bool) -> bool:
    """Show a batch that another system has loaded; say whether it is one."""
    found = find_reconciled(connection, reference)
    if found is None:
        return False
    if json:
        print_json(asdict(found) | {"status": found.status})
        return True
    print_reconciliation(found)
    again = f"batch-pipelines reconcile {found.feed} --batch {shlex.quote(found.batches[0])}"
    say(f"Next: {again}{'' if found.status == 'UNVERIFIED' else ' --force'}")
    return True


def next_command(batch: Batch, *, archived: bool) -> str:
    """Say what to type next about a batch.

    Args:
        batch: The batch.
        archived: Whether it has its bag.

    Returns:
        One command.
    """
    again = f"batch-pipelines import {batch.feed} --batch {batch.partition_key}"
    others = {"DUPLICATE": batch.duplicate_of, "SUPERSEDED": batch.superseded_by}
    if batch.adopted_from is not None:
        return f"batch-pipelines batches --feed {batch.feed}"
    if other := others.get(batch.status):
        return f"batch-pipelines show {other[:8]}"
    if batch.status == "ARCHIVED":
        return f"batch-pipelines restore {batch.batch_id[:8]}"
    # Of a batch of which nothing is visible, what was set aside is why.
    if batch.rejected_records and (
        batch.status == "FAILED" or (batch.status == "PARTIAL_SUCCESS" and archived)
    ):
        return f"batch-pipelines rejects {batch.batch_id[:8]}"
    if batch.status == "SUCCESS" and archived:
        return f"batch-pipelines batches --feed {batch.feed}"
    return again


def print_reasons(reasons: Sequence[RejectCount]) -> None:
    """Print why records of a batch were set aside, if any were.

    Args:
        reasons: How many records each reason holds back.
    """
    if reasons:
        print_table(
            "Why records were set aside; one with two reasons counts for both",
            ["table", "column", "sqlstate", "constraint", "message", "records"],
            [[r.target_table, r.column_name, r.sqlstate, r.constraint_name, r.message, r.records]
             for r in reasons[:_REASONS]],
        )  # fmt: skip
    if len(reasons) > _REASONS:
        say(f"and {len(reasons) - _REASONS:,} more reasons")


def _print_rollback(
    batch: Batch, tables: Sequence[rollbacks.TableRollback], kept: Retained
) -> None:
    """Say that a batch was rolled back, or whether it can be."""
    if batch.rolled_back_at is None:
        print_standing(batch, kept)
        return
    when = _time(batch.rolled_back_at)
    say(f"rolled back {when} by {batch.rolled_back_by}: {batch.rollback_reason}")
    print_table(
        "Rollback",
        ["table", "deleted", "restored", "reinstated", "owned", "kept", "differing"],
        [[t.target_table, t.deleted, t.restored, t.reinstated, t.owned, t.kept, t.differing]
         for t in tables],
    )  # fmt: skip


def _print_balance(tables: Sequence[TableBalance]) -> None:
    if tables:
        print_table(
            "Balance: inserted + updated + unchanged + rejected + skipped = records",
            ["table", "records", "inserted", "updated", "unchanged", "rejected", "skipped", "removed"],
            [[t.target_table, t.source_records, t.inserted, t.updated, t.unchanged, t.rejected,
              t.skipped, t.removed]
             for t in tables],
        )  # fmt: skip
    for balance in tables:
        if balance.erased or balance.erased_rejects:
            say(
                f"{balance.target_table}: {balance.erased or 0:,} rows and "
                f"{balance.erased_rejects or 0:,} records set aside were erased since"
            )


def _print_files(staged: Sequence[files.ImportFile]) -> None:
    if staged:
        print_table(
            "Files",
            ["file", "table", "bytes", "records", "crc32c", "promised", "sha256"],
            [
                [f.file_name, f.target_table, f.size, f.records, f"{f.crc32c:08x}",
                 None if f.expected_crc32c is None else f"{f.expected_crc32c:08x}", f.sha256[:12]]
                for f in staged
            ],
        )  # fmt: skip
    for file in staged:
        if file.problem is not None:
            say(f"{'set aside' if file.set_aside else 'bad'}: {file.problem}")


def _print_signatures(signatures: Sequence[proofs.Signature], tables: int) -> None:
    """Print how rows were grouped and written, where it is more than one statement a table."""
    if len(signatures) > tables or not all(s.bulk for s in signatures):
        print_table(
            "Column signatures: rows that brought the same columns and were written alike",
            ["table", "columns", "rows", "together", "statements", "fallback", "seconds"],
            [[s.target_table, ", ".join(s.columns), s.entries, s.bulk, s.statements, s.fallback,
              s.seconds]
             for s in signatures],
        )  # fmt: skip


def _print_events(events: Sequence[feed_signatures.SignatureEvent]) -> None:
    for event in events:
        print_changes(str(event), event.changes)


def _print_critical(found: Sequence[CriticalCount]) -> None:
    """Print how many rows people were told of at once, and how soon."""
    if found:
        print_table(
            "Critical rows, and seconds from receipt until the last was raised, and sent",
            ["table", "condition", "records", "told before", "raised", "sent"],
            [[c.target_table, c.condition, c.records, c.told_before, c.raised_after, c.sent_after]
             for c in found],
        )  # fmt: skip


def _print_validations(
    fidelity: Mapping[str, Sequence[ColumnFidelity]], validations: Sequence[proofs.TableValidation]
) -> None:
    for table, own in fidelity.items():
        print_fidelity(table, own)
    for validation in validations:
        _print_validation(validation)


def _print_validation(validation: proofs.TableValidation) -> None:
    """Print what validation found in a table, all of it where something failed."""
    failed = [check for check in validation.checks if check.status == "FAILED"]
    unverified = [check for check in validation.checks if check.status == "UNVERIFIED"]
    also = f", {len(unverified)} UNVERIFIED" if unverified else ""
    say(f"{validation.target_table}: {len(validation.checks)} checks, {len(failed)} failed{also}")
    for check in unverified:
        say(f"  UNVERIFIED {check.name}: {check.actual}")
    if failed:
        print_table(
            "Failed checks",
            ["check", "expected", "actual", "sql"],
            [[c.name, c.expected, c.actual, c.sql] for c in failed],
        )
    if rows := validation.rows:
        print_differences(rows.details, rows.src_extras + rows.tgt_extras + rows.mismatches)


def _print_verified(found: Sequence[TableVerification], kept: Retained) -> None:
    """Print when the rows were last proven again, if ever, and what has left since."""
    for each in found:
        say(f"{each.target_table}: verified {_time(each.started_at)}: {each.status}")
    print_retained(kept)


@contextmanager
def opened_ledger(*, values: bool = False) -> Iterator[Connection]:
    """Open a ledger that is up to date.

    Args:
        values: Whether somebody wants to look at values of rows, which the pipelines must not do for
            him: who types at the embedded server owns it, and elsewhere the settings say who he is.

    Yields:
        A connection in autocommit mode.

    Raises:
        SettingsError: The database does not let us in, or its ledger is not up to date.
    """
    opened = open_as_owner if values else open_database
    with opened(load_settings()) as database, database.connect("show") as connection:
        require_current(connection)
        yield connection


def _origin(batch: Batch, runs: Sequence[str]) -> str:
    if batch.adopted_from is not None:
        return f"job {batch.job_id}, adopted from {batch.adopted_from}"
    return f"runs: {', '.join(runs)}"


def _standing(batch: Batch) -> str:
    return "in force" if batch.status in ledger.IN_FORCE else f"{batch.status} since"


def _time(value: dt.datetime | None) -> str | None:
    return None if value is None else value.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _seconds(stage: stages.StageRecord) -> float | None:
    if stage.completed_at is None:
        return None
    return (stage.completed_at - stage.started_at).total_seconds()
