"""Which windows of time are to be launched: by their schedule, or because their delivery came late.

Both ask here, so that they do not launch a window twice: a schedule looks the moment a window is over,
and the landing sensor a while after.
"""

from __future__ import annotations

import datetime as dt
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from batch_pipelines.engine.errors import DeliveryError

if TYPE_CHECKING:
    from collections.abc import Collection

    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.windowing.windows import Windows

# By then a schedule's tick has made its run, which the sensor sees.
_LEFT_TO_SCHEDULE = dt.timedelta(minutes=1)
# A schedule that was down for longer leaves the rest to the sensor, or to a backfill.
_MISSED = 100
_NAMED = 5


def due(windows: Windows, known: Collection[str], *, now: dt.datetime) -> list[str]:
    """Say which windows a schedule looks for: the one that has just ended, and those it has missed.

    Missed are those behind the newest one that has had a batch; older gaps may be meant.

    Args:
        windows: The windows.
        known: Keys of partitions that have had a batch.
        now: The time for which the schedule looks, with time zone.

    Returns:
        Their keys, oldest first.
    """
    over = [window.key for window in windows.newest(now, _MISSED)]
    had = [place for place, key in enumerate(over) if key in known]
    return over[had[-1] + 1 :] if had else over[-1:]


@dataclass
class Sieve:
    """What a landing sensor looks at of a feed with windows: those that are over for a while.

    Attributes:
        windows: The windows.
        now: The time, with time zone.
        no_windows: Keys in landing that are of no window, as they are met.
    """

    windows: Windows
    now: dt.datetime
    no_windows: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, feed: Feed, now: dt.datetime) -> Sieve | None:
        """Make it for a feed; None where partitions are discovered."""
        return None if feed.windows is None else cls(feed.windows, now)

    def lets_through(self, key: str) -> bool:
        """Say whether a partition is looked at.

        Args:
            key: Its key.
        """
        found = self.windows.window(key)
        if found is None:
            self.no_windows.add(key)
        return found is not None and found.end + _LEFT_TO_SCHEDULE <= self.now

    def told(self) -> list[str]:
        """Say what was passed over, for people.

        Returns:
            Sentences; none where nothing was.
        """
        if not self.no_windows:
            return []
        some = ", ".join(sorted(self.no_windows)[:_NAMED])
        said = self.windows.said
        message = (
            f"{len(self.no_windows)} are of no {said.every} of this feed ({some}): expected "
            f"{said.key_format}, in {said.timezone}, from {self.windows.first.key} on. Rename them."
        )
        return [message]


def over(windows: Windows, keys: Collection[str], *, now: dt.datetime) -> list[str]:
    """Say which keys are those of windows that are over.

    Args:
        windows: The windows.
        keys: Partition keys.
        now: The time, with time zone.

    Returns:
        Those keys, in the same order.
    """
    return [key for key in keys if (found := windows.window(key)) and found.end <= now]


def require_over(feed: Feed, key: str, *, now: dt.datetime) -> None:
    """Refuse a key that is not that of a window which is over; any key is right in other feeds.

    Args:
        feed: The feed.
        key: A valid partition key.
        now: The time, with time zone.

    Raises:
        DeliveryError: It is not, with the last one that is.
    """
    windows = feed.windows
    if windows is None:
        return
    found = windows.window(key)
    if found is not None and found.end <= now:
        return
    said = windows.said
    last = windows.newest(now, 1)
    example = f" The last one that is over is {last[0].key}." if last else ""
    if found is not None:
        message = (
            f"{feed.feed}/{key}: this {said.every} is not over before {found.end:%Y-%m-%d %H:%M} UTC; "
            f"import it then.{example}"
        )
    else:
        message = (
            f"{feed.feed}/{key}: {shlex.quote(key)} is no {said.every} of this feed. Expected "
            f"{said.key_format}, in {said.timezone}, from {windows.first.key} on.{example}"
        )
    raise DeliveryError(message)
