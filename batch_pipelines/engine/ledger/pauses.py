"""Feeds that are paused: no new batch of theirs is begun, whoever asks for it."""

from __future__ import annotations

import datetime as dt  # noqa: TC003
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.rows import class_row

from batch_pipelines.engine.errors import FeedPausedError
from batch_pipelines.engine.ledger.events import Event, append

if TYPE_CHECKING:
    from batch_pipelines.engine.postgres.database import Connection

_PAUSE = """
INSERT INTO batch_audit.feed_pause (feed, reason, paused_by) VALUES (%s, %s, %s)
ON CONFLICT (feed) WHERE resumed_at IS NULL DO NOTHING
"""
_RESUME = """
UPDATE batch_audit.feed_pause SET resumed_by = %s, resumed_at = clock_timestamp()
WHERE feed = %s AND resumed_at IS NULL RETURNING feed, reason, paused_by, paused_at
"""
_PAUSED = """
SELECT feed, reason, paused_by, paused_at FROM batch_audit.feed_pause
WHERE resumed_at IS NULL AND (%(feed)s::text IS NULL OR feed = %(feed)s) ORDER BY feed
"""
_TIMES = "SELECT count(*) FROM batch_audit.feed_pause WHERE feed = %s"
_RESUMED_AT = "SELECT max(resumed_at) FROM batch_audit.feed_pause WHERE feed = %s"


@dataclass(frozen=True)
class Pause:
    """A feed that is paused.

    Attributes:
        feed: The feed.
        reason: Why.
        paused_by: Who, or what.
        paused_at: Since when, with time zone.
    """

    feed: str
    reason: str
    paused_by: str
    paused_at: dt.datetime

    def __str__(self) -> str:
        """Say it in a sentence, with what to do."""
        return (
            f"Feed {self.feed} is paused since {self.paused_at:%Y-%m-%d %H:%M:%S %Z}, by "
            f"{self.paused_by}: {self.reason}. No batch of it is begun until somebody types: "
            f"batch-pipelines feeds resume {self.feed}"
        )


def pause(connection: Connection, feed: str, *, by: str, reason: str) -> bool:
    """Pause a feed.

    Args:
        connection: A connection, inside a transaction or not.
        feed: The feed.
        by: Who, or what.
        reason: Why.

    Returns:
        Whether it was not paused before; the first reason stands.
    """
    with connection.transaction():
        new = connection.execute(_PAUSE, (feed, reason, by)).rowcount == 1
        if new:
            told = Event(by, "feed.paused", "SUCCESS", "feed", feed, details={"reason": reason})
            append(connection, told)
    return new


def resume(connection: Connection, feed: str, *, by: str) -> Pause | None:
    """Let a feed go on.

    Args:
        connection: A connection.
        feed: The feed.
        by: Who.

    Returns:
        The pause that is over; None where it was not paused.
    """
    with connection.transaction(), connection.cursor(row_factory=class_row(Pause)) as cursor:
        over = cursor.execute(_RESUME, (by, feed)).fetchone()
        if over is not None:
            append(connection, Event(by, "feed.resumed", "SUCCESS", "feed", feed))
    return over


def paused(connection: Connection) -> dict[str, Pause]:
    """List the feeds that are paused, by name."""
    with connection.cursor(row_factory=class_row(Pause)) as cursor:
        return {found.feed: found for found in cursor.execute(_PAUSED, {"feed": None})}


def pause_of(connection: Connection, feed: str) -> Pause | None:
    """Say whether a feed is paused, and why."""
    with connection.cursor(row_factory=class_row(Pause)) as cursor:
        return cursor.execute(_PAUSED, {"feed": feed}).fetchone()


def times_paused(connection: Connection, feed: str) -> int:
    """Count how often a feed was paused, a pause that is not over included."""
    row = connection.execute(_TIMES, (feed,)).fetchone()
    return 0 if row is None else int(row[0])


def resumed_at(connection: Connection, feed: str) -> dt.datetime | None:
    """Say when a feed was last resumed; None where it never was paused."""
    row = connection.execute(_RESUMED_AT, (feed,)).fetchone()
    return None if row is None else row[0]


def require_running(connection: Connection, feed: str) -> None:
    """Refuse to begin anything of a feed that is paused.

    Args:
        connection: A connection.
        feed: The feed.

    Raises:
        FeedPausedError: It is paused; the message says why and how to resume it.
    """
    found = pause_of(connection, feed)
    if found is not None:
        raise FeedPausedError(str(found))
