"""Keys of long-archived partitions, which Dagster need not list any more; the ledger keeps all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from psycopg.rows import scalar_row

from batch_pipelines.engine.ledger import events

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence

    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.retention.record import Course

# A key goes with the whole partition: where anything but a duplicate came after what was archived,
# somebody is at work there.
_RETIRED: Final = """
SELECT partition_key FROM batch_audit.import_history AS h WHERE feed = %(feed)s
GROUP BY partition_key
HAVING bool_or(status = 'ARCHIVED')
   AND bool_and(status IN ('ARCHIVED', 'SUPERSEDED', 'ROLLED_BACK', 'FAILED', 'DUPLICATE'))
   AND max(archived_at) + %(keep)s::interval <= %(now)s
   AND max(attempt) FILTER (WHERE status <> 'DUPLICATE')
       = max(attempt) FILTER (WHERE status = 'ARCHIVED')
ORDER BY 1
"""


def retired_keys(connection: Connection, feed: Feed, now: dt.datetime) -> list[str]:
    """List the keys of a feed that Dagster need not know any more.

    Args:
        connection: A connection.
        feed: The feed.
        now: The time.

    Returns:
        The keys of partitions that were archived so long ago as the feed says; none where it says
        nothing, or its partitions are windows of time, which are there by themselves.
    """
    said = feed.retention.partitions
    if said is None or feed.partitions is not None:
        return []
    wanted = {"feed": feed.feed, "keep": said.keep, "now": now}
    with connection.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(_RETIRED, wanted).fetchall()


def record_retired(connection: Connection, course: Course, feed: Feed, keys: Sequence[str]) -> None:
    """Write down that Dagster has forgotten keys."""
    details: dict[str, object] = {"feed": feed.feed, "keys": [*keys]}
    with connection.transaction():
        events.append(connection, course.event("partitions.retired", "SUCCESS", details, feed=feed))
