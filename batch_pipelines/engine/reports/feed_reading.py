"""What the ledger knows of a feed over time, read in one snapshot."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, LiteralString, TypeVar

from psycopg.rows import class_row

from batch_pipelines.engine.errors import FeedError
from batch_pipelines.engine.ledger import pauses
from batch_pipelines.engine.ledger.outcomes import OUTCOME
from batch_pipelines.engine.reports.feed_facts import (
    FailedBatch,
    FeedFacts,
    Period,
    ReasonCount,
    StateCount,
)
from batch_pipelines.engine.reports.trends import recent_batches
from batch_pipelines.engine.rerun.failed import failed_partitions

if TYPE_CHECKING:
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.reports.feed_facts import Unit

MOST_PERIODS: Final = 62
"""A picture is as wide as a phone; two months of days find room in it."""
_HOURS: dict[Unit, float] = {"hour": 1, "day": 24, "week": 168, "month": 730.5, "year": 8766}

# The time of a report ends before its end.
_A_MOMENT = dt.timedelta(microseconds=1)
_T = TypeVar("_T")
_SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"
_EXTENT = """
SELECT min(started_at), max(started_at) FROM batch_audit.import_history
WHERE feed = %(feed)s AND started_at < %(until)s
  AND started_at >= coalesce(%(since)s::timestamptz, '-infinity')
"""
_IS_KNOWN = "SELECT EXISTS (SELECT FROM batch_audit.import_history WHERE feed = %s)"
# A period without any batch is one, too. Speed is that of bulk_write, over all records of its batches.
_PERIODS = (
    """
WITH batches AS (
    SELECT date_trunc(%(unit)s, h.started_at AT TIME ZONE %(timezone)s) AS period, h.status,"""
    + OUTCOME
    + """ AS outcome,
           source_records, written_records, rejected_records, source_bytes, s.seconds
    FROM batch_audit.import_history AS h LEFT JOIN LATERAL (
        SELECT extract(epoch FROM completed_at - started_at)::float8 AS seconds
        FROM batch_audit.batch_stage AS b
        WHERE b.batch_id = h.batch_id AND b.stage = 'bulk_write' AND b.status = 'SUCCESS'
          AND completed_at > started_at) AS s ON h.status <> 'DUPLICATE'
    WHERE feed = %(feed)s AND started_at < %(until)s
      AND started_at >= coalesce(%(since)s::timestamptz, '-infinity'))
SELECT period AS begins, count(status) AS batches,
       count(*) FILTER (WHERE outcome NOT IN ('IN_PROGRESS', 'PUBLISHED', 'DUPLICATE')) AS ended,
       count(*) FILTER (WHERE outcome = 'SUCCESS') AS whole,
       count(*) FILTER (WHERE outcome = 'PARTIAL_SUCCESS') AS partial,
       count(*) FILTER (WHERE outcome IN ('FAILED', 'VALIDATION_FAILED')) AS failed,
       coalesce(sum(source_records), 0)::bigint AS records,
       coalesce(sum(written_records), 0)::bigint AS written,
       coalesce(sum(rejected_records), 0)::bigint AS rejected,
       coalesce(sum(source_bytes), 0)::bigint AS bytes,
       coalesce(sum(source_records) FILTER (WHERE seconds IS NOT NULL), 0)::bigint AS timed_records,
       coalesce(sum(seconds) FILTER (WHERE source_records IS NOT NULL), 0) AS timed_seconds
FROM generate_series(date_trunc(%(unit)s, %(first)s::timestamptz AT TIME ZONE %(timezone)s),
                     date_trunc(%(unit)s, %(last)s::timestamptz AT TIME ZONE %(timezone)s),
                     ('1 ' || %(unit)s)::interval) AS period
LEFT JOIN batches USING (period)
GROUP BY period ORDER BY period
"""
)
_FAILURES = """
SELECT batch_id::text, partition_key, attempt, status, started_at, failure_cause AS cause, error_details
FROM batch_audit.import_history
WHERE feed = %(feed)s AND started_at < %(until)s
  AND started_at >= coalesce(%(since)s::timestamptz, '-infinity')
  AND status IN ('FAILED', 'VALIDATION_FAILED')
ORDER BY started_at DESC, batch_id
"""
_STATES = """
SELECT status, failure_cause AS cause, count(*) AS batches, max(started_at) AS newest
FROM batch_audit.import_history
WHERE feed = %(feed)s AND started_at < %(until)s
  AND started_at >= coalesce(%(since)s::timestamptz, '-infinity')
GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2 NULLS FIRST
"""
# By their first reason, so that each record counts once; by batch first, since to count different ones
# among all records takes a sort of them.
_REASONS = """
SELECT target_table, column_name, sqlstate, constraint_name, message, sum(records)::bigint AS records,
       count(*) AS batches, sum(replayed)::bigint AS loaded_since, max(newest) AS newest
FROM (SELECT r.batch_id, r.target_table, r.column_name, r.sqlstate, r.constraint_name, r.message,
             count(*) AS records, count(r.replayed_at) AS replayed, max(r.created_at) AS newest
      FROM batch_audit.import_history AS h JOIN batch_audit.import_reject AS r USING (batch_id)
      WHERE h.feed = %(feed)s AND started_at < %(until)s
        AND started_at >= coalesce(%(since)s::timestamptz, '-infinity')
      GROUP BY 1, 2, 3, 4, 5, 6) AS r
GROUP BY 1, 2, 3, 4, 5 ORDER BY 6 DESC, 1, 2, 3, 4, 5
"""
_OPEN_ALERTS = """
SELECT count(*) FROM batch_audit.alert
WHERE feed = %s AND severity <> 'info' AND acknowledged_at IS NULL AND resolved_at IS NULL
"""


@dataclass(frozen=True)
class Wanted:
    """What a report of a feed is about.

    Attributes:
        feed: The feed.
        description: What its file says it is; empty without a file.
        has_file: Whether it has one; a feed without may still be in the ledger.
        since: Batches that began then or later; None for the first of all.
        until: And before then.
        timezone: Whose days and months are meant, by a name of the IANA.
    """

    feed: str
    description: str
    has_file: bool
    since: dt.datetime | None
    until: dt.datetime
    timezone: str


def read_feed(
    connection: Connection, wanted: Wanted, *, made_at: dt.datetime, made_by: str
) -> FeedFacts:
    """Read what is known of a feed, all of it as of one moment.

    Args:
        connection: A connection in autocommit mode.
        wanted: What the report is about.
        made_at: Now.
        made_by: The program, with its version.

    Returns:
        The facts.

    Raises:
        FeedError: No file is of this feed, and it has no batch.
    """
    feed = wanted.feed
    given: dict[str, Any] = {
        "feed": feed, "since": wanted.since, "until": wanted.until, "timezone": wanted.timezone,
    }  # fmt: skip
    with connection.transaction():
        connection.execute(_SNAPSHOT)
        if not wanted.has_file and not connection.execute(_IS_KNOWN, (feed,)).fetchall()[0][0]:
            message = (
                f"There is no feed {feed}, and no batch of one that was called so. "
                "`batch-pipelines feeds list` lists those that have a file."
            )
            raise FeedError(message)
        ((first, last),) = connection.execute(_EXTENT, given).fetchall()
        unit = None if first is None else unit_for(first, last)
        bounds = {**given, "unit": unit, "first": first, "last": last}
        return FeedFacts(
            made_at=made_at, made_by=made_by, feed=feed, description=wanted.description,
            since=wanted.since, until=wanted.until, timezone=wanted.timezone, unit=unit,
            periods=() if unit is None else _read(connection, Period, _PERIODS, bounds),
            batches=recent_batches(
                connection, feed, wanted.until - _A_MOMENT, None, since=wanted.since
            ),
            failures=_read(connection, FailedBatch, _FAILURES, given),
            states=_read(connection, StateCount, _STATES, given),
            reasons=_read(connection, ReasonCount, _REASONS, given),
            paused=pauses.pause_of(connection, feed),
            standing=tuple(failed_partitions(connection, feed)),
            open_alerts=connection.execute(_OPEN_ALERTS, (feed,)).fetchall()[0][0],
        )  # fmt: skip


def unit_for(first: dt.datetime, last: dt.datetime) -> Unit:
    """Choose the shortest periods of which a picture has room for all.

    Args:
        first: When the first batch began.
        last: When the last batch began.

    Returns:
        What a period is.
    """
    hours = (last - first) / dt.timedelta(hours=1)
    # One more, and one more still: neither the first nor the last of them need be whole.
    fitting = (unit for unit, each in _HOURS.items() if hours / each + 2 <= MOST_PERIODS)
    return next(fitting, "year")


def _read(
    connection: Connection, kind: type[_T], query: LiteralString, given: dict[str, Any]
) -> tuple[_T, ...]:
    with connection.cursor(row_factory=class_row(kind)) as cursor:
        return tuple(cursor.execute(query, given).fetchall())
