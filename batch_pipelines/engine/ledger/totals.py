"""Totals: counters and levels that the ledger keeps while batches change, so that nobody counts rows.

Triggers write down each change (migration 0022); here changes are folded into totals, and read. Not
here: their names for the outside (`metrics`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.rows import class_row, scalar_row

if TYPE_CHECKING:
    import datetime as dt

    from batch_pipelines.engine.postgres.database import Connection

# One at a time; whoever comes second leaves it to the first.
_ALONE = "SELECT pg_try_advisory_xact_lock(hashtextextended('batch_audit.metric_total', 0))"
_FOLD = """
WITH taken AS (DELETE FROM batch_audit.metric_change RETURNING *)
INSERT INTO batch_audit.metric_total AS t (metric, feed, labels, value, changed_at)
SELECT metric, feed, labels, sum(value), max(changed_at) FROM taken GROUP BY 1, 2, 3
ON CONFLICT (metric, feed, labels) DO UPDATE
SET value = t.value + excluded.value, changed_at = greatest(t.changed_at, excluded.changed_at)
"""
_READ = """
SELECT metric, feed, labels, value::float8, changed_at FROM batch_audit.metric
ORDER BY metric, feed, labels
"""
# Each reads what is open now, by an index that has nothing else; see docs/monitoring.md.
_OPEN_ALERTS = """
SELECT 'alerts_open' AS metric, coalesce(feed, '') AS feed, ARRAY[severity] AS labels,
       count(*)::float8 AS value, max(raised_at) AS changed_at
FROM batch_audit.alert
WHERE severity <> 'info' AND acknowledged_at IS NULL AND resolved_at IS NULL GROUP BY 1, 2, 3
"""
_WAITING = """
SELECT 'alert_deliveries_waiting' AS metric, '' AS feed, ARRAY[channel] AS labels,
       count(*)::float8 AS value, now() AS changed_at
FROM batch_audit.alert_delivery WHERE status = 'WAITING' GROUP BY channel
"""
_LEASES = """
SELECT 'leases' AS metric, feed,
       ARRAY[CASE WHEN expires_at < now() THEN 'expired' ELSE 'held' END] AS labels,
       count(*)::float8 AS value, max(acquired_at) AS changed_at
FROM batch_audit.batch_lease WHERE released_at IS NULL GROUP BY feed, 3
"""
_PAUSED = """
SELECT 'feeds_paused' AS metric, feed, '{}'::text[] AS labels, 1::float8 AS value,
       paused_at AS changed_at
FROM batch_audit.feed_pause WHERE resumed_at IS NULL
"""
_THRESHOLDS = """
SELECT 'thresholds' AS metric, CASE scope WHEN '*' THEN '' ELSE scope END AS feed,
       ARRAY[measure] AS labels,
       (array_position(ARRAY['ok', 'warn', 'breach'], state) - 1)::float8 AS value,
       now() AS changed_at
FROM batch_audit.threshold_state
"""
_LEVELS = (_OPEN_ALERTS, _WAITING, _LEASES, _PAUSED, _THRESHOLDS)


@dataclass(frozen=True)
class Total:
    """One value of one metric.

    Attributes:
        metric: Its name in the ledger.
        feed: The feed; empty where it is about the whole.
        labels: What else tells its values apart.
        value: Counts, bytes or seconds.
        changed_at: When it last changed.
    """

    metric: str
    feed: str
    labels: list[str]
    value: float
    changed_at: dt.datetime


def fold(connection: Connection) -> None:
    """Fold what has changed into the totals; nothing where somebody else is at it.

    Args:
        connection: A connection in autocommit mode.
    """
    with connection.transaction(), connection.cursor(row_factory=scalar_row) as cursor:
        if cursor.execute(_ALONE).fetchone():
            cursor.execute(_FOLD)


def read(connection: Connection) -> list[Total]:
    """Read all metrics as they stand now.

    Args:
        connection: A connection.

    Returns:
        Their values, those of one metric together.
    """
    with connection.cursor(row_factory=class_row(Total)) as cursor:
        found = cursor.execute(_READ).fetchall()
        for level in _LEVELS:
            found += cursor.execute(level).fetchall()
        return found
