"""Critical records: which rows of a batch people are told of at once, by key and condition."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.rows import class_row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batch_pipelines.engine.postgres.database import Connection

_UNTOLD = """
SELECT critical_record_id, target_table, condition, record_key FROM batch_audit.critical_record
WHERE batch_id = %s AND alert_key IS NULL ORDER BY critical_record_id LIMIT %s
"""
_TOLD_BY = "UPDATE batch_audit.critical_record SET alert_key = %s WHERE critical_record_id = %s"
_REST_TOLD_BY = """
WITH rest AS (
    UPDATE batch_audit.critical_record SET alert_key = %s WHERE batch_id = %s AND alert_key IS NULL
    RETURNING target_table, condition)
SELECT target_table, condition, count(*) FROM rest GROUP BY 1, 2 ORDER BY 1, 2
"""
_SINGLE = """
SELECT count(*) FROM batch_audit.alert WHERE batch_id = %s AND kind = 'critical_row'
"""
_COUNT = """
UPDATE batch_audit.import_history SET critical_records = (
    SELECT count(*) FROM batch_audit.critical_record WHERE batch_id = %(batch_id)s)
WHERE batch_id = %(batch_id)s RETURNING critical_records
"""
_SUMMARY = """
SELECT c.target_table, c.condition, count(*) AS records,
       count(*) FILTER (WHERE a.batch_id IS DISTINCT FROM c.batch_id) AS told_before,
       max(extract(epoch FROM a.raised_at - a.occurred_at)::float8)
           FILTER (WHERE a.batch_id = c.batch_id) AS raised_after,
       max(extract(epoch FROM sent.at - a.occurred_at)::float8)
           FILTER (WHERE a.batch_id = c.batch_id) AS sent_after
FROM batch_audit.critical_record AS c
LEFT JOIN batch_audit.alert AS a ON a.deduplication_key = c.alert_key
LEFT JOIN LATERAL (SELECT min(sent_at) AS at FROM batch_audit.alert_delivery AS d
                   WHERE d.alert_id = a.alert_id) AS sent ON true
WHERE c.batch_id = %s GROUP BY 1, 2 ORDER BY 1, 2
"""


@dataclass(frozen=True)
class Untold:
    """A critical record that nobody is told of yet."""

    critical_record_id: int
    target_table: str
    condition: str
    record_key: str

    def place(self, names: Sequence[str]) -> str:
        """Say which record it is, on one line.

        Args:
            names: Columns of the key, in their order; none where it is told by its file and number.
        """
        values: dict[str, str | None] = json.loads(self.record_key)
        return ", ".join(f"{name}={_shown(values[name])}" for name in names or values)


@dataclass(frozen=True)
class CriticalCount:
    """How many rows of a batch fulfil a condition; times in seconds since the delivery was received.

    Attributes:
        target_table: The table.
        condition: The condition's name.
        records: How many rows.
        told_before: Those of them that were told of as rows of a batch that it supersedes.
        raised_after: When the last of the others was written down as an alert; None where all were told.
        sent_after: When a channel had taken the last of those that were taken so far.
    """

    target_table: str
    condition: str
    records: int
    told_before: int
    raised_after: float | None
    sent_after: float | None


def _shown(value: str | None) -> str:
    # Line ends would look like lines of the message, and commas like another column of the key: no two
    # records may be told in the same words.
    if value is None or value == "null" or not value.isprintable() or {*value} & {*',="'}:
        return json.dumps(value)
    return value


def untold(connection: Connection, batch_id: str, limit: int) -> list[Untold]:
    """List critical records that no alert tells of yet, in the order in which they were found."""
    with connection.cursor(row_factory=class_row(Untold)) as cursor:
        return cursor.execute(_UNTOLD, (batch_id, limit)).fetchall()


def record_told(connection: Connection, record: Untold, alert_key: str) -> None:
    """Write down which alert tells of a record."""
    connection.execute(_TOLD_BY, (alert_key, record.critical_record_id))


def record_rest_told(
    connection: Connection, batch_id: str, alert_key: str
) -> list[tuple[str, str, int]]:
    """Write down that one alert tells of all records that are left.

    Returns:
        Table, condition and how many, in order; none where none were left.
    """
    return connection.execute(_REST_TOLD_BY, (alert_key, batch_id)).fetchall()


def told_singly(connection: Connection, batch_id: str) -> int:
    """Count the records of a batch that have an alert each."""
    row = connection.execute(_SINGLE, (batch_id,)).fetchone()
    return 0 if row is None else int(row[0])


def count(connection: Connection, batch_id: str) -> int:
    """Count the critical records of a batch, and keep the number with it."""
    row = connection.execute(_COUNT, {"batch_id": batch_id}).fetchone()
    return 0 if row is None else int(row[0])


def of_batch(connection: Connection, batch_id: str) -> list[CriticalCount]:
    """Count the critical records of a batch by table and condition."""
    with connection.cursor(row_factory=class_row(CriticalCount)) as cursor:
        return cursor.execute(_SUMMARY, (batch_id,)).fetchall()
