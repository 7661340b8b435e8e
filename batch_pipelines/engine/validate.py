"""Validate: from outside and after the fact, compare the committed rows with their source.

Record counts, schema, key uniqueness and exact aggregates of every column, against a second reading of
the source; each table in its own log entry, each check with its SQL, expected and actual value. Where
one fails, the rows that differ from what was loaded are named.
"""

from __future__ import annotations

import dataclasses
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import crc32c
import psycopg
from psycopg import sql

from batch_pipelines.engine.catalog import STAMP, read_tables
from batch_pipelines.engine.errors import ValidationError
from batch_pipelines.engine.ledger import batches, files, proofs, rejects
from batch_pipelines.engine.ledger.proofs import Check, RowReport, TableValidation
from batch_pipelines.engine.reading.aggregates import (
    SecondReader,
    target_aggregates,
    target_statement,
)
from batch_pipelines.engine.verification.naming import name_differences
from batch_pipelines.engine.verification.rows import SNAPSHOT, batch_rows
from batch_pipelines.engine.work import batch_for, explain, recorded
from batch_pipelines.engine.writing.source import table_source
from batch_pipelines.engine.writing.terms import before_validation

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.ledger.files import ImportFile
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.work import Work
    from batch_pipelines.engine.writing.source import TableSource

_COUNT = sql.SQL("SELECT count(*) FROM {table} WHERE {stamp} = {batch}")
_COLUMNS = """SELECT attname FROM pg_attribute
WHERE attrelid = {table}::regclass AND attnum > 0 AND NOT attisdropped"""
_TWICE = sql.SQL(
    "SELECT coalesce(sum(n - 1), 0) FROM (SELECT count(*) AS n FROM {table} WHERE {stamp} = {batch}"
    " GROUP BY {key} HAVING count(*) > 1) AS twice"
)


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
        ValidationError: A check failed; the checks are named.
    """
    if result.batch.status == "VALIDATION_FAILED":
        raise ValidationError(f"{result.batch.name}: {result.batch.error_details}")


def _validate(connection: Connection, work: Work, batch: Batch) -> None:
    staged = files.of_batch(connection, batch.batch_id)
    folder = work.staged_source(batch.batch_id)
    failed: list[str] = []
    tables = read_tables(connection, work.feed)
    terms = before_validation(connection, batch, {table.full_name: table for table in tables})
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
            f"The published rows differ from their source in {', '.join(failed)}. "
            f"`batch-pipelines show {batch.batch_id}` gives expected and actual values."
        )
        batches.mark_validated(connection, batch.batch_id, status="VALIDATION_FAILED", why=why)
    else:
        status = "PARTIAL_SUCCESS" if batch.rejected_records else "SUCCESS"
        batches.mark_validated(connection, batch.batch_id, status=status)


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
    # The source is read while PostgreSQL works; the pool ends before the reader is closed.
    left_out = {
        file.file_name: rejects.left_out(connection, batch.batch_id, file.file_name)
        for file in source.files
    }
    key = source.table.primary_key
    if not set(key) <= {column.name for column in source.told}:
        key = ()
    with SecondReader(source, left_out, key) as reader, ThreadPoolExecutor(max_workers=1) as pool:
        checks = [*_checks(connection, source, batch, key, reader, pool)]
    counts = checks[0]
    return TableValidation(
        source.table.full_name, int(counts.expected), int(counts.actual), tuple(checks)
    )


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


def _checks(
    connection: Connection,
    source: TableSource,
    batch: Batch,
    key: Sequence[str],
    reader: SecondReader,
    pool: ThreadPoolExecutor,
) -> Iterator[Check]:
    source_totals = pool.submit(reader.aggregates)

    own = {
        "table": source.table.identifier,
        "stamp": sql.Identifier(STAMP),
        "batch": sql.Literal(batch.batch_id),
    }
    twice = None
    if key:
        # First, while the source is read: it takes one processor, and the other question takes all.
        names = sql.SQL(", ").join(map(sql.Identifier, key))
        twice = _Question.ask(connection, _TWICE.format(**own, key=names))
    totals_began = time.perf_counter()
    counted, target_totals = target_aggregates(connection, source, batch.batch_id)
    totals_took = time.perf_counter() - totals_began
    wanted_totals = source_totals.result()

    # One scan answers for the count and all columns; the statement kept with each is for that one alone.
    count = _Question(_COUNT.format(**own), totals_took)
    yield count.answer(connection, "record_count", reader.records(), counted)
    yield from _schema_checks(connection, source, reader)
    if twice is not None:
        question, found = twice
        yield question.answer(connection, "key_uniqueness", reader.duplicates(), found)
    for column in source.told:
        alone = _Question(target_statement(source, [column], batch.batch_id), totals_took)
        wanted, actual = str(wanted_totals[column.name]), str(target_totals[column.name])
        yield alone.answer(connection, f"aggregates.{column.name}", wanted, actual)


def _schema_checks(
    connection: Connection, source: TableSource, reader: SecondReader
) -> Iterator[Check]:
    began = time.perf_counter()
    table = source.table.identifier.as_string(connection)
    query = sql.SQL(_COLUMNS).format(table=sql.Literal(table))
    present = {str(row[0]) for row in connection.execute(query).fetchall()}
    question = _Question(query, time.perf_counter() - began)
    for file in source.files:
        wanted = sorted(reader.columns(file))
        found = sorted(name for name in wanted if name in present)
        yield question.answer(connection, f"schema.{file.file_name}", wanted, found)


@dataclass(frozen=True)
class _Question:
    """A statement that the target was asked, and how long it took in seconds."""

    query: sql.Composed
    seconds: float

    @classmethod
    def ask(cls, connection: Connection, query: sql.Composed) -> tuple[_Question, int]:
        """Ask for a number."""
        began = time.perf_counter()
        row = connection.execute(query).fetchone()
        return cls(query, time.perf_counter() - began), int(row[0]) if row else 0

    def answer(self, connection: Connection, name: str, expected: object, actual: object) -> Check:
        """Compare what the source says with what the target says."""
        return Check(
            name=name,
            sql=self.query.as_string(connection),
            expected=_text(expected),
            actual=_text(actual),
            status="SUCCESS" if expected == actual else "FAILED",
            seconds=round(self.seconds, 6),
        )


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
