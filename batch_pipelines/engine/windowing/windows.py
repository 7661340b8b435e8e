"""Windows of time: which ones a feed has, their keys, and which are over. Nothing is launched here.

Dagster has the same windows under the same keys (`partitions.feed_partitions`); tests hold the two
together, over time zones and their changes of the clock.
"""

from __future__ import annotations

import datetime as dt
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batch_pipelines.engine.feed_parts.partitions import Partitions

_HOUR, _DAY, _WEEK = dt.timedelta(hours=1), dt.timedelta(days=1), dt.timedelta(days=7)


@dataclass(frozen=True)
class Window:
    """A window of time.

    Attributes:
        key: Its partition key.
        start: When it begins; in UTC, as times of one other zone compare by what the clock shows.
        end: When it is over, and the next one begins; in UTC. A day has 23, 24 or 25 hours.
    """

    key: str
    start: dt.datetime
    end: dt.datetime


@dataclass(frozen=True)
class Windows:
    """The windows of a feed.

    Attributes:
        said: What the feed says of them.
    """

    said: Partitions

    @functools.cached_property
    def first(self) -> Window:
        """The first one."""
        day = self.said.start
        if self.said.every == "week":
            day += dt.timedelta(days=-day.weekday() % 7)
        elif self.said.every == "month" and day.day > 1:
            day = _next_month(day)
        return self._at(self._midnight(day))

    def window(self, key: str) -> Window | None:
        """Find the window that a key names.

        Args:
            key: Any text.

        Returns:
            The window, over or not; None where the key is not that of any.
        """
        try:
            start = self._begins(key)
            found = None if start is None else self._at(self._floor(start))
        except OverflowError:
            # At the end of all dates.
            return None
        # A key has one spelling, and a week one day by which it goes.
        is_one = found is not None and found.key == key and found.start >= self.first.start
        return found if is_one else None

    def after(self, window: Window) -> Iterator[Window]:
        """List the windows behind one, for ever.

        Args:
            window: The one.

        Yields:
            The next one, and so on.
        """
        while True:
            window = self._at(window.end)
            yield window

    def newest(self, now: dt.datetime, most: int) -> list[Window]:
        """List the last windows that are over.

        Args:
            now: The time, with time zone.
            most: How many.

        Returns:
            The windows, oldest first.
        """
        found: list[Window] = []
        ends = self._floor(now)
        while len(found) < most and ends > self.first.start:
            # A moment before its end is in a window, however long that one is.
            window = self._at(self._floor(ends - dt.timedelta(microseconds=1)))
            found.append(window)
            ends = window.start
        return found[::-1]

    @functools.cached_property
    def _zone(self) -> ZoneInfo:
        return ZoneInfo(self.said.timezone)

    def _at(self, start: dt.datetime) -> Window:
        """Make the window that begins at a time."""
        local = start.astimezone(self._zone)
        if self.said.every == "hour":
            end = start + _HOUR
        else:
            # Where a day has no midnight it begins later; it is the same day.
            day = local.date()
            end = self._midnight(
                _next_month(day)
                if self.said.every == "month"
                else day + (_WEEK if self.said.every == "week" else _DAY)
            )
        return Window(self._key(local), start, end)

    def _midnight(self, day: dt.date) -> dt.datetime:
        """Give the time with which a day begins; where there is no midnight, the first after it."""
        return dt.datetime(day.year, day.month, day.day, tzinfo=self._zone).astimezone(dt.UTC)

    def _floor(self, time: dt.datetime) -> dt.datetime:
        """Give the beginning of the window that a time is in."""
        local = time.astimezone(self._zone)
        if self.said.every == "hour":
            past = dt.timedelta(
                minutes=local.minute, seconds=local.second, microseconds=local.microsecond
            )
            # Not by the clock on the wall, on which an hour comes twice, or not at all.
            return time.astimezone(dt.UTC) - past
        day = local.date()
        if self.said.every == "week":
            day -= dt.timedelta(days=day.weekday())
        elif self.said.every == "month":
            day = day.replace(day=1)
        return self._midnight(day)

    def _key(self, local: dt.datetime) -> str:
        form = self.said.key_format
        # As Dagster does it: of two hours with one name the second says which it is.
        if self.said.every == "hour" and local.fold and "%z" not in form:
            form += "%z"
        return local.strftime(form)

    def _begins(self, key: str) -> dt.datetime | None:
        """Read the time in a key."""
        for form in (self.said.key_format, f"{self.said.key_format}%z"):
            try:
                found = dt.datetime.strptime(key, form)  # noqa: DTZ007  # the zone is the feed's
            except ValueError:
                continue
            return (found if found.tzinfo else found.replace(tzinfo=self._zone)).astimezone(dt.UTC)
        return None


def _next_month(day: dt.date) -> dt.date:
    return (day.replace(day=1) + dt.timedelta(days=32)).replace(day=1)
