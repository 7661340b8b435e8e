"""What people overruled: --force, rollbacks that went further, pauses, thresholds, alerts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batch_pipelines.engine.compliance.model import Content, Figure, listing
from batch_pipelines.engine.compliance.sections.events import events

if TYPE_CHECKING:
    from batch_pipelines.engine.compliance.scope import Scope
    from batch_pipelines.engine.compliance.sections.events import Found
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.reports.page import Cell

_FORCED, _APPROVED = "batch.ingest.forced", "batch.rollback.approved"
_REPROCESSED = "batch.reprocess.started"
_DONE, _REFUSED = "batch.rollback.done", "batch.rollback.refused"
# A pause is told in the range in which it began, and in that in which it ended. It was lifted in spite
# of a threshold where one of the feed's stood at `breach` at that moment.
_PAUSES = """
SELECT p.feed, p.paused_at, p.paused_by, p.reason, p.resumed_at, p.resumed_by,
       p.resumed_at < %(until)s AND EXISTS (
           SELECT FROM (
               SELECT DISTINCT ON (measure) state FROM batch_audit.threshold_event AS t
               WHERE t.scope = p.feed AND t.created_at <= p.resumed_at
               ORDER BY measure, event_id DESC) AS last
           WHERE state = 'breach') AS overruled
FROM batch_audit.feed_pause AS p
WHERE ((p.paused_at >= %(start)s AND p.paused_at < %(until)s)
       OR (p.resumed_at >= %(start)s AND p.resumed_at < %(until)s))
  AND (%(feeds)s::text[] IS NULL OR p.feed = ANY(%(feeds)s))
ORDER BY p.paused_at, p.pause_id
"""
_THRESHOLDS = """
SELECT created_at, scope, measure, state_before, state, value, warn_at, breach_at,
       array_to_string(actions, ', '), count(*) OVER ()
FROM batch_audit.threshold_event
WHERE created_at >= %(start)s AND created_at < %(until)s
  AND (%(feeds)s::text[] IS NULL OR scope = ANY(%(feeds)s))
ORDER BY event_id LIMIT %(listed)s
"""
_ACKNOWLEDGED = """
SELECT acknowledged_by, kind, severity, count(*), count(acknowledgement_note),
       percentile_cont(0.5) WITHIN GROUP (
           ORDER BY extract(epoch FROM acknowledged_at - raised_at)::float8)
FROM batch_audit.alert
WHERE acknowledged_at >= %(start)s AND acknowledged_at < %(until)s
  AND (%(feeds)s::text[] IS NULL OR feed = ANY(%(feeds)s))
GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""
_RERUNS = """
SELECT requested_at, feed, partition_key, requested_by, count(*) OVER ()
FROM batch_audit.rerun_request
WHERE requested_at >= %(start)s AND requested_at < %(until)s
  AND (%(feeds)s::text[] IS NULL OR feed = ANY(%(feeds)s))
ORDER BY requested_at, feed, partition_key LIMIT %(listed)s
"""


def read(connection: Connection, scope: Scope) -> Content:
    """Read what people overruled.

    Args:
        connection: A connection, in the snapshot of the report.
        scope: What the report is about.

    Returns:
        The content.
    """
    given = scope.parameters
    found = events(connection, scope, [_FORCED, _REPROCESSED, "batch.rollback.%"])
    forced = [each for each in found if each.action in {_FORCED, _REPROCESSED}]
    rollbacks = [each for each in found if each.action in {_DONE, _REFUSED}]
    done = [each for each in rollbacks if each.action == _DONE]
    pauses = connection.execute(_PAUSES, given).fetchall()
    thresholds = connection.execute(_THRESHOLDS, given).fetchall()
    seen = connection.execute(_ACKNOWLEDGED, given).fetchall()
    reruns = connection.execute(_RERUNS, given).fetchall()
    began = [row for row in pauses if scope.span.start <= row[1] < scope.until]
    ended = [row for row in pauses if row[4] and scope.span.start <= row[4] < scope.until]
    figures = (
        Figure("forced", "Imported by --force", sum(e.action == _FORCED for e in forced)),
        Figure("reprocessed", "Reprocessed out of a bag", sum(e.action != _FORCED for e in forced)),
        Figure("rollbacks", "Rollbacks", len(done)),
        Figure("cascade", "of these by --cascade", _count(done, "cascaded")),
        Figure("keep_touched", "with --keep-touched", _count(done, "keep_touched")),
        Figure("refused", "Rollbacks refused", len(rollbacks) - len(done)),
        Figure("approvals", "Approvals", sum(each.action == _APPROVED for each in found)),
        Figure("paused", "Feeds paused", len(began)),
        Figure("resumed", "Feeds resumed", len(ended)),
        Figure("overruled", "resumed over a breached threshold", sum(row[6] for row in ended)),
        Figure(
            "threshold_changes", "Thresholds that changed", thresholds[0][-1] if thresholds else 0
        ),
        Figure("acknowledged", "Alerts acknowledged", sum(row[3] for row in seen)),
        Figure("reruns", "Reruns asked for", reruns[0][-1] if reruns else 0),
    )
    tables = (
        listing(
            "forced",
            "Imported by --force, or out of a bag, whatever was in force",
            ("when|time", "by", "how", "feed", "partition", "same content as batch|code"),
            [
                (e.created_at, e.principal_id, "--force" if e.action == _FORCED else "reprocess",
                 e.feed, e.partition_key, _text(e, "same_content") or _text(e, "source_of"))
                for e in forced
            ],
        ),
        listing(
            "rollbacks",
            "Rollbacks",
            ("when|time", "by", "approved by", "feed", "partition", "outcome", "cascaded",
             "rows kept|count", "reason"),
            [_rollback(each) for each in rollbacks],
        ),
        listing(
            "pauses",
            "Feeds paused and resumed",
            ("feed", "paused at|time", "by", "why", "resumed at|time", "by whom", "over a breach"),
            pauses,
            note="Over a breach: a threshold of the feed stood at breach when it was resumed.",
        ),
        listing(
            "thresholds",
            "Thresholds",
            ("when|time", "feed", "measure", "before", "then", "value|number", "warns at|number",
             "breach at|number", "done"),
            [row[:9] for row in thresholds],
            note="A feed * stands for all feeds together.",
            total=thresholds[0][-1] if thresholds else 0,
        ),
        listing(
            "acknowledgements",
            "Alerts acknowledged",
            ("by", "kind", "severity|state", "alerts|count", "with a note|count",
             "median seconds|number"),
            seen,
        ),
        listing(
            "reruns",
            "Reruns asked for",
            ("when|time", "feed", "partition", "by"),
            [row[:4] for row in reruns],
            total=reruns[0][-1] if reruns else 0,
        ),
    )  # fmt: skip
    counted = len(forced) + len(rollbacks) + len(pauses) + sum(row[3] for row in seen)
    return Content(counted, figures, tables)


def _rollback(found: Found) -> tuple[Cell, ...]:
    tables = found.details.get("tables") or []
    return (
        found.created_at, found.principal_id, _text(found, "approved_by"), found.feed,
        found.partition_key, "done" if found.action == _DONE else "refused",
        found.details.get("cascaded") is True, sum(int(each.get("kept", 0)) for each in tables),
        _text(found, "reason"),
    )  # fmt: skip


def _count(found: list[Found], name: str) -> int:
    return sum(each.details.get(name) is True for each in found)


def _text(found: Found, name: str) -> str | None:
    value = found.details.get(name)
    return None if value is None else str(value)
