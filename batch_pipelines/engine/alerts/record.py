"""Raising, acknowledging, resolving and listing alerts: rows of the ledger, nothing is sent here."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from psycopg.rows import dict_row
from psycopg.types.json import Json

from batch_pipelines.engine.alerts.alert import Alert, Delivery, Recorded
from batch_pipelines.engine.errors import AlertError
from batch_pipelines.engine.ledger.events import Event, append

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batch_pipelines.engine.postgres.database import Connection

_RAISE = """
INSERT INTO batch_audit.alert (deduplication_key, kind, severity, feed, batch_id, subject, details,
    channels, escalate_after, escalate_to, occurred_at, raised_at)
SELECT %(key)s, %(kind)s, %(severity)s, %(feed)s, %(batch_id)s, %(subject)s, %(details)s, %(channels)s,
       %(escalate_after)s, %(escalate_to)s, coalesce(%(occurred_at)s, raised_at), raised_at
FROM (SELECT coalesce(%(raised_at)s, clock_timestamp()) AS raised_at) AS now
ON CONFLICT (deduplication_key) DO NOTHING
RETURNING alert_id
"""
_SILENT = """
UPDATE batch_audit.alert SET routed_at = clock_timestamp()
WHERE deduplication_key = %s AND routed_at IS NULL
"""
_RESOLVE = """
UPDATE batch_audit.alert SET resolved_at = clock_timestamp()
WHERE deduplication_key = %s AND resolved_at IS NULL
"""
_ACKNOWLEDGE = """
UPDATE batch_audit.alert
SET acknowledged_at = clock_timestamp(), acknowledged_by = %s, acknowledgement_note = %s
WHERE alert_id = %s AND acknowledged_at IS NULL
"""
_LIST = """
SELECT alert_id, deduplication_key, kind, severity, feed, batch_id::text, subject, details, channels,
       escalate_after, escalate_to, occurred_at, raised_at, escalated_at, acknowledged_at,
       acknowledged_by, acknowledgement_note, resolved_at,
       (SELECT h.status FROM batch_audit.import_history AS h
        WHERE h.batch_id = a.batch_id) AS batch_status
FROM batch_audit.alert AS a
WHERE (%(alert_id)s::bigint IS NULL OR alert_id = %(alert_id)s)
  AND (%(feed)s::text IS NULL OR feed = %(feed)s)
  AND (NOT %(open)s OR (severity <> 'info' AND acknowledged_at IS NULL AND resolved_at IS NULL))
ORDER BY raised_at DESC, alert_id DESC LIMIT %(limit)s
"""
_DELIVERIES = """
SELECT alert_id, channel, escalation, status, attempts, sent_at, error_details
FROM batch_audit.alert_delivery WHERE alert_id = ANY(%s) ORDER BY alert_id, escalation, channel
"""


def raise_alert(connection: Connection, alert: Alert) -> bool:
    """Write an alert down, for the sender to tell.

    In a transaction it counts with it: an alert of something that is not committed is not told. What
    must be told of a failure is therefore raised outside the transaction that fails.

    Args:
        connection: A connection, inside a transaction or not.
        alert: The alert.

    Returns:
        Whether it is new; False where its deduplication key is in the ledger already.
    """
    values = {
        "key": alert.deduplication_key,
        "kind": alert.kind,
        "severity": alert.severity,
        "feed": alert.feed,
        "batch_id": alert.batch_id,
        "subject": alert.subject,
        "details": Json(dict(alert.details)),
        "channels": list(alert.channels),
        "escalate_after": alert.escalate_after,
        "escalate_to": list(alert.escalate_to),
        "occurred_at": alert.occurred_at,
        "raised_at": alert.raised_at,
    }
    return connection.execute(_RAISE, values).fetchone() is not None


def keep_silent(connection: Connection, deduplication_key: str) -> None:
    """Keep an alert in the ledger and send it nowhere, because another one tells of the same.

    Args:
        connection: A connection, inside the transaction in which it was raised.
        deduplication_key: The alert's.
    """
    connection.execute(_SILENT, (deduplication_key,))


def resolve(connection: Connection, deduplication_key: str) -> None:
    """Say that the cause of an alert is gone: it is no longer open, and is not escalated.

    Args:
        connection: A connection.
        deduplication_key: The alert's; one that was never raised is left alone.
    """
    connection.execute(_RESOLVE, (deduplication_key,))


def acknowledge(
    connection: Connection, alert_id: int, *, by: str, note: str | None = None
) -> Recorded:
    """Write down that somebody has seen an alert: it is no longer open, and is not escalated.

    Args:
        connection: A connection.
        alert_id: The alert.
        by: Who.
        note: What he has to say of it.

    Returns:
        The alert. Where somebody was first, his name and note stand.

    Raises:
        AlertError: There is no such alert.
    """
    with connection.transaction():
        if connection.execute(_ACKNOWLEDGE, (by, note, alert_id)).rowcount:
            told = Event(by, "alert.acknowledged", "SUCCESS", "alert", str(alert_id))
            append(connection, told)
    return find(connection, alert_id)


def find(connection: Connection, alert_id: int) -> Recorded:
    """Read an alert.

    Args:
        connection: A connection.
        alert_id: Its number.

    Returns:
        The alert.

    Raises:
        AlertError: There is none of this number.
    """
    found = _read(connection, alert_id=alert_id, limit=1)
    if not found:
        message = f"There is no alert {alert_id}; `batch-pipelines alerts` lists them."
        raise AlertError(message)
    return found[0]


def listed(
    connection: Connection, *, feed: str | None = None, open_only: bool = False, limit: int = 100
) -> list[Recorded]:
    """List alerts, newest first.

    Args:
        connection: A connection.
        feed: Only those of this feed.
        open_only: Only those that nobody has acknowledged and whose cause is not gone.
        limit: How many at most.

    Returns:
        The alerts.
    """
    return _read(connection, feed=feed, open_only=open_only, limit=limit)


def _read(
    connection: Connection,
    *,
    alert_id: int | None = None,
    feed: str | None = None,
    open_only: bool = False,
    limit: int,
) -> list[Recorded]:
    wanted = {"alert_id": alert_id, "feed": feed, "open": open_only, "limit": limit}
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(_LIST, wanted).fetchall()
    told = _deliveries(connection, [row["alert_id"] for row in rows])
    return [_recorded(row, told[row["alert_id"]]) for row in rows]


def _deliveries(connection: Connection, alerts: list[int]) -> dict[int, list[Delivery]]:
    found: dict[int, list[Delivery]] = defaultdict(list)
    for alert_id, *rest in connection.execute(_DELIVERIES, (alerts,)):
        found[alert_id].append(Delivery(*rest))
    return found


def _recorded(row: dict[str, Any], deliveries: Iterable[Delivery]) -> Recorded:
    row |= {name: tuple(row[name]) for name in ("channels", "escalate_to")}
    of_alert = {each.name: row.pop(each.name) for each in fields(Alert)}
    return Recorded(alert=Alert(**of_alert), deliveries=tuple(deliveries), **row)
