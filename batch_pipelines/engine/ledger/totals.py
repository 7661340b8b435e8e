"""Totals: counters and levels that the ledger keeps while batches change, so that nobody counts rows.

Triggers write down each change (migration 0022); here changes are folded into totals, and read. Not
here: their names for the outside (`metrics`).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
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
UNION ALL SELECT metric, feed, labels, value::float8, changed_at FROM batch_audit.metric_level
ORDER BY metric, feed, labels
"""
# Of a reader, or of a server that follows another one.
_MAY_NOT = (psycopg.errors.InsufficientPrivilege, psycopg.errors.ReadOnlySqlTransaction)


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


def fold_if_allowed(connection: Connection) -> None:
    """Fold what has changed, unless this connection may only read.

    Args:
        connection: A connection in autocommit mode.
    """
    with suppress(*_MAY_NOT):
        fold(connection)


def read(connection: Connection) -> list[Total]:
    """Read all metrics as they stand now.

    Args:
        connection: A connection.

    Returns:
        Their values, those of one metric together.
    """
    with connection.cursor(row_factory=class_row(Total)) as cursor:
        return cursor.execute(_READ).fetchall()
