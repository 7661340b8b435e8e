"""What the ledger knows of the batches that are watched."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.rows import class_row

from batch_pipelines.engine.ledger import pauses
from batch_pipelines.engine.ledger.batches import IN_FORCE

if TYPE_CHECKING:
    from batch_pipelines.engine.feed_parts.monitor import Monitor
    from batch_pipelines.engine.postgres.database import Connection

ALL_FEEDS = "*"
LATE_DELIVERY = "late_delivery"
"""Kind of the alert that is raised of a delivery that is late."""

# Of a window of time; more batches than that say nothing more.
_MOST_BATCHES = 10_000
# Smaller batches take what starting takes, whatever their size.
_LEAST_RECORDS = 1000
_SPEEDS = 53
# The oldest batch that counts is inside its own window.
_A_MOMENT = dt.timedelta(microseconds=1)
_LONG_AGO = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)

# A batch that its own run took back failed, too; of one that people took back nothing is said.
_BATCHES = """
SELECT h.batch_id::text, h.feed || '/' || h.partition_key AS name, h.completed_at,
       h.status IN ('FAILED', 'VALIDATION_FAILED', 'ROLLED_BACK') AS failed,
       h.status = ANY(%(in_force)s) AS in_force, h.error_details,
       coalesce(h.source_records, 0) AS source_records,
       coalesce(h.rejected_records, 0) AS rejected_records,
       (SELECT count(DISTINCT entity_id) FROM batch_audit.crc32_audit AS a
        WHERE a.batch_id = h.batch_id AND a.status = 'invalid') AS invalid_checksums,
       EXISTS (SELECT FROM batch_audit.signature_event AS e
               WHERE e.batch_id = h.batch_id AND e.verdict <> 'same'
                 AND e.previous_version IS NOT NULL) AS varies
FROM batch_audit.import_history AS h
WHERE (%(feed)s::text IS NULL OR h.feed = %(feed)s) AND h.adopted_from IS NULL
  AND h.completed_at > %(since)s
  AND (h.status IN ('FAILED', 'VALIDATION_FAILED', 'SUCCESS', 'PARTIAL_SUCCESS', 'SUPERSEDED',
                    'ARCHIVED')
       OR (h.status = 'ROLLED_BACK' AND EXISTS (
           SELECT FROM batch_audit.validation_log AS v
           WHERE v.batch_id = h.batch_id AND v.status = 'FAILED')))
ORDER BY h.completed_at DESC, h.batch_id LIMIT %(limit)s
"""
_THROUGHPUT = """
SELECT h.batch_id::text, h.source_records / s.seconds AS rows_per_second,
       h.completed_at > %(since)s AS counts
FROM batch_audit.import_history AS h JOIN LATERAL (
    SELECT extract(epoch FROM completed_at - started_at)::double precision AS seconds
    FROM batch_audit.batch_stage
    WHERE batch_id = h.batch_id AND stage = 'bulk_write' AND status = 'SUCCESS') AS s ON s.seconds > 0
WHERE h.feed = %(feed)s AND h.adopted_from IS NULL AND h.completed_at IS NOT NULL
  AND h.source_records >= %(least)s
ORDER BY h.completed_at DESC, h.batch_id LIMIT %(limit)s
"""
_LATE = """
SELECT count(*) FROM batch_audit.alert
WHERE kind = %(kind)s AND (%(feed)s::text IS NULL OR feed = %(feed)s) AND raised_at > %(since)s
"""


@dataclass(frozen=True)
class BatchFacts:
    """A batch that has ended.

    Attributes:
        batch_id: Its id.
        name: Feed and partition key.
        completed_at: When it ended.
        failed: Whether it failed, or its validation did.
        in_force: Whether its rows are visible and can be taken back.
        error_details: Why it failed.
        source_records: Records of its source.
        rejected_records: Of these, set aside.
        invalid_checksums: Files, chunks and rows that are not what was expected.
        varies: Whether it brought other columns than the one before.
    """

    batch_id: str
    name: str
    completed_at: dt.datetime
    failed: bool
    in_force: bool
    error_details: str | None
    source_records: int
    rejected_records: int
    invalid_checksums: int
    varies: bool


@dataclass(frozen=True)
class Speed:
    """How fast a batch's records were written.

    Attributes:
        batch_id: Its id.
        rows_per_second: Rows a second.
        counts: Whether it is one of those that are watched; the others are history.
    """

    batch_id: str
    rows_per_second: float
    counts: bool


@dataclass(frozen=True)
class Facts:
    """What is known of the batches of a scope.

    Attributes:
        batches: Those that count, the newest first.
        speeds: Of large enough batches, the newest first; others than those that count among them.
        late_deliveries: Deliveries that were late in the same time.
    """

    batches: tuple[BatchFacts, ...]
    speeds: tuple[Speed, ...]
    late_deliveries: int


def read_facts(connection: Connection, scope: str, monitor: Monitor, now: dt.datetime) -> Facts:
    """Read what is known of a scope. What was before a feed was last resumed does not count.

    Args:
        connection: A connection.
        scope: A feed, or `ALL_FEEDS`.
        monitor: Which batches count, and what is measured of them.
        now: The time.

    Returns:
        The facts.
    """
    feed = None if scope == ALL_FEEDS else scope
    resumed = None if feed is None else pauses.resumed_at(connection, feed)
    since = resumed or _LONG_AGO
    if monitor.time is not None:
        since = max(since, now - monitor.time)
    wanted = {
        "feed": feed, "since": since, "in_force": list(IN_FORCE),
        "limit": monitor.batches or _MOST_BATCHES,
    }  # fmt: skip
    with connection.cursor(row_factory=class_row(BatchFacts)) as cursor:
        found = tuple(cursor.execute(_BATCHES, wanted).fetchall())
    if monitor.batches is not None and found:
        since = max(since, found[-1].completed_at - _A_MOMENT)
    late = connection.execute(_LATE, {"kind": LATE_DELIVERY, "feed": feed, "since": since})
    (late_deliveries,) = late.fetchone() or (0,)
    return Facts(found, _speeds(connection, feed, monitor, since), late_deliveries)


def _speeds(
    connection: Connection, feed: str | None, monitor: Monitor, since: dt.datetime
) -> tuple[Speed, ...]:
    # Feeds differ in speed, so there is no median of all.
    if feed is None or monitor.throughput_drop is None:
        return ()
    wanted = {"feed": feed, "since": since, "least": _LEAST_RECORDS, "limit": _SPEEDS}
    with connection.cursor(row_factory=class_row(Speed)) as cursor:
        return tuple(cursor.execute(_THROUGHPUT, wanted).fetchall())
