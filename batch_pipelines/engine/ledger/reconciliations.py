"""Reconciliations: entries of the validation log about batches that another system has loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from psycopg.rows import class_row

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence

    from batch_pipelines.engine.postgres.database import Connection

LogStatus = Literal["IN_PROGRESS", "SUCCESS", "FAILED", "PARTIAL_SUCCESS", "UNVERIFIED"]


@dataclass(frozen=True)
class LogEntry:
    """An entry of the validation log.

    Attributes:
        id: Its id.
        target_table: The table that was compared.
        batches: The other system's ids of the batches in it.
        status: What came of it.
        started_at: When it began.
        completed_at: When it ended; None while it has not.
        requested_by: Who asked for it.
        run_id: The Dagster run that did it, or None.
        exception: Why something failed or could not be made, or None.
    """

    id: int
    target_table: str
    batches: list[str]
    status: LogStatus
    started_at: dt.datetime
    completed_at: dt.datetime | None
    requested_by: str
    run_id: str | None
    exception: str | None


_OPEN = """
INSERT INTO batch_audit.validation_log (feed, run_id, requested_by, target_table, status)
VALUES (%s, %s, %s, %s, 'IN_PROGRESS') RETURNING id
"""
_ADD_BATCHES = """
INSERT INTO batch_audit.reconciled_batch (log_id, feed, target_table, batch_load_id)
SELECT %s, %s, %s, unnest(%s::text[])
"""
_NEWEST = """
SELECT l.id, l.target_table, l.status, l.started_at, l.completed_at, l.requested_by, l.run_id::text,
       l.exception, ARRAY(SELECT o.batch_load_id FROM batch_audit.reconciled_batch o
                          WHERE o.log_id = l.id ORDER BY 1) AS batches
FROM batch_audit.validation_log l
WHERE l.id IN (SELECT max(b.log_id) FROM batch_audit.reconciled_batch b
               WHERE b.feed = %s AND b.batch_load_id = %s GROUP BY b.target_table)
ORDER BY l.target_table
"""
_ABANDON = """
UPDATE batch_audit.validation_log l
SET status = 'UNVERIFIED', exception = 'Its run ended without a word.', completed_at = clock_timestamp()
FROM batch_audit.reconciled_batch b
WHERE b.log_id = l.id AND b.feed = %s AND b.batch_load_id = ANY(%s) AND l.status = 'IN_PROGRESS'
"""


def open_log(
    connection: Connection,
    feed: str,
    table: str,
    batches: Sequence[str],
    *,
    requested_by: str,
    run_id: str | None,
) -> int:
    """Begin an entry, `IN_PROGRESS`; `proofs` ends it.

    Args:
        connection: A connection in autocommit mode.
        feed: The feed.
        table: The table.
        batches: The other system's ids of the batches.
        requested_by: Who asked for it.
        run_id: The Dagster run, or None.

    Returns:
        Its id.
    """
    with connection.transaction():
        opened = connection.execute(_OPEN, (feed, run_id, requested_by, table)).fetchall()
        ((log_id,),) = opened
        connection.execute(_ADD_BATCHES, (log_id, feed, table, [*batches]))
    return int(log_id)


def newest(connection: Connection, feed: str, batch: str) -> list[LogEntry]:
    """Read the newest entry of a batch for each table.

    Args:
        connection: A connection.
        feed: The feed.
        batch: The other system's id of the batch.

    Returns:
        The entries by table; none where it was never reconciled.
    """
    with connection.cursor(row_factory=class_row(LogEntry)) as cursor:
        return cursor.execute(_NEWEST, (feed, batch)).fetchall()


def end_dead(connection: Connection, feed: str, batches: Sequence[str]) -> None:
    """End entries whose run has died; called by whoever holds the lock of the batches.

    Args:
        connection: A connection.
        feed: The feed.
        batches: The batches' ids.
    """
    connection.execute(_ABANDON, (feed, [*batches]))
