"""Critical rows: how many, how soon people were told, and who has seen it. No keys of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batch_pipelines.engine.compliance.model import Content, Figure, listing

if TYPE_CHECKING:
    from batch_pipelines.engine.compliance.scope import Scope
    from batch_pipelines.engine.postgres.database import Connection

# Latency runs from receipt, the begin of ingest, as the alert keeps it. What an earlier batch of the
# partition had told of counts apart.
_ROWS = """
WITH told AS (
    SELECT h.feed, c.condition,
           a.alert_id IS NOT NULL AND a.batch_id IS DISTINCT FROM c.batch_id AS before,
           a.alert_id IS NULL AS untold,
           extract(epoch FROM a.raised_at - a.occurred_at)::float8 AS raised,
           extract(epoch FROM sent.at - a.occurred_at)::float8 AS sent
    FROM batch_audit.import_history AS h
    JOIN batch_audit.critical_record AS c USING (batch_id)
    LEFT JOIN batch_audit.alert AS a ON a.deduplication_key = c.alert_key
    LEFT JOIN LATERAL (SELECT min(sent_at) AS at FROM batch_audit.alert_delivery AS d
                       WHERE d.alert_id = a.alert_id AND d.sent_at < %(as_of)s) AS sent ON true
    WHERE h.started_at >= %(start)s AND h.started_at < %(until)s AND h.critical_records > 0
      AND (%(feeds)s::text[] IS NULL OR h.feed = ANY(%(feeds)s)))
SELECT feed, condition, count(*), count(*) FILTER (WHERE before), count(*) FILTER (WHERE untold),
       percentile_cont(0.5) WITHIN GROUP (ORDER BY raised) FILTER (WHERE NOT before),
       percentile_cont(0.95) WITHIN GROUP (ORDER BY raised) FILTER (WHERE NOT before),
       max(raised) FILTER (WHERE NOT before),
       count(sent) FILTER (WHERE NOT before),
       percentile_cont(0.5) WITHIN GROUP (ORDER BY sent) FILTER (WHERE NOT before),
       percentile_cont(0.95) WITHIN GROUP (ORDER BY sent) FILTER (WHERE NOT before),
       max(sent) FILTER (WHERE NOT before)
FROM told GROUP BY GROUPING SETS ((), (feed, condition))
ORDER BY grouping(feed) DESC, feed, condition
"""
_ALERTS = """
SELECT a.feed, a.kind, count(*), count(a.escalated_at), count(a.acknowledged_at),
       count(*) FILTER (WHERE a.acknowledged_at IS NULL AND a.resolved_at IS NULL),
       percentile_cont(0.5) WITHIN GROUP (
           ORDER BY extract(epoch FROM a.acknowledged_at - a.raised_at)::float8),
       max(extract(epoch FROM a.acknowledged_at - a.raised_at)::float8)
FROM batch_audit.alert AS a
WHERE a.raised_at >= %(start)s AND a.raised_at < %(until)s AND a.kind LIKE 'critical\\_row%%'
  AND (%(feeds)s::text[] IS NULL OR a.feed = ANY(%(feeds)s))
GROUP BY GROUPING SETS ((), (a.feed, a.kind)) ORDER BY grouping(a.feed) DESC, 1, 2
"""
_SLOWEST = """
SELECT a.alert_id, a.feed, h.partition_key, a.occurred_at,
       extract(epoch FROM a.raised_at - a.occurred_at)::float8 AS raised,
       extract(epoch FROM (SELECT min(sent_at) FROM batch_audit.alert_delivery AS d
                           WHERE d.alert_id = a.alert_id) - a.occurred_at)::float8 AS sent,
       a.escalated_at IS NOT NULL, a.acknowledged_by
FROM batch_audit.alert AS a LEFT JOIN batch_audit.import_history AS h USING (batch_id)
WHERE a.raised_at >= %(start)s AND a.raised_at < %(until)s AND a.kind LIKE 'critical\\_row%%'
  AND (%(feeds)s::text[] IS NULL OR a.feed = ANY(%(feeds)s))
ORDER BY a.acknowledged_at IS NULL AND a.resolved_at IS NULL DESC, raised DESC, a.alert_id
LIMIT %(slowest)s
"""
_SLOWEST_LISTED = 20


def read(connection: Connection, scope: Scope) -> Content:
    """Read how people were told of critical rows.

    Args:
        connection: A connection, in the snapshot of the report.
        scope: What the report is about.

    Returns:
        The content.
    """
    given = scope.parameters
    # The first line is of all together, and is there without any row, too.
    (_, _, rows, before, untold, *latency), *conditions = connection.execute(
        _ROWS, given
    ).fetchall()
    (_, _, alerts, escalated, seen, unseen, median, longest), *kinds = connection.execute(
        _ALERTS, given
    ).fetchall()
    slowest = connection.execute(_SLOWEST, {**given, "slowest": _SLOWEST_LISTED}).fetchall()
    figures = (
        Figure("critical_rows", "Critical rows", rows),
        Figure("told_before", "Critical rows told of before", before),
        Figure("untold", "Critical rows told of by no alert", untold),
        Figure("raised_median", "Receipt to alert, median", latency[0], "s"),
        Figure("raised_p95", "Receipt to alert, 95th percentile", latency[1], "s"),
        Figure("raised_worst", "Receipt to alert, the worst", latency[2], "s"),
        Figure("sent", "Rows that a channel took", latency[3]),
        Figure("sent_median", "Receipt to sent, median", latency[4], "s"),
        Figure("sent_p95", "Receipt to sent, 95th percentile", latency[5], "s"),
        Figure("sent_worst", "Receipt to sent, the worst", latency[6], "s"),
        Figure("alerts", "Alerts of them", alerts),
        Figure("escalated", "Escalated", escalated),
        Figure("acknowledged", "Acknowledged", seen),
        Figure("unacknowledged", "Not acknowledged", unseen),
        Figure("acknowledged_median", "Alert to acknowledgement, median", median, "s"),
        Figure("acknowledged_worst", "Alert to acknowledgement, the worst", longest, "s"),
    )
    tables = (
        listing(
            "by_condition",
            "By condition; seconds from receipt",
            ("feed", "condition", "rows|count", "told before|count", "untold|count",
             "alert: median|number", "alert: p95|number", "alert: worst|number", "sent|count",
             "sent: median|number", "sent: p95|number", "sent: worst|number"),
            conditions,
            note="Receipt is the begin of ingest. Told before: rows that the batch they supersede had.",
        ),
        listing(
            "alerts_by_kind",
            "Alerts of critical rows",
            ("feed", "kind", "alerts|count", "escalated|count", "acknowledged|count", "open|count",
             "seconds to acknowledgement: median|number", "worst|number"),
            kinds,
        ),
        listing(
            "slowest",
            "Alerts still open, then the slowest",
            ("alert|code", "feed", "partition", "received|time", "raised after (s)|number",
             "sent after (s)|number", "escalated", "acknowledged by"),
            slowest,
            total=alerts,
        ),
    )  # fmt: skip
    return Content(rows + alerts, figures, tables)
