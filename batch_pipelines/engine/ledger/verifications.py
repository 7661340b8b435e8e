"""Verifications: what was found when batches were proven again, and which to prove next."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from psycopg.rows import class_row, scalar_row
from psycopg.types.json import Jsonb

from batch_pipelines.engine.ledger import batches

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable, Mapping

    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.postgres.database import Connection

Outcome = Literal["SUCCESS", "FAILED", "PARTIAL_SUCCESS", "UNVERIFIED"]


@dataclass(frozen=True)
class Difference:
    """A row that differs from what was recorded of it, by name and without values.

    Attributes:
        kind: `changed`, `missing`, `added` or `duplicated`.
        key: Its key by column, values as text; None in a table without one.
        file_name, record: Where it came from; None where the batch never wrote it.
        place: `ctid` of the row when it was looked at, in a table without key.
        columns: The columns that differ; None where that could not be told.
    """

    kind: str
    key: dict[str, str] | None
    file_name: str | None
    record: int | None
    place: str | None
    columns: list[str] | None


@dataclass(frozen=True)
class TableVerification:
    """What became of a batch's rows in one table; counts are rows, None where they are not known.

    Attributes:
        target_table: The table.
        status: `SUCCESS` where every row is proven; `PARTIAL_SUCCESS` where it is, but for columns that
            no digest covers; `FAILED` where rows differ; `UNVERIFIED` where it could not be found out.
        started_at: When it began.
        expected_rows: Rows that should be there, those included that later batches have updated.
        actual_rows: Rows that are.
        replaced: Rows that later batches in force have updated since.
        changed, missing, added, duplicated: Rows that differ.
        not_covered: Columns that no digest covers.
        sql: A statement that gives the digest of the batch's rows, for anyone to run.
        exception: Why something could not be verified, or rows not be named; None where all could.
        details: Differing rows, up to a limit.
    """

    target_table: str
    status: Outcome
    started_at: dt.datetime
    expected_rows: int | None
    actual_rows: int | None
    replaced: int | None
    changed: int | None
    missing: int | None
    added: int | None
    duplicated: int | None
    not_covered: list[str]
    sql: str
    exception: str | None
    details: list[Difference]


_ADD = """
INSERT INTO batch_audit.verification_log (batch_id, run_id, requested_by, target_table, status,
    started_at, expected_rows, actual_rows, replaced, changed, missing, added, duplicated, not_covered,
    sql, exception, details)
VALUES (%(batch_id)s, %(run_id)s, %(requested_by)s, %(target_table)s, %(status)s, %(started_at)s,
    %(expected_rows)s, %(actual_rows)s, %(replaced)s, %(changed)s, %(missing)s, %(added)s,
    %(duplicated)s, %(not_covered)s, %(sql)s, %(exception)s, %(details)s)
"""
_NEWEST = """
SELECT DISTINCT ON (target_table) target_table, status, started_at, expected_rows, actual_rows,
    replaced, changed, missing, added, duplicated, not_covered, sql, exception, details
FROM batch_audit.verification_log WHERE batch_id = %s ORDER BY target_table, id DESC
"""
# Those that were ever visible.
_ALL = """
SELECT batch_id::text FROM batch_audit.import_history
WHERE published_at IS NOT NULL AND (%(feed)s::text IS NULL OR feed = %(feed)s)
ORDER BY started_at, attempt
"""
# Those longest not proven first, so that in time every batch has its turn.
_SAMPLE = """
SELECT batch_id::text FROM batch_audit.import_history AS h
WHERE status = ANY(%(in_force)s) AND (%(feed)s::text IS NULL OR feed = %(feed)s)
ORDER BY (SELECT max(v.completed_at) FROM batch_audit.verification_log v
          WHERE v.batch_id = h.batch_id) NULLS FIRST, random()
LIMIT %(number)s
"""


def record(
    connection: Connection,
    batch_id: str,
    found: TableVerification,
    *,
    run_id: str | None,
    requested_by: str,
) -> None:
    """Keep what was found.

    Args:
        connection: A connection.
        batch_id: The batch.
        found: What was found in one of its tables.
        run_id: The Dagster run that looked; None where it was no run.
        requested_by: Who asked for it.
    """
    row = asdict(found) | {
        "batch_id": batch_id,
        "run_id": run_id,
        "requested_by": requested_by,
        "details": Jsonb([asdict(each) for each in found.details]),
    }
    connection.execute(_ADD, row)


def newest(connection: Connection, batch_id: str) -> list[TableVerification]:
    """Read what was found last in each table of a batch."""
    with connection.cursor(row_factory=class_row(TableVerification)) as cursor:
        found = cursor.execute(_NEWEST, (batch_id,)).fetchall()
    return [_typed(each) for each in found]


def published(connection: Connection, feed: str | None) -> list[Batch]:
    """List every batch that was ever visible, oldest first, of one feed if asked."""
    return _read(connection, _ALL, {"feed": feed})


def sample(connection: Connection, number: int, feed: str | None) -> list[Batch]:
    """Choose batches in force to be verified next, those longest not verified first.

    Args:
        connection: A connection.
        number: At most so many.
        feed: Only of this feed, if given.

    Returns:
        The batches; among those never verified the choice is random.
    """
    wanted = {"feed": feed, "number": number, "in_force": list(batches.IN_FORCE)}
    return _read(connection, _SAMPLE, wanted)


def _read(connection: Connection, query: str, wanted: Mapping[str, object]) -> list[Batch]:
    with connection.cursor(row_factory=scalar_row) as cursor:
        ids = cursor.execute(query.encode(), wanted).fetchall()
    return [batches.by_id(connection, batch_id) for batch_id in ids]


def _typed(row: TableVerification) -> TableVerification:
    kept: Iterable[dict[str, object]] = row.details  # type: ignore[assignment]  # as jsonb has it
    details = [Difference(**each) for each in kept]  # type: ignore[arg-type]
    return TableVerification(**{**row.__dict__, "details": details})
