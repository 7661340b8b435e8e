"""Legal holds: what must not be deleted, whatever a rule says.

Whoever deletes locks the table of holds against new ones, looks, and commits before it lets go. So a
hold that is set meanwhile waits for that one deletion and stops all others; one that was set before is
always seen. The lock is the table's own, so it holds for a hold that is typed in psql, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.rows import class_row, scalar_row

from batch_pipelines.engine.errors import HoldError
from batch_pipelines.engine.ledger import events

if TYPE_CHECKING:
    import datetime as dt

    from batch_pipelines.engine.postgres.database import Connection


@dataclass(frozen=True)
class Scope:
    """What a hold is over: one batch; or all that a feed and a range of dates say, which may be all.

    Attributes:
        batch_id: The batch.
        feed: Only batches of this feed.
        since: Only batches that were worked on at or after this.
        until: Only batches that were worked on before this.
    """

    batch_id: str | None = None
    feed: str | None = None
    since: dt.datetime | None = None
    until: dt.datetime | None = None

    def __str__(self) -> str:
        if self.batch_id is not None:
            return f"batch {self.batch_id}"
        parts = [f"feed {self.feed}"] if self.feed is not None else ["all feeds"]
        parts += [f"since {self.since:%Y-%m-%d %H:%M}"] if self.since is not None else []
        parts += [f"until {self.until:%Y-%m-%d %H:%M}"] if self.until is not None else []
        return ", ".join(parts)


@dataclass(frozen=True)
class Hold:
    """A legal hold; times with time zone.

    Attributes:
        hold_id: Its number.
        batch_id, feed, since, until: What it is over; see `Scope`.
        reason: Why it was set.
        set_by: Who set it.
        set_at: When.
        lift_reason: Why it was lifted; None while it holds.
        lifted_by: Who lifted it.
        lifted_at: When.
    """

    hold_id: int
    batch_id: str | None
    feed: str | None
    since: dt.datetime | None
    until: dt.datetime | None
    reason: str
    set_by: str
    set_at: dt.datetime
    lift_reason: str | None
    lifted_by: str | None
    lifted_at: dt.datetime | None

    @property
    def scope(self) -> Scope:
        """What it is over."""
        return Scope(self.batch_id, self.feed, self.since, self.until)

    def __str__(self) -> str:
        return f"legal hold {self.hold_id} ({self.reason}), set by {self.set_by}"


_COLUMNS = """
SELECT l.hold_id, l.batch_id::text, l.feed, l.since, l.until, l.reason, l.set_by, l.set_at,
       l.lift_reason, l.lifted_by, l.lifted_at
FROM batch_audit.legal_hold AS l
"""
# A batch is held that was worked on at any moment of the time that the hold names.
_OVER = """
l.lifted_at IS NULL AND (l.batch_id IS NULL OR l.batch_id = h.batch_id)
AND (l.feed IS NULL OR l.feed = h.feed)
AND (l.since IS NULL OR coalesce(h.completed_at, h.published_at, h.started_at) >= l.since)
AND (l.until IS NULL OR h.started_at < l.until)
"""
_OF_BATCH = (
    _COLUMNS
    + "JOIN batch_audit.import_history AS h ON "
    + _OVER
    + "WHERE h.batch_id = %s ORDER BY 1"
)
_LIST = _COLUMNS + "WHERE %s OR l.lifted_at IS NULL ORDER BY 1"
_BY_ID = _COLUMNS + "WHERE l.hold_id = %s"
_SET = """
INSERT INTO batch_audit.legal_hold (batch_id, feed, since, until, reason, set_by)
VALUES (%s, %s, %s, %s, %s, %s) RETURNING hold_id
"""
_LIFT = """
UPDATE batch_audit.legal_hold
SET lift_reason = %s, lifted_by = %s, lifted_at = clock_timestamp()
WHERE hold_id = %s AND lifted_at IS NULL
"""
# Against those that write to it, not against each other. It takes no snapshot: what is read behind
# it, in a transaction of any isolation, sees every hold that was set before.
_LOCK = "LOCK TABLE batch_audit.legal_hold IN SHARE MODE"
# A deletion of a large batch takes minutes, and a hold waits for it.
_WAIT = "SELECT set_config('lock_timeout', '2h', true)"


def set_hold(connection: Connection, scope: Scope, *, reason: str, by: str) -> Hold:
    """Set a hold; from the moment this returns, nothing that it is over is deleted.

    Args:
        connection: A connection in autocommit mode.
        scope: What it is over.
        reason: Why.
        by: Who sets it.

    Returns:
        The hold.

    Raises:
        HoldError: There is no reason, or the range of dates is empty.
    """
    _require_reason(reason)
    if scope.since is not None and scope.until is not None and scope.since >= scope.until:
        message = f"A hold over {scope} is over nothing: its end must be later than its beginning."
        raise HoldError(message)
    wanted = (scope.batch_id, scope.feed, scope.since, scope.until, reason.strip(), by)
    with connection.transaction(), connection.cursor(row_factory=scalar_row) as cursor:
        cursor.execute(_WAIT)
        hold_id = cursor.execute(_SET, wanted).fetchone()
        events.append(connection, _event("hold.set", hold_id, scope, reason, by))
    return by_id(connection, int(hold_id or 0))


def lift_hold(connection: Connection, hold_id: int, *, reason: str, by: str) -> Hold:
    """Lift a hold: rules apply again to what it was over. It stays on record.

    Args:
        connection: A connection in autocommit mode.
        hold_id: Its number.
        reason: Why.
        by: Who lifts it.

    Returns:
        The hold.

    Raises:
        HoldError: There is no such hold, it is lifted already, or there is no reason.
    """
    _require_reason(reason)
    with connection.transaction():
        hold = by_id(connection, hold_id)
        connection.execute(_WAIT)
        if not connection.execute(_LIFT, (reason.strip(), by, hold_id)).rowcount:
            message = f"Hold {hold_id} was lifted already, by {hold.lifted_by}: {hold.lift_reason}."
            raise HoldError(message)
        events.append(connection, _event("hold.lifted", hold_id, hold.scope, reason, by))
    return by_id(connection, hold_id)


def by_id(connection: Connection, hold_id: int) -> Hold:
    """Read a hold by its number.

    Raises:
        HoldError: There is none.
    """
    with connection.cursor(row_factory=class_row(Hold)) as cursor:
        found = cursor.execute(_BY_ID, (hold_id,)).fetchone()
    if found is None:
        message = f"There is no hold {hold_id}. `batch-pipelines hold list --all` lists them."
        raise HoldError(message)
    return found


def listed(connection: Connection, *, lifted: bool = False) -> list[Hold]:
    """List the holds, the oldest first; those that were lifted, too, if asked."""
    with connection.cursor(row_factory=class_row(Hold)) as cursor:
        return cursor.execute(_LIST, (lifted,)).fetchall()


def over(connection: Connection, batch_id: str) -> list[Hold]:
    """List the holds that are over a batch now."""
    with connection.cursor(row_factory=class_row(Hold)) as cursor:
        return cursor.execute(_OF_BATCH, (batch_id,)).fetchall()


def lock_holds(connection: Connection) -> None:
    """Let no hold be set before the end of the transaction; the first that a deletion does.

    Args:
        connection: A connection inside a transaction that has read nothing yet.
    """
    connection.execute(_LOCK)


def _require_reason(reason: str) -> None:
    if not reason.strip():
        message = "A hold is set and lifted with a reason; say why."
        raise HoldError(message)


def _event(action: str, hold_id: object, scope: Scope, reason: str, by: str) -> events.Event:
    details = {"scope": str(scope), "reason": reason.strip()}
    return events.Event(by, action, "SUCCESS", "hold", str(hold_id), details=details)
