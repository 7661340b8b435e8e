"""Partitions that stand failed: what was tried last did not come to its end, and nobody works on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.rows import class_row

if TYPE_CHECKING:
    import datetime as dt

    from batch_pipelines.engine.postgres.database import Connection

# What the newest delivery of a partition stands for is its last attempt; or the batch in force that this
# is a duplicate of, where that has a stage left which failed. Tries are runs: those of the attempts that
# failed one after the other with this delivery.
_FAILED = """
WITH standing AS (
    SELECT h.*, failure_cause AS cause, completed_at AS failed_at
    FROM batch_audit.import_history AS h
    WHERE status IN ('FAILED', 'VALIDATION_FAILED', 'ROLLED_BACK') AND adopted_from IS NULL
    UNION ALL
    SELECT h.*, s.failure_cause, s.completed_at
    FROM batch_audit.import_history AS h JOIN batch_audit.batch_stage AS s USING (batch_id)
    WHERE s.status = 'FAILED' AND h.status IN ('PUBLISHED', 'SUCCESS', 'PARTIAL_SUCCESS')
)
SELECT feed, partition_key, batch_id::text, status, cause, coalesce(failed_at, started_at) AS failed_at,
       fingerprint,
       (SELECT count(*) FROM batch_audit.import_history AS t
        JOIN batch_audit.batch_run AS r USING (batch_id)
        WHERE (t.feed, t.partition_key) = (h.feed, h.partition_key) AND t.attempt > coalesce(
            (SELECT max(o.attempt) FROM batch_audit.import_history AS o
             WHERE (o.feed, o.partition_key) = (h.feed, h.partition_key) AND o.attempt < h.attempt
               AND (o.status <> 'FAILED' OR o.fingerprint <> h.fingerprint)), 0)) AS tries
FROM standing AS h
WHERE (%(feed)s::text IS NULL OR feed = %(feed)s)
  AND NOT EXISTS (
    SELECT FROM batch_audit.import_history AS later
    WHERE (later.feed, later.partition_key) = (h.feed, h.partition_key)
      AND later.attempt > h.attempt AND later.duplicate_of IS DISTINCT FROM h.batch_id)
  AND NOT EXISTS (
    SELECT FROM batch_audit.batch_lease AS l
    WHERE (l.feed, l.partition_key) = (h.feed, h.partition_key) AND l.released_at IS NULL)
ORDER BY failed_at, feed, partition_key
"""
_OF_RUNS = "SELECT run_id::text FROM batch_audit.batch_run WHERE run_id = ANY(%s::uuid[])"
_BEGUN = """
SELECT max(started_at) FROM batch_audit.import_history WHERE feed = %s AND partition_key = %s
"""


@dataclass(frozen=True)
class Failed:
    """A partition that stands failed.

    Attributes:
        feed: Name of the feed.
        partition_key: Partition key.
        batch_id: The batch; or the run, where that failed before it had one.
        status: State of the batch; `FAILED` where there is none.
        cause: Why, as one word; None where it was not classified.
        failed_at: When, with time zone.
        fingerprint: Of the delivery; None where it was not read.
        tries: How many runs in a row have failed with it.
    """

    feed: str
    partition_key: str
    batch_id: str
    status: str
    cause: str | None
    failed_at: dt.datetime
    fingerprint: str | None
    tries: int

    @property
    def name(self) -> str:
        """Feed and partition key."""
        return f"{self.feed}/{self.partition_key}"

    @property
    def occasion(self) -> str:
        """Names this failure: after another try it is another one."""
        return f"{self.batch_id}:{self.tries}"


def failed_partitions(connection: Connection, feed: str | None = None) -> list[Failed]:
    """List the partitions that stand failed, longest first; none that a run works on.

    Args:
        connection: A connection.
        feed: Only of this feed.
    """
    with connection.cursor(row_factory=class_row(Failed)) as cursor:
        return cursor.execute(_FAILED, {"feed": feed}).fetchall()


def without_batch(connection: Connection, runs: list[str]) -> set[str]:
    """Say which runs never had a batch.

    Args:
        connection: A connection.
        runs: Run ids.
    """
    known = {row[0] for row in connection.execute(_OF_RUNS, (runs,))}
    return {*runs} - known


def begun_at(connection: Connection, feed: str, key: str) -> dt.datetime | None:
    """Say when the newest batch of a partition began; None where there is none."""
    row = connection.execute(_BEGUN, (feed, key)).fetchone()
    return None if row is None else row[0]
