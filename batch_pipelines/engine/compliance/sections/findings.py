"""What is open: failures that nobody mended, checks that could not be made, alerts that nobody has seen.

Of whatever age: a finding stays one until it is mended. Those from before the range are marked so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString, NamedTuple

from batch_pipelines.engine.compliance.model import Content, Figure, listing

if TYPE_CHECKING:
    from batch_pipelines.engine.compliance.model import Table
    from batch_pipelines.engine.compliance.scope import Scope
    from batch_pipelines.engine.postgres.database import Connection

# Each ends in: whether it is from before, how many there are, and how many of those are from before.
_FAILED = """
SELECT h.started_at, h.feed, h.partition_key, h.batch_id::text, h.failure_cause, h.error_details,
       h.started_at < %(start)s, count(*) OVER (),
       count(*) FILTER (WHERE h.started_at < %(start)s) OVER ()
FROM batch_audit.import_history AS h
WHERE h.status = 'FAILED' AND h.started_at < %(until)s
  AND (%(feeds)s::text[] IS NULL OR h.feed = ANY(%(feeds)s))
  AND NOT EXISTS (
      SELECT FROM batch_audit.import_history AS later
      WHERE later.feed = h.feed AND later.partition_key = h.partition_key
        AND later.attempt > h.attempt AND later.status <> 'DUPLICATE')
ORDER BY h.started_at DESC, h.batch_id LIMIT %(listed)s
"""
# Nobody works on it: what a validation would find, nobody knows.
_UNVALIDATED = """
SELECT h.started_at, h.feed, h.partition_key, h.batch_id::text, h.published_at,
       h.started_at < %(start)s, count(*) OVER (),
       count(*) FILTER (WHERE h.started_at < %(start)s) OVER ()
FROM batch_audit.import_history AS h
LEFT JOIN batch_audit.batch_lease AS l USING (feed, partition_key)
WHERE h.status = 'PUBLISHED' AND h.started_at < %(until)s
  AND (l.feed IS NULL OR l.released_at IS NOT NULL OR l.expires_at < %(as_of)s)
  AND (%(feeds)s::text[] IS NULL OR h.feed = ANY(%(feeds)s))
ORDER BY h.started_at DESC, h.batch_id LIMIT %(listed)s
"""
_INVALID = """
SELECT h.started_at, h.feed, h.partition_key, h.batch_id::text, h.error_details,
       h.started_at < %(start)s, count(*) OVER (),
       count(*) FILTER (WHERE h.started_at < %(start)s) OVER ()
FROM batch_audit.import_history AS h
WHERE h.status = 'VALIDATION_FAILED' AND h.started_at < %(until)s
  AND (%(feeds)s::text[] IS NULL OR h.feed = ANY(%(feeds)s))
ORDER BY h.started_at DESC, h.batch_id LIMIT %(listed)s
"""
# The last word on a table counts, and none on a batch that is not in force.
_UNVERIFIED = """
SELECT v.started_at, h.feed, h.partition_key, v.target_table, v.exception,
       v.started_at < %(start)s, count(*) OVER (),
       count(*) FILTER (WHERE v.started_at < %(start)s) OVER ()
FROM batch_audit.validation_log AS v JOIN batch_audit.import_history AS h USING (batch_id)
WHERE v.status = 'UNVERIFIED' AND v.started_at < %(until)s
  AND h.status IN ('PUBLISHED', 'SUCCESS', 'PARTIAL_SUCCESS', 'VALIDATION_FAILED')
  AND (%(feeds)s::text[] IS NULL OR h.feed = ANY(%(feeds)s))
  AND NOT EXISTS (
      SELECT FROM batch_audit.validation_log AS later
      WHERE later.batch_id = v.batch_id AND later.target_table = v.target_table AND later.id > v.id)
ORDER BY v.started_at DESC, v.id LIMIT %(listed)s
"""
_DIFFERING = """
SELECT v.started_at, h.feed, h.partition_key, v.target_table, v.status, v.changed, v.missing, v.added,
       v.started_at < %(start)s, count(*) OVER (),
       count(*) FILTER (WHERE v.started_at < %(start)s) OVER ()
FROM batch_audit.verification_log AS v JOIN batch_audit.import_history AS h USING (batch_id)
WHERE v.status IN ('FAILED', 'UNVERIFIED') AND v.started_at < %(until)s
  AND h.status IN ('PUBLISHED', 'SUCCESS', 'PARTIAL_SUCCESS', 'VALIDATION_FAILED')
  AND (%(feeds)s::text[] IS NULL OR h.feed = ANY(%(feeds)s))
  AND NOT EXISTS (
      SELECT FROM batch_audit.verification_log AS later
      WHERE later.batch_id = v.batch_id AND later.target_table = v.target_table AND later.id > v.id)
ORDER BY v.started_at DESC, v.id LIMIT %(listed)s
"""
_DAMAGED = """
SELECT a.checked_at, h.feed, h.partition_key, a.kind, a.place, a.state,
       array_to_string(a.problems, '; '), a.recorded_at < %(start)s, count(*) OVER (),
       count(*) FILTER (WHERE a.recorded_at < %(start)s) OVER ()
FROM batch_audit.archive_manifest AS a JOIN batch_audit.import_history AS h USING (batch_id)
WHERE a.state <> 'VALID' AND a.recorded_at < %(until)s
  AND (%(feeds)s::text[] IS NULL OR h.feed = ANY(%(feeds)s))
ORDER BY a.checked_at DESC, a.id LIMIT %(listed)s
"""
_UNSEEN = """
SELECT a.raised_at, a.alert_id, a.severity, a.kind, a.feed, h.partition_key, a.escalated_at,
       a.raised_at < %(start)s, count(*) OVER (),
       count(*) FILTER (WHERE a.raised_at < %(start)s) OVER ()
FROM batch_audit.alert AS a LEFT JOIN batch_audit.import_history AS h USING (batch_id)
WHERE a.severity <> 'info' AND a.acknowledged_at IS NULL AND a.resolved_at IS NULL
  AND a.raised_at < %(until)s AND (%(feeds)s::text[] IS NULL OR a.feed = ANY(%(feeds)s))
ORDER BY a.severity, a.raised_at DESC, a.alert_id LIMIT %(listed)s
"""
# Nobody renews its lease any more, and nobody has taken the partition over.
_DEAD = """
SELECT h.started_at, h.feed, h.partition_key, h.batch_id::text, l.expires_at,
       h.started_at < %(start)s, count(*) OVER (),
       count(*) FILTER (WHERE h.started_at < %(start)s) OVER ()
FROM batch_audit.import_history AS h
LEFT JOIN batch_audit.batch_lease AS l USING (feed, partition_key)
WHERE h.status = 'IN_PROGRESS' AND h.started_at < %(until)s
  AND (l.feed IS NULL OR l.released_at IS NOT NULL OR l.expires_at < %(as_of)s)
  AND (%(feeds)s::text[] IS NULL OR h.feed = ANY(%(feeds)s))
ORDER BY h.started_at DESC, h.batch_id LIMIT %(listed)s
"""


class _Finding(NamedTuple):
    name: str
    title: str
    columns: tuple[str, ...]
    sql: LiteralString


_FINDINGS = (
    _Finding(
        "failed", "Failed batches that nothing has run again",
        ("began|time", "feed", "partition", "batch|code", "cause", "why"), _FAILED,
    ),
    _Finding(
        "validation_failed", "Batches in force that failed their validation",
        ("began|time", "feed", "partition", "batch|code", "why"), _INVALID,
    ),
    _Finding(
        "unvalidated", "Batches in force that are not validated, and that no run works on",
        ("began|time", "feed", "partition", "batch|code", "visible since|time"), _UNVALIDATED,
    ),
    _Finding(
        "unverified", "Validations that could not be made",
        ("began|time", "feed", "partition", "table", "why"), _UNVERIFIED,
    ),
    _Finding(
        "differing", "Batches proven again that differ, or could not be proven",
        ("began|time", "feed", "partition", "table", "found|state", "rows changed|count",
         "missing|count", "added|count"),
        _DIFFERING,
    ),
    _Finding(
        "damaged_bags", "Bags damaged, missing or out of reach",
        ("looked at|time", "feed", "partition", "kind", "where", "found|state", "problems"), _DAMAGED,
    ),
    _Finding(
        "unacknowledged", "Alerts that nobody has acknowledged",
        ("raised|time", "alert|code", "severity|state", "kind", "feed", "partition",
         "escalated|time"), _UNSEEN,
    ),
    _Finding(
        "dead_runs", "Batches in progress whose run is dead",
        ("began|time", "feed", "partition", "batch|code", "lease until|time"), _DEAD,
    ),
)  # fmt: skip


def read(connection: Connection, scope: Scope) -> Content:
    """Read what is open.

    Args:
        connection: A connection, in the snapshot of the report.
        scope: What the report is about.

    Returns:
        The content.
    """
    figures: list[Figure] = []
    tables: list[Table] = []
    carried = 0
    for each in _FINDINGS:
        rows = connection.execute(each.sql, scope.parameters).fetchall()
        total, before = rows[0][-2:] if rows else (0, 0)
        carried += before
        figures.append(Figure(each.name, each.title, total))
        lines = [row[:-2] for row in rows]
        heads = (*each.columns, "from before")
        tables.append(listing(each.name, each.title, heads, lines, total=total))
    found = sum(int(figure.value or 0) for figure in figures)
    every = Figure("open", "Open findings", found)
    return Content(found, (every, Figure("carried", "of these from before", carried), *figures),
                   (*tables,))  # fmt: skip
