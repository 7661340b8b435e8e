"""The balance and the digests of a batch, and what validation found."""

from __future__ import annotations

from dataclasses import asdict, astuple, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from psycopg.rows import class_row, scalar_row
from psycopg.types.json import Jsonb

from batch_pipelines.engine.ledger.verifications import Difference

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import psycopg
    from psycopg import sql

    from batch_pipelines.engine.postgres.database import Connection

Verdict = Literal["SUCCESS", "FAILED", "UNVERIFIED"]


@dataclass(frozen=True)
class TableBalance:
    """What a batch did to one table; all counts are rows.

    `inserted + updated + unchanged + rejected + skipped + superseded_within` equals
    `source_records`; `removed` are rows of the superseded batch that were deleted.
    `columns` is what the digest covers. `normalised` columns arrived as text, proven by a digest of
    their own, and were stored by PostgreSQL's conversion. Of `filled` columns some records took the
    default, which no digest covers, as little as what was stored in `server_changed` ones, whatever was
    sent there. `isolation_statements` were tried to find single bad records by
    halving. `column_types` are what `columns` are cast to before they are digested; none
    where that was not kept, None where a replay came after one of them had changed. `erased` rows left
    the tables since, for the sake of a person, and `erased_rejects` the quarantine: the digest is of the
    others. Both are None where nobody was erased.
    """

    target_table: str
    source_records: int
    inserted: int
    updated: int
    unchanged: int
    rejected: int
    skipped: int
    superseded_within: int
    removed: int
    columns: list[str]
    normalised: list[str]
    digest_sum: int
    digest_moment: int
    isolation_statements: int
    filled: list[str] = field(default_factory=list)
    column_types: list[str] | None = field(default_factory=list)
    server_changed: list[str] = field(default_factory=list)
    erased: int | None = None
    erased_rejects: int | None = None

    @property
    def stored(self) -> int:
        """Rows that carried the batch's stamp when it was published, but for those erased since."""
        return self.inserted + self.updated + self.unchanged - (self.erased or 0)

    @property
    def not_covered(self) -> list[str]:
        """Columns that the digest does not cover."""
        return list(dict.fromkeys([*self.normalised, *self.filled, *self.server_changed]))


@dataclass(frozen=True)
class Signature:
    """Rows of a batch that brought the same columns and were written alike.

    `bulk` says whether one statement wrote all of them; `fallback`, whether the table refused them
    together, so that single bad records were searched for.
    """

    target_table: str
    columns: list[str]
    entries: int
    bulk: bool
    statements: int
    fallback: bool
    seconds: float


@dataclass(frozen=True)
class ChunkDigest:
    """Digest of some consecutive records of a file: how many, sum and second moment."""

    target_table: str
    file_name: str
    chunk: int
    first_record: int
    records: int
    digest_sum: int
    digest_moment: int


@dataclass(frozen=True)
class Check:
    """One check of validation.

    Attributes:
        name: What was checked, e.g. `record_count` or `aggregates.distance`.
        sql: The statement that anyone can run by hand; empty where no SQL is involved.
        expected: What the source says, as text.
        actual: What the table says, as text.
        status: `SUCCESS`, `FAILED`, or `UNVERIFIED` where it could not be made.
        seconds: How long it took.
    """

    name: str
    sql: str
    expected: str
    actual: str
    status: Verdict
    seconds: float


@dataclass(frozen=True)
class RowReport:
    """How the rows of a table differ from what was loaded; counts are rows.

    Attributes:
        src_extras: Rows that only the source has.
        tgt_extras: Rows that only the table has; copies count as often as they occur.
        mismatches: Rows that differ under their key.
        matches: Rows that are the same.
        details: Differing rows by name, up to a limit.
    """

    src_extras: int
    tgt_extras: int
    mismatches: int
    matches: int
    details: list[Difference]


@dataclass(frozen=True)
class TableValidation:
    """What validation found in one table; row counts, and every check.

    `rows` is there where a check failed and the rows could be compared one by one; `rows_exception` says
    why they, or columns of theirs, could not.
    """

    target_table: str
    src_records: int
    tgt_records: int
    checks: tuple[Check, ...]
    rows: RowReport | None = None
    rows_exception: str | None = None

    @property
    def status(self) -> Verdict:
        """The worst of the checks; UNVERIFIED is not success."""
        found = {check.status for check in self.checks}
        return (
            "FAILED" if "FAILED" in found else "UNVERIFIED" if "UNVERIFIED" in found else "SUCCESS"
        )


_FORGET_TABLES = "DELETE FROM batch_audit.batch_table WHERE batch_id = %s"
_FORGET_CHUNKS = "DELETE FROM batch_audit.row_digest WHERE batch_id = %s"
_ADD_TABLE = """
INSERT INTO batch_audit.batch_table (batch_id, target_table, source_records, inserted, updated,
    unchanged, rejected, skipped, superseded_within, removed, columns, normalised, digest_sum,
    digest_moment, isolation_statements, filled, column_types, server_changed, erased, erased_rejects)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""
_ADD_CHUNK = """
INSERT INTO batch_audit.row_digest (batch_id, target_table, file_name, chunk, first_record, records,
    digest_sum, digest_moment)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
"""
_ADD_TO_TABLE = """
UPDATE batch_audit.batch_table
SET inserted = inserted + %(inserted)s, rejected = rejected - %(inserted)s,
    digest_sum = digest_sum + %(digest_sum)s, digest_moment = digest_moment + %(digest_moment)s,
    isolation_statements = isolation_statements + %(isolation_statements)s,
    filled = ARRAY(SELECT DISTINCT unnest(filled || %(filled)s::text[]) ORDER BY 1),
    column_types = CASE WHEN column_types IN ('{}', %(column_types)s::text[]) THEN column_types END
WHERE batch_id = %(batch_id)s AND target_table = %(target_table)s
"""
_ADD_REPLAYED_CHUNK = """
INSERT INTO batch_audit.row_digest (batch_id, target_table, file_name, chunk, first_record, records,
    digest_sum, digest_moment)
SELECT %(batch_id)s, %(target_table)s, %(file_name)s, coalesce(max(chunk) + 1, 0),
       %(first_record)s, %(records)s, %(digest_sum)s, %(digest_moment)s
FROM batch_audit.row_digest
WHERE batch_id = %(batch_id)s AND target_table = %(target_table)s AND file_name = %(file_name)s
"""
_TABLES = """
SELECT target_table, source_records, inserted, updated, unchanged, rejected, skipped,
       superseded_within, removed, columns, normalised, digest_sum, digest_moment,
       isolation_statements, filled, column_types, server_changed, erased, erased_rejects
FROM batch_audit.batch_table WHERE batch_id = %s ORDER BY target_table
"""
_CHUNKS = """
SELECT target_table, file_name, chunk, first_record, records, digest_sum, digest_moment
FROM batch_audit.row_digest WHERE batch_id = %s AND target_table = %s
"""
_FORGET_SIGNATURES = "DELETE FROM batch_audit.batch_signature WHERE batch_id = %s"
_ADD_SIGNATURE = """
INSERT INTO batch_audit.batch_signature (batch_id, target_table, columns, entries, bulk, statements,
    fallback, seconds)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
"""
_SIGNATURES = """
SELECT target_table, columns, entries, bulk, statements, fallback, seconds
FROM batch_audit.batch_signature WHERE batch_id = %s ORDER BY target_table, id
"""
_OPEN_LOG = """
INSERT INTO batch_audit.validation_log (batch_id, run_id, target_table, status)
VALUES (%s, %s, %s, 'IN_PROGRESS') RETURNING id
"""
_CLOSE_LOG = """
UPDATE batch_audit.validation_log
SET status = %s, exception = %s, completed_at = clock_timestamp() WHERE id = %s
"""
_SUMMARY = """
INSERT INTO batch_audit.validation_summary (log_id, batch_id, target_table, src_records,
    tgt_records, checks, overall_status, src_extras, tgt_extras, mismatches, matches, details)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""
_VALIDATIONS = """
SELECT DISTINCT ON (target_table) target_table, src_records, tgt_records, checks, src_extras,
    tgt_extras, mismatches, matches, details
FROM batch_audit.validation_summary WHERE batch_id = %s ORDER BY target_table, log_id DESC
"""
_CHECKS = """
SELECT DISTINCT ON (target_table) log_id, checks FROM batch_audit.validation_summary
WHERE batch_id = %s AND target_table = %s ORDER BY target_table, log_id DESC
"""
_SET_CHECKS = "UPDATE batch_audit.validation_summary SET checks = %s WHERE log_id = %s"
_OF_LOG = """
SELECT target_table, src_records, tgt_records, checks, src_extras, tgt_extras, mismatches, matches,
    details
FROM batch_audit.validation_summary WHERE log_id = %s
"""


def record_publish(
    connection: Connection,
    batch_id: str,
    tables: Iterable[TableBalance],
    chunks: Iterable[ChunkDigest],
    signatures: Iterable[Signature],
) -> None:
    """Keep balance, digests and signatures; called inside the publish transaction."""
    with connection.cursor() as cursor:
        cursor.execute(_FORGET_TABLES, (batch_id,))
        cursor.execute(_FORGET_CHUNKS, (batch_id,))
        cursor.execute(_FORGET_SIGNATURES, (batch_id,))
        _add_signatures(cursor, batch_id, signatures)
        cursor.executemany(_ADD_TABLE, [(batch_id, *astuple(table)) for table in tables])
        cursor.executemany(_ADD_CHUNK, [(batch_id, *astuple(chunk)) for chunk in chunks])


def record_table(connection: Connection, batch_id: str, table: TableBalance) -> None:
    """Keep the balance of a batch in one table; nothing else of the batch changes."""
    connection.execute(_ADD_TABLE, (batch_id, *astuple(table)))


def record_replay(
    connection: Connection,
    batch_id: str,
    tables: Iterable[TableBalance],
    chunks: Iterable[ChunkDigest],
    signatures: Iterable[Signature],
) -> None:
    """Add what a replay has loaded to balance and digests; called inside its publish transaction."""
    with connection.cursor() as cursor:
        cursor.executemany(_ADD_TO_TABLE, [{"batch_id": batch_id, **asdict(t)} for t in tables])
        cursor.executemany(
            _ADD_REPLAYED_CHUNK, [{"batch_id": batch_id, **asdict(c)} for c in chunks]
        )
        _add_signatures(cursor, batch_id, signatures)


def _add_signatures(
    cursor: psycopg.Cursor[tuple[object, ...]], batch_id: str, signatures: Iterable[Signature]
) -> None:
    cursor.executemany(_ADD_SIGNATURE, [(batch_id, *astuple(each)) for each in signatures])


def signatures(connection: Connection, batch_id: str) -> list[Signature]:
    """Read how the rows of a batch were grouped and written."""
    with connection.cursor(row_factory=class_row(Signature)) as cursor:
        return cursor.execute(_SIGNATURES, (batch_id,)).fetchall()


def tables(connection: Connection, batch_id: str) -> list[TableBalance]:
    """Read what a batch did to each of its tables."""
    with connection.cursor(row_factory=class_row(TableBalance)) as cursor:
        found = cursor.execute(_TABLES, (batch_id,)).fetchall()
    # A numeric arrives as a Decimal; these are whole, and larger than a bigint may hold.
    return [
        replace(each, digest_sum=int(each.digest_sum), digest_moment=int(each.digest_moment))
        for each in found
    ]


def chunks(connection: Connection, batch_id: str, table: str) -> list[ChunkDigest]:
    """Read the digests of the chunks that a batch brought a table."""
    with connection.cursor(row_factory=class_row(ChunkDigest)) as cursor:
        found = cursor.execute(_CHUNKS, (batch_id, table)).fetchall()
    return [
        replace(each, digest_sum=int(each.digest_sum), digest_moment=int(each.digest_moment))
        for each in found
    ]


def open_validation(connection: Connection, batch_id: str, run_id: str, table: str) -> int:
    """Begin a log entry, `IN_PROGRESS`.

    Returns:
        Its id.
    """
    with connection.cursor(row_factory=scalar_row) as cursor:
        log_id = cursor.execute(_OPEN_LOG, (batch_id, run_id, table)).fetchone()
    assert log_id is not None  # noqa: S101  # RETURNING gives one row
    return int(log_id)


def close_validation(
    connection: Connection, batch_id: str | None, log_id: int, found: TableValidation
) -> None:
    """End a log entry with what was found, and keep every check in the summary.

    There is no batch id where another system has loaded the rows.
    """
    failed = [check.name for check in found.checks if check.status == "FAILED"]
    checks = Jsonb([check.__dict__ for check in found.checks])
    rows = found.rows
    counts = (
        (None,) * 4
        if rows is None
        else (rows.src_extras, rows.tgt_extras, rows.mismatches, rows.matches)
    )
    summary = (
        log_id, batch_id, found.target_table, found.src_records, found.tgt_records, checks,
        found.status, *counts, Jsonb([asdict(each) for each in rows.details] if rows else []),
    )  # fmt: skip
    with connection.transaction():
        connection.execute(_SUMMARY, summary)
        why = f"failed: {', '.join(failed)}" if failed else None
        if found.rows_exception is not None:
            why = f"{why}; {found.rows_exception}"
        connection.execute(_CLOSE_LOG, (found.status, why, log_id))


def abandon_validation(connection: Connection, log_id: int, why: str) -> None:
    """End a log entry whose checks could not be made."""
    connection.execute(_CLOSE_LOG, ("UNVERIFIED", why, log_id))


def rename_in_checks(
    connection: Connection, batch_id: str, table: str, old: sql.Identifier, new: sql.Identifier
) -> None:
    """Have the statements of a table's newest checks name another relation, which holds the same rows.

    Args:
        connection: A connection.
        batch_id: The batch.
        table: The table that was validated.
        old: The relation that was asked.
        new: The one to ask from now on.
    """
    before, after = old.as_string(connection), new.as_string(connection)
    for log_id, checks in connection.execute(_CHECKS, (batch_id, table)).fetchall():
        renamed = [{**check, "sql": check["sql"].replace(before, after)} for check in checks]
        connection.execute(_SET_CHECKS, (Jsonb(renamed), log_id))


def validations(connection: Connection, batch_id: str) -> list[TableValidation]:
    """Read the newest finding for each table of a batch."""
    return _validations(connection.execute(_VALIDATIONS, (batch_id,)).fetchall())


def validation_of_log(connection: Connection, log_id: int) -> TableValidation | None:
    """Read what a log entry ended with; None where its checks could not be made."""
    return next(iter(_validations(connection.execute(_OF_LOG, (log_id,)).fetchall())), None)


def _validations(rows: Sequence[tuple[Any, ...]]) -> list[TableValidation]:
    return [
        TableValidation(
            table, src, tgt, tuple(Check(**check) for check in checks), _report(*report)
        )
        for table, src, tgt, checks, *report in rows
    ]


def _report(
    src_extras: int | None,
    tgt_extras: int,
    mismatches: int,
    matches: int,
    details: list[dict[str, Any]],
) -> RowReport | None:
    if src_extras is None:
        return None
    named = [Difference(**each) for each in details]
    return RowReport(src_extras, tgt_extras, mismatches, matches, named)
