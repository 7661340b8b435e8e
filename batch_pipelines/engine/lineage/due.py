"""Which events are to be sent: what the ledger says of a batch, less what was sent."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from psycopg.rows import class_row

if TYPE_CHECKING:
    from batch_pipelines.engine.postgres.database import Connection

EventType = Literal["START", "COMPLETE", "FAIL", "ABORT"]
# A catalog that was away for longer, or is set only now, is not told old stories.
STALE = dt.timedelta(days=1)
# Of a batch that was taken back, the end has been sent before, or nobody was told of it.
_DUE = """
SELECT h.batch_id::text, e.event_type, e.occurred_at
FROM batch_audit.import_history AS h, LATERAL (VALUES
    ('START', h.started_at),
    (CASE WHEN h.status IN ('SUCCESS', 'PARTIAL_SUCCESS', 'SUPERSEDED', 'ARCHIVED') THEN 'COMPLETE'
          WHEN h.status IN ('FAILED', 'VALIDATION_FAILED') THEN 'FAIL'
          WHEN h.status = 'DUPLICATE' THEN 'ABORT' END, h.completed_at)
) AS e (event_type, occurred_at)
WHERE (h.started_at >= %(since)s OR h.completed_at >= %(since)s) AND h.adopted_from IS NULL
  AND e.event_type IS NOT NULL AND e.occurred_at >= %(since)s
  AND NOT EXISTS (
    SELECT FROM batch_audit.lineage_sent AS s
    WHERE (s.batch_id, s.event_type, s.occurred_at) = (h.batch_id, e.event_type, e.occurred_at))
ORDER BY e.occurred_at, e.event_type DESC LIMIT %(limit)s
"""
_SENT = """
INSERT INTO batch_audit.lineage_sent (batch_id, event_type, occurred_at, sent_at)
VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING
"""


@dataclass(frozen=True)
class Due:
    """An event to be sent.

    Attributes:
        batch_id: The batch.
        event_type: What happened, in OpenLineage's words.
        occurred_at: When.
    """

    batch_id: str
    event_type: EventType
    occurred_at: dt.datetime


def due(connection: Connection, now: dt.datetime, limit: int) -> list[Due]:
    """List the events that nobody has taken yet, oldest first.

    Args:
        connection: A connection.
        now: The time.
        limit: At most so many.

    Returns:
        The events of the last day.
    """
    with connection.cursor(row_factory=class_row(Due)) as cursor:
        return cursor.execute(_DUE, {"since": now - STALE, "limit": limit}).fetchall()


def mark_sent(connection: Connection, each: Due, now: dt.datetime) -> None:
    """Write down that an event was taken."""
    connection.execute(_SENT, (each.batch_id, each.event_type, each.occurred_at, now))
