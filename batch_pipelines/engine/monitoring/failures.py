"""Each failed batch is told, and its alert is over when the partition has a good one."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from batch_pipelines.engine.alerts import Alert, keep_silent, raise_alert

if TYPE_CHECKING:
    from batch_pipelines.engine.feed_parts.monitor import Monitor
    from batch_pipelines.engine.postgres.database import Connection

# What failed while nobody watched is old news after that.
_NEWS = dt.timedelta(days=1)
# Of one look; more at once have a cause in common, and would hide it.
_MOST_TOLD = 10

_FAILED = """
SELECT h.batch_id::text, h.partition_key, h.status, h.error_details, h.completed_at
FROM batch_audit.import_history AS h
WHERE h.feed = %(feed)s AND h.adopted_from IS NULL AND h.completed_at > %(since)s
  AND (h.status IN ('FAILED', 'VALIDATION_FAILED') OR (h.status = 'ROLLED_BACK' AND EXISTS (
      SELECT FROM batch_audit.validation_log AS v
      WHERE v.batch_id = h.batch_id AND v.status = 'FAILED')))
  AND NOT EXISTS (SELECT FROM batch_audit.alert AS a
                  WHERE a.deduplication_key = 'batch_failed/' || h.batch_id)
ORDER BY h.completed_at, h.batch_id
"""
_MENDED = """
UPDATE batch_audit.alert AS a SET resolved_at = clock_timestamp()
FROM batch_audit.import_history AS h
WHERE a.kind = 'batch_failed' AND a.resolved_at IS NULL AND h.batch_id = a.batch_id AND EXISTS (
    SELECT FROM batch_audit.import_history AS n
    WHERE (n.feed, n.partition_key) = (h.feed, h.partition_key) AND n.attempt >= h.attempt
      AND n.status IN ('SUCCESS', 'PARTIAL_SUCCESS', 'DUPLICATE', 'ARCHIVED'))
"""


def tell_failures(
    connection: Connection, feed: str, monitor: Monitor, now: dt.datetime, *, breached: bool
) -> None:
    """Raise an alert of each batch of a feed that failed.

    Args:
        connection: A connection, inside a transaction.
        feed: The feed.
        monitor: Whom to tell.
        now: The time.
        breached: Whether a breach tells of them: then each is written down, and not told.
    """
    wanted = {"feed": feed, "since": now - _NEWS}
    found = connection.execute(_FAILED, wanted).fetchall()
    for told, (batch_id, key, status, error, completed_at) in enumerate(found):
        silent = breached or told >= _MOST_TOLD
        alert = Alert(
            kind="batch_failed",
            severity="critical" if status == "VALIDATION_FAILED" else "warning",
            subject=f"{feed}/{key} is {status}",
            deduplication_key=f"batch_failed/{batch_id}",
            feed=feed,
            batch_id=batch_id,
            details={"why": error, "next": f"batch-pipelines show {batch_id[:8]}"},
            channels=monitor.channels,
            escalate_after=None if silent else monitor.escalates_after,
            escalate_to=monitor.escalate_to,
            occurred_at=completed_at,
            raised_at=now,
        )
        raise_alert(connection, alert)
        if silent:
            keep_silent(connection, alert.deduplication_key)


def mended(connection: Connection) -> None:
    """Say of failed batches whose partition has a good one since that nobody needs to look at them."""
    connection.execute(_MENDED)
