"""Validate: from outside and after the fact, compare the committed rows with their source.

Record counts, schema, key uniqueness and exact aggregates of every column, against a second reading of
the source; each table in its own log entry, each check with its SQL, expected and actual value. Where
one fails, the rows that differ from what was loaded are named.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import crc32c
import psycopg

from batch_pipelines.engine.catalog import read_tables, stamped_by
from batch_pipelines.engine.errors import ValidationError
from batch_pipelines.engine.feeds import NO_TABLE
from batch_pipelines.engine.ledger import batches, files, proofs, rejects
from batch_pipelines.engine.ledger.proofs import RowReport, TableValidation
from batch_pipelines.engine.rollback.unvalidated import taken_back
from batch_pipelines.engine.table_checks import check_table
from batch_pipelines.engine.validating_files import validate_files
from batch_pipelines.engine.verification.naming import name_differences
from batch_pipelines.engine.verification.rows import SNAPSHOT, batch_rows
from batch_pipelines.engine.work import batch_for, explain, recorded
from batch_pipelines.engine.writing.source import table_source
from batch_pipelines.engine.writing.terms import before_validation

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.ledger.files import ImportFile
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
    """

    batch: Batch
    worked: bool
    tables: tuple[TableValidation, ...]
    seconds: float


def validate(connection: Connection, work: Work) -> ValidateResult:
    """Validate a published batch.

    Args:
        connection: A connection in autocommit mode.
        work: The run's work.

    Returns:
        The findings; use `require_valid` to raise where they are not all good.

    Raises:
        StageOrderError: There is no published batch.
        ValidationError: The source could not be read a second time; the batch stays `PUBLISHED`.
        LeaseLostError: The batch was to be rolled back, and another run has taken the partition over.
    """
    batch, to_do = batch_for(connection, work, "validate")
    began = time.perf_counter()
    if to_do:
        with recorded(connection, work, batch.batch_id, "validate"):
            _validate(connection, work, batch)
    return ValidateResult(
        batches.by_id(connection, batch.batch_id),
        to_do,
        # A duplicate has no rows of its own; what is known of it is known of its original.
        tuple(proofs.validations(connection, batch.duplicate_of or batch.batch_id)),
        time.perf_counter() - began,
    )


def require_valid(result: ValidateResult) -> None:
    """Raise where a batch is visible and wrong, so that it is never quiet.

    Args:
        result: What validation found.

    Raises:
        ValidationError: A check failed, be its batch visible still or not; the checks are named.
    """
    if result.batch.status in {"VALIDATION_FAILED", "ROLLED_BACK"}:
        raise ValidationError(f"{result.batch.name}: {result.batch.error_details}")


def _validate(connection: Connection, work: Work, batch: Batch) -> None:
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
            found = _validate_table(connection, source, batch)
            if found.status == "FAILED":
                found = _with_rows(connection, work, batch, found)
        except Exception as error:
            proofs.abandon_validation(connection, log, explain(error))
            raise
        proofs.close_validation(connection, batch.batch_id, log, found)
        failed += [f"{table.full_name} {c.name}" for c in found.checks if c.status == "FAILED"]
    if failed:
        why = (
            f"The published {'rows' if tables else 'files'} differ from their source in "
            f"{', '.join(failed)}. "
            f"`batch-pipelines show {batch.batch_id}` gives expected and actual values."
        )
        batches.mark_validated(connection, batch.batch_id, status="VALIDATION_FAILED", why=why)
        if work.feed.on_validation_failure == "roll_back":
            reason = f"validation failed: {', '.join(failed)}"
            told = f"{why} {taken_back(connection, work, batch, reason)}"
            batches.record_why(connection, batch.batch_id, told)
    else:
        partial = batch.rejected_records or any(file.set_aside for file in staged)
        status = "PARTIAL_SUCCESS" if partial else "SUCCESS"
        batches.mark_validated(connection, batch.batch_id, status=status)


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
                f"{file.file_name}: its staged copy is {'gone' if crc < 0 else 'damaged'}. The rows "
                "are published but not validated. Import the partition again with --force."
            )
            raise ValidationError(message)


def _validate_table(connection: Connection, source: TableSource, batch: Batch) -> TableValidation:
    left_out = {
        file.file_name: rejects.left_out(connection, batch.batch_id, file.file_name)
        for file in source.files
    }
    where = stamped_by(batch.batch_id)
    key = source.table.primary_key
    checks = check_table(connection, source, where, left_out, key, was_unique=True)
    counts = checks[0]
    return TableValidation(source.table.full_name, int(counts.expected), int(counts.actual), checks)


def _with_rows(
    connection: Connection, work: Work, batch: Batch, found: TableValidation
) -> TableValidation:
    """Add which rows differ from what was loaded; a verdict stands also where that cannot be told."""
    tables = {each.target_table: each for each in proofs.tables(connection, batch.batch_id)}
    recorded = tables[found.target_table]
    try:
        with connection.transaction():
            connection.execute(SNAPSHOT)
            rows, why = batch_rows(connection, batch, recorded)
            named = name_differences(
                connection, work.settings, work.feed, rows, recorded=recorded.stored > 0
            )
    except psycopg.Error as error:
        if connection.broken:
            raise
        return dataclasses.replace(found, rows_exception=explain(error))
    reasons = "; ".join(reason for reason in (why, named.exception) if reason) or None
    differ = named.comparison
    if differ is None:
        return dataclasses.replace(found, rows_exception=reasons)
    report = RowReport(
        differ.missing, differ.added + differ.duplicated, differ.changed, differ.matches,
        named.details,
    )  # fmt: skip
    return dataclasses.replace(found, rows=report, rows_exception=reasons)
