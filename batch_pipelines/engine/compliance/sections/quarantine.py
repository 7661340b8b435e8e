"""What was set aside: rejects by reason, and how many were loaded after all. No value of a row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batch_pipelines.engine.compliance.model import Content, Figure, listing

if TYPE_CHECKING:
    from batch_pipelines.engine.compliance.scope import Scope
    from batch_pipelines.engine.postgres.database import Connection

_REASONS = """
SELECT r.feed, r.target_table, r.column_name, r.sqlstate, r.constraint_name, r.message, count(*),
       count(r.replayed_at), sum(count(*)) OVER ()::bigint, sum(count(r.replayed_at)) OVER ()::bigint,
       count(*) OVER ()
FROM batch_audit.import_history AS h JOIN batch_audit.import_reject AS r USING (batch_id)
WHERE h.started_at >= %(start)s AND h.started_at < %(until)s
  AND (%(feeds)s::text[] IS NULL OR h.feed = ANY(%(feeds)s))
GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 7 DESC, 1, 2, 3, 4, 5, 6 LIMIT %(listed)s
"""
_FILES = """
SELECT h.feed, h.partition_key, f.file_name, f.problem, count(*) OVER ()
FROM batch_audit.import_history AS h JOIN batch_audit.import_file AS f USING (batch_id)
WHERE h.started_at >= %(start)s AND h.started_at < %(until)s AND f.set_aside
  AND (%(feeds)s::text[] IS NULL OR h.feed = ANY(%(feeds)s))
ORDER BY 1, 2, 3 LIMIT %(listed)s
"""


def read(connection: Connection, scope: Scope) -> Content:
    """Read what was set aside.

    Args:
        connection: A connection, in the snapshot of the report.
        scope: What the report is about.

    Returns:
        The content.
    """
    reasons = connection.execute(_REASONS, scope.parameters).fetchall()
    files = connection.execute(_FILES, scope.parameters).fetchall()
    records, replayed, several = reasons[0][8:] if reasons else (0, 0, 0)
    aside = files[0][-1] if files else 0
    figures = (
        Figure("rejects", "Records set aside", records),
        Figure("replayed", "of these loaded after all", replayed),
        Figure("waiting", "still set aside", records - replayed),
        Figure("reasons", "Different reasons", several),
        Figure("files_set_aside", "Files set aside", aside),
    )
    tables = (
        listing(
            "by_reason",
            "Rejects by their first reason",
            ("feed", "table", "column", "SQLSTATE", "constraint", "reason", "records|count",
             "loaded since|count"),
            [row[:8] for row in reasons],
            total=several,
        ),
        listing(
            "files",
            "Files set aside",
            ("feed", "partition", "file", "why"),
            [row[:4] for row in files],
            total=aside,
        ),
    )  # fmt: skip
    return Content(records + aside, figures, tables)
