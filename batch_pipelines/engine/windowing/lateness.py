"""Deliveries that are late: their window is over, `late_after` has passed, and nothing has come.

Each is told once, as an alert in the ledger, which is also where it stands that it is late; the alert is
resolved when the delivery has come. Not here: loading it, which needs nothing special.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from batch_pipelines.engine.alerts import Alert, listed, raise_alert, resolve
from batch_pipelines.engine.monitoring.facts import LATE_DELIVERY

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Collection

    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.windowing.windows import Window, Windows

# A day and a half of hours, a month and a half of days: what was not told by then, nobody waits for.
_WATCHED = 40
_ALERTS = 1000


@dataclass(frozen=True)
class Late:
    """A delivery that is late.

    Attributes:
        window: Its window.
        due: When it should have been there.
    """

    window: Window
    due: dt.datetime


def late_windows(
    windows: Windows, arrived: Collection[str], *, late_after: dt.timedelta, now: dt.datetime
) -> list[Late]:
    """Say which deliveries are late.

    Watched are the newest windows, back to the first of them that has had a delivery: what is before
    it is history that nobody has loaded yet, or was told long ago. Where none had one, the last alone.

    Args:
        windows: The windows.
        arrived: Keys of partitions that have had a delivery, or that have one in landing.
        late_after: How long after its window a delivery is late.
        now: The time, with time zone.

    Returns:
        Those that are late, oldest first.
    """
    over = windows.newest(now - late_after, _WATCHED)
    had = [place for place, window in enumerate(over) if window.key in arrived]
    watched = over[had[0] :] if had else over[-1:]
    return [
        Late(window, window.end + late_after) for window in watched if window.key not in arrived
    ]


def tell_late(
    connection: Connection, feed: Feed, arrived: Collection[str], *, place: str, now: dt.datetime
) -> list[Late]:
    """Raise an alert of each delivery of a feed that is late, and resolve those of what has come.

    Args:
        connection: A connection in autocommit mode.
        feed: A feed with windows of time and `late_after`.
        arrived: Keys of partitions that have had a delivery, or that have one in landing.
        place: Where its deliveries come from, for people.
        now: The time, with time zone.

    Returns:
        Those that are late now, told before or not.
    """
    if feed.windows is None or feed.partitions is None or feed.partitions.late_after is None:
        return []
    for recorded in listed(connection, feed=feed.feed, limit=_ALERTS):
        alert = recorded.alert
        if (
            alert.kind == LATE_DELIVERY
            and recorded.resolved_at is None
            and alert.details["partition"] in arrived
        ):
            resolve(connection, alert.deduplication_key)
    found = late_windows(feed.windows, arrived, late_after=feed.partitions.late_after, now=now)
    for late in found:
        raise_alert(connection, _alert(feed, late, place))
    return found


def _alert(feed: Feed, late: Late, place: str) -> Alert:
    window = late.window
    return Alert(
        kind=LATE_DELIVERY,
        severity="warning",
        feed=feed.feed,
        subject=f"{feed.feed}/{window.key} is late",
        deduplication_key=f"{LATE_DELIVERY}/{feed.feed}/{window.key}",
        occurred_at=late.due,
        details={
            "partition": window.key,
            "window": f"{window.start:%Y-%m-%d %H:%M} to {window.end:%Y-%m-%d %H:%M} UTC",
            "due": f"{late.due:%Y-%m-%d %H:%M} UTC",
            "expected": place,
            "then": "it is loaded by itself when it comes",
        },
    )
