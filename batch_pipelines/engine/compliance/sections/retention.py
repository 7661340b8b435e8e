"""What is kept, and where: bags, legal holds, and what retention found, archived and deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batch_pipelines.engine.compliance.model import Content, Figure, listing
from batch_pipelines.engine.compliance.sections.events import events

if TYPE_CHECKING:
    from batch_pipelines.engine.compliance.scope import Scope
    from batch_pipelines.engine.postgres.database import Connection

_BAGS = """
SELECT h.feed, a.kind, a.strategy, count(*), coalesce(sum(a.payload_files), 0)::bigint,
       coalesce(sum(a.payload_bytes), 0)::bigint, count(a.key_id),
       count(*) FILTER (WHERE a.state = 'VALID'), count(*) FILTER (WHERE a.state <> 'VALID'),
       min(a.verified_at)
FROM batch_audit.archive_manifest AS a JOIN batch_audit.import_history AS h USING (batch_id)
WHERE a.recorded_at >= %(start)s AND a.recorded_at < %(until)s
  AND (%(feeds)s::text[] IS NULL OR h.feed = ANY(%(feeds)s))
GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""
_CHECKED = """
SELECT a.state, count(*) FROM batch_audit.archive_manifest AS a
JOIN batch_audit.import_history AS h USING (batch_id)
WHERE a.checked_at >= %(start)s AND a.checked_at < %(until)s
  AND (%(feeds)s::text[] IS NULL OR h.feed = ANY(%(feeds)s))
GROUP BY 1 ORDER BY 1
"""
_HOLDS = """
SELECT l.hold_id, coalesce(l.feed, h.feed), h.partition_key, l.since, l.until, l.set_at, l.set_by,
       l.reason, l.lifted_at, l.lifted_by, l.lift_reason
FROM batch_audit.legal_hold AS l LEFT JOIN batch_audit.import_history AS h USING (batch_id)
WHERE l.set_at < %(until)s AND (l.lifted_at IS NULL OR l.lifted_at >= %(start)s)
  AND (%(feeds)s::text[] IS NULL OR coalesce(l.feed, h.feed) = ANY(%(feeds)s)
       OR (l.feed IS NULL AND l.batch_id IS NULL))
ORDER BY l.hold_id
"""
_CHUNKS = """
SELECT h.feed, c.data_class, c.state, c.rule, c.legal_source, count(*),
       sum(c.records)::bigint, sum(c.bytes)::bigint
FROM batch_audit.retention_chunk AS c JOIN batch_audit.import_history AS h USING (batch_id)
WHERE c.found_at >= %(start)s AND c.found_at < %(until)s
  AND (%(feeds)s::text[] IS NULL OR h.feed = ANY(%(feeds)s))
GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5
"""
_ERASED = """
SELECT coalesce(h.feed, e.feed), e.target_table, p.kind, count(DISTINCT e.erasure_id),
       coalesce(sum(p.found), 0)::bigint, coalesce(sum(p.erased), 0)::bigint
FROM batch_audit.erasure AS e JOIN batch_audit.erasure_place AS p USING (erasure_id)
LEFT JOIN batch_audit.import_history AS h USING (batch_id)
WHERE e.started_at >= %(start)s AND e.started_at < %(until)s
  AND (%(feeds)s::text[] IS NULL OR coalesce(h.feed, e.feed) = ANY(%(feeds)s))
GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""
_ACTIONS = (
    "erasure.%",
    "batch.erased",
    "batch.bag.%",
    "hold.%",
    "retention.%",
    "restore.%",
    "archive.%",
    "key.%",
    "batch.restore.%",
)


def read(connection: Connection, scope: Scope) -> Content:
    """Read what is kept.

    Args:
        connection: A connection, in the snapshot of the report.
        scope: What the report is about.

    Returns:
        The content.
    """
    bags = connection.execute(_BAGS, scope.parameters).fetchall()
    checked = connection.execute(_CHECKED, scope.parameters).fetchall()
    holds = connection.execute(_HOLDS, scope.parameters).fetchall()
    chunks = connection.execute(_CHUNKS, scope.parameters).fetchall()
    erased = connection.execute(_ERASED, scope.parameters).fetchall()
    start, until = scope.span.start, scope.until
    deeds = events(connection, scope, _ACTIONS)
    figures = (
        Figure("bags", "Bags written", sum(row[3] for row in bags)),
        Figure("bytes", "Bytes archived", sum(row[5] for row in bags), "bytes"),
        Figure("encrypted", "of these bags encrypted", sum(row[6] for row in bags)),
        Figure("checked", "Bags last looked at in this time", sum(row[1] for row in checked)),
        Figure("holds", "Legal holds in force at some time of it", len(holds)),
        Figure("holds_set", "of these set in it", sum(row[5] >= start for row in holds)),
        Figure(
            "holds_lifted", "lifted in it", sum(bool(row[8] and row[8] < until) for row in holds)
        ),
        Figure("expired", "Records whose time was over", sum(row[6] for row in chunks)),
        Figure("deleted", "of these deleted", sum(row[6] for row in chunks if row[2] == "DELETED")),
        Figure(
            "kept", "kept by a hold or a later use", sum(r[6] for r in chunks if r[2] == "KEPT")
        ),
        Figure(
            "erased", "Records of persons erased, all copies counted", sum(r[5] for r in erased)
        ),
        Figure("deeds", "Events of holds, retention, restores, erasures and keys", len(deeds)),
    )
    tables = (
        listing(
            "bags",
            "Bags written",
            ("feed", "kind", "keeps", "bags|count", "files|count", "bytes|count", "encrypted|count",
             "valid|count", "not valid|count", "longest not read|time"),
            bags,
        ),
        listing(
            "holds",
            "Legal holds",
            ("hold|code", "feed", "partition", "over batches from|time", "until|time", "set|time", "by",
             "why", "lifted|time", "by whom", "why lifted"),
            holds,
            note="Without feed and partition it is over all feeds.",
        ),
        listing(
            "retention",
            "What retention found, archived and deleted",
            ("feed", "data", "state", "rule", "legal source", "batches|count", "records|count",
             "bytes|count"),
            chunks,
        ),
        listing(
            "erased",
            "Records of persons that were erased",
            ("feed", "table", "place", "erasures|count", "found|count", "erased|count"),
            erased,
            note="Whose they were is not kept.",
        ),
        listing("checked", "Bags looked at, by what was found", ("found|state", "bags|count"), checked),
        listing(
            "deeds",
            "Holds, retention, restores, erasures and keys",
            ("when|time", "principal", "action", "outcome|state", "feed", "partition", "of",
             "which|code", "reason"),
            [
                (e.created_at, e.principal_id, e.action, e.status, e.feed, e.partition_key,
                 e.resource_type, e.resource_id, e.details.get("reason"))
                for e in deeds
            ],
        ),
    )  # fmt: skip
    return Content(sum(row[3] for row in bags) + len(deeds), figures, tables)
