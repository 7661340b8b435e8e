"""Validate: from outside, compare a batch's committed rows with their source.

They are visible already; or they wait, and are published when nothing is wrong with them.

Record counts, schema, key uniqueness and exact aggregates of every column, against a second reading of
the source; each table in its own log entry, each check with its SQL, expected and actual value. Where
one fails, the rows that differ from what was loaded are named.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import crc32c
import psycopg

from batch_pipelines.engine.alerts.at_once import tell_at_once
from batch_pipelines.engine.catalog import read_tables, stamped_by
from batch_pipelines.engine.errors import StageOrderError, ValidationError
from batch_pipelines.engine.feeds import NO_TABLE
from batch_pipelines.engine.fidelity import UNPROVEN, fidelity_of_source
from batch_pipelines.engine.ledger import (
    batches,
    critical,
    files,
    proofs,
    rejects,
    staged_tables,
    stages,
)
from batch_pipelines.engine.ledger.proofs import Check, RowReport, TableValidation
from batch_pipelines.engine.rollback.unvalidated import taken_back
from batch_pipelines.engine.table_checks import check_table
from batch_pipelines.engine.validating_digests import digest_check
from batch_pipelines.engine.validating_files import validate_files
from batch_pipelines.engine.verification.naming import name_differences
from batch_pipelines.engine.verification.rows import SNAPSHOT, batch_rows
from batch_pipelines.engine.work import batch_for, explain, recorded
from batch_pipelines.engine.writing.assembling import publication_of
from batch_pipelines.engine.writing.auditing import Whereabouts, rows_to_check
from batch_pipelines.engine.writing.loading import load
from batch_pipelines.engine.writing.source import table_source
from batch_pipelines.engine.writing.terms import before_validation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from batch_pipelines.engine.fidelity import ColumnFidelity
    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.ledger.critical import CriticalCount
    from batch_pipelines.engine.ledger.files import ImportFile
    from batch_pipelines.engine.ledger.staged_tables import StagedTable
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.work import Work
    from batch_pipelines.engine.writing.source import TableSource


@dataclass(frozen=True)
class ValidateResult:
    """What validation found.

    Attributes:
        batch: The batch with its verdict.
        worked: False where it was validated already.
        tables: The findings for each table.
        seconds: Time it took.
        problem: What is wrong and what became of it; None where all is well.
        critical: How many of its rows are such that people were told of them at once.
    """

    batch: Batch
    worked: bool
    tables: tuple[TableValidation, ...]
    seconds: float
    problem: str | None = None
    critical: tuple[CriticalCount, ...] = ()


def validate(connection: Connection, work: Work) -> ValidateResult:
    """Validate a published batch; or one whose rows wait, which is published if all is well.

    Args:
        connection: A connection in autocommit mode.
        work: The run's work.

    Returns:
        The findings; use `require_valid` to raise where they are not all good.

    Raises:
        StageOrderError: There is no batch whose rows are published or wait.
        ValidationError: The source could not be read a second time; what is visible stays so.
        ContractError, ThresholdError, PublishError: Rows that have passed cannot be published, for the
            same reasons as in a direct publish.
        LeaseLostError: The batch was to be rolled back, and another run has taken the partition over.
    """
    batch, to_do = batch_for(connection, work, "validate")
    began = time.perf_counter()
    problem = None
    if to_do:
        with recorded(connection, work, batch.batch_id, "validate"):
            waiting = staged_tables.of_batch(connection, batch.batch_id)
            if waiting:
                problem = _validate_waiting(connection, work, batch, waiting)
            elif batch.status in batches.UNFINISHED:
                message = f"{batch.name}: its rows wait no more. Run the whole partition again."
                raise StageOrderError(message)
            else:
                problem = _validate(connection, work, batch)
    origin = batch.duplicate_of or batch.batch_id
    # Rows that have waited are published here.
    tell_at_once(work, origin)
    return ValidateResult(
        batches.by_id(connection, batch.batch_id),
        to_do,
        # A duplicate has no rows of its own; what is known of it is known of its original.
        tuple(proofs.validations(connection, origin)),
        time.perf_counter() - began,
        problem,
        tuple(critical.of_batch(connection, origin)),
    )


def require_valid(result: ValidateResult) -> None:
    """Raise where rows differ from their source, so that it is never quiet.

    Args:
        result: What validation found.

    Raises:
        ValidationError: A check failed, be the rows visible or not; the checks are named.
    """
    if result.problem is not None:
        raise ValidationError(f"{result.batch.name}: {result.problem}")


def _validate(connection: Connection, work: Work, batch: Batch) -> str | None:
    """Validate what is visible of a batch; return what is wrong, if anything is."""
    failed = _failed_checks(connection, work, batch, {})
    if not failed:
        batches.mark_valid(connection, batch.batch_id)
        return None
    what = "rows" if work.feed.tables else "files"
    why = _differ(batch, f"The published {what}", failed)
    batches.mark_invalid(connection, batch.batch_id, why)
    if work.feed.on_validation_failure == "roll_back":
        reason = f"validation failed: {', '.join(failed)}"
        why = f"{why} {taken_back(connection, work, batch, reason)}"
        batches.record_why(connection, batch.batch_id, why)
    return why


def _validate_waiting(
    connection: Connection, work: Work, batch: Batch, waiting: Sequence[StagedTable]
) -> str | None:
    """Validate rows that wait and publish them; return what is wrong, if anything is."""
    replayed = waiting[0].purpose == "replay"
    with rows_to_check(connection, batch, waiting) as places:
        failed = _failed_checks(connection, work, batch, places)
    if not failed:
        publication = publication_of(connection, work, batch, waiting[0].purpose)
        load(connection, replace(publication, step="publish"))
        return None
    if not replayed:
        names = ", ".join(each.identifier.as_string(connection) for each in waiting)
        why = _differ(batch, f"Nothing was published: the rows that wait in {names}", failed)
        with connection.transaction():
            work.lease.hold(connection)
            stages.end(connection, batch.batch_id, "validate", why, "validation")
            batches.mark_failed(connection, batch.batch_id, why, "validation")
        return why
    why = _differ(batch, "Nothing was replayed: with the records set aside, the rows", failed)
    with connection.transaction():
        work.lease.hold(connection)
        staged_tables.drop(connection, [batch.batch_id])
        batches.mark_replay_refused(connection, batch.batch_id, why)
    return why


def _differ(batch: Batch, what: str, failed: Sequence[str]) -> str:
    return (
        f"{what} differ from their source in {', '.join(failed)}. "
        f"`batch-pipelines show {batch.batch_id}` gives expected and actual values."
    )


def _failed_checks(
    connection: Connection, work: Work, batch: Batch, places: Mapping[str, Whereabouts]
) -> list[str]:
    """Check each table against its source; where rows of it wait, `places` says where they are."""
    staged = files.of_batch(connection, batch.batch_id)
    folder = work.staged_source(batch.batch_id)
    failed: list[str] = []
    tables = read_tables(connection, work.feed)
    terms = before_validation(connection, batch, {table.full_name: table for table in tables})
    if not tables:
        failed += _validate_files(connection, work, batch, staged)
    for table in tables:
        own = [part for file in staged if (part := file.of_table(table.full_name)) is not None]
        if not own:
            continue
        log = proofs.open_validation(connection, batch.batch_id, work.run_id, table.full_name)
        try:
            _require_copies(own, folder)
            route = work.feed.route(table.full_name)
            form, loaded = work.feed.form_of(table.full_name), terms[table.full_name]
            key = work.feed.table_named(table.full_name).upsert_key(table.primary_key)
            source = table_source(table, own, folder, form, route, loaded, key)
            place = places.get(table.full_name, Whereabouts())
            digested = work.feed.validate_digests
            found = _validate_table(connection, source, batch, place, digested=digested)
            if found.status == "FAILED":
                found = _with_rows(connection, work, batch, found, place)
        except Exception as error:
            proofs.abandon_validation(connection, log, explain(error))
            raise
        proofs.close_validation(connection, batch.batch_id, log, found)
        failed += [f"{table.full_name} {c.name}" for c in found.checks if c.status == "FAILED"]
    return failed


def _validate_files(
    connection: Connection, work: Work, batch: Batch, staged: Sequence[ImportFile]
) -> list[str]:
    """Validate a batch that fills no table; gives the checks that failed."""
    log = proofs.open_validation(connection, batch.batch_id, work.run_id, NO_TABLE)
    try:
        found = validate_files(staged, work.staged_source(batch.batch_id))
    except Exception as error:
        proofs.abandon_validation(connection, log, explain(error))
        raise
    proofs.close_validation(connection, batch.batch_id, log, found)
    return [check.name for check in found.checks if check.status == "FAILED"]


def _require_copies(staged: Sequence[ImportFile], folder: Path) -> None:
    """Refuse a staged copy that is not what was loaded: the rows are not to blame for it."""
    for file in staged:
        crc = 0
        try:
            with (folder / file.file_name).open("rb") as reading:
                while chunk := reading.read(files.CHUNK_BYTES):
                    crc = crc32c.crc32c(chunk, crc)
        except OSError:
            crc = -1
        if crc != file.crc32c:
            message = (
                f"{file.file_name}: its staged copy is {'gone' if crc < 0 else 'damaged'}, so the rows "
                "cannot be validated. Import the partition again with --force."
            )
            raise ValidationError(message)


def _validate_table(
    connection: Connection,
    source: TableSource,
    batch: Batch,
    place: Whereabouts,
    *,
    digested: bool,
) -> TableValidation:
    left_out = {
        file.file_name: place.without_replayed(
            number, rejects.left_out(connection, batch.batch_id, file.file_name)
        )
        for number, file in enumerate(source.files)
    }
    where = stamped_by(batch.batch_id)
    name, key = source.table.full_name, source.table.primary_key
    asked = replace(source, table=place.of(source.table))
    checks = check_table(connection, asked, where, left_out, key, was_unique=True)
    if digested:
        checks += (digest_check(connection, batch, name, place),)
    checks += tuple(_coverage(fidelity_of_source(source, connection.info.server_version)))
    counts = checks[0]
    return TableValidation(name, int(counts.expected), int(counts.actual), checks)


def _coverage(columns: Sequence[ColumnFidelity]) -> Iterator[Check]:
    """Say of which columns nobody can tell whether they hold what was sent: no success, no failure."""
    open_ = [each for each in columns if each.kind in UNPROVEN]
    for each in open_:
        actual = f"{each.kind}: {each.reason}"
        yield Check(f"coverage.{each.column}", "", "as sent", actual, "UNVERIFIED", 0.0)
    if not open_:
        yield Check("coverage", "", "every column", "every column", "SUCCESS", 0.0)


def _with_rows(
    connection: Connection, work: Work, batch: Batch, found: TableValidation, place: Whereabouts
) -> TableValidation:
    """Add which rows differ from what was loaded; a verdict stands also where that cannot be told."""
    if not place.is_whole:
        return replace(found, rows_exception="rows to be replayed are not compared one by one")
    tables = {each.target_table: each for each in proofs.tables(connection, batch.batch_id)}
    recorded = tables[found.target_table]
    try:
        with connection.transaction():
            connection.execute(SNAPSHOT)
            rows, why = batch_rows(connection, batch, recorded)
            rows = replace(rows, waiting=place.identifier)
            named = name_differences(
                connection, work.settings, work.feed, rows, recorded=recorded.stored > 0
            )
    except psycopg.Error as error:
        if connection.broken:
            raise
        return replace(found, rows_exception=explain(error))
    reasons = "; ".join(reason for reason in (why, named.exception) if reason) or None
    differ = named.comparison
    if differ is None:
        return replace(found, rows_exception=reasons)
    report = RowReport(
        differ.missing, differ.added + differ.duplicated, differ.changed, differ.matches,
        named.details,
    )  # fmt: skip
    return replace(found, rows=report, rows_exception=reasons)
