"""Reading the audit trail for a section: events of the range, with the feed that they are about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg.rows import class_row

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable

    from batch_pipelines.engine.compliance.scope import Scope
    from batch_pipelines.engine.postgres.database import Connection

# audit_event and its partitions by month are read by created_at. An event is about a batch, a feed, or
# something that says its feed in the details.
_EVENTS = """
SELECT e.created_at, e.action, e.status, e.principal_id, f.feed, h.partition_key, e.resource_type,
       e.resource_id, e.details
FROM batch_audit.audit_event AS e
LEFT JOIN batch_audit.import_history AS h
    ON h.batch_id = CASE WHEN e.resource_type = 'batch' AND e.resource_id ~ '^[0-9a-f-]{36}$'
                         THEN e.resource_id::uuid END
CROSS JOIN LATERAL (SELECT coalesce(
    h.feed, CASE e.resource_type WHEN 'feed' THEN e.resource_id END, e.details ->> 'feed')
    AS feed) AS f
WHERE e.created_at >= %(start)s AND e.created_at < %(until)s AND e.action LIKE ANY(%(actions)s)
  AND (%(feeds)s::text[] IS NULL OR f.feed = ANY(%(feeds)s))
ORDER BY e.seq
"""


@dataclass(frozen=True)
class Found:
    """An event, as `audit_event` has it, and the feed and partition that it is about."""

    created_at: dt.datetime
    action: str
    status: str
    principal_id: str
    feed: str | None
    partition_key: str | None
    resource_type: str
    resource_id: str
    details: dict[str, Any]


def events(connection: Connection, scope: Scope, actions: Iterable[str]) -> list[Found]:
    """Read events.

    Args:
        connection: A connection, in the snapshot of the report.
        scope: What the report is about.
        actions: Patterns of LIKE, of which the action fits one.

    Returns:
        The events, oldest first.
    """
    with connection.cursor(row_factory=class_row(Found)) as cursor:
        return cursor.execute(_EVENTS, {**scope.parameters, "actions": [*actions]}).fetchall()
