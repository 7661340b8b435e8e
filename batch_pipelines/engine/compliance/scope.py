"""What a report is about: a range of time, and which feeds; nothing is read from the ledger here."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

from batch_pipelines.engine.compliance.model import LISTED
from batch_pipelines.engine.errors import ReportError
from batch_pipelines.engine.feed_parts.partitions import Partitions
from batch_pipelines.engine.windowing.windows import Windows

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from batch_pipelines.engine.feeds import Feed

UNKNOWN: Final = "unknown"
"""Stands for the regulation of a feed that is in the ledger and has no file any more."""
_FIRST_MONTH = dt.date(1970, 1, 1)
_LAST_YEAR = 9998


@dataclass(frozen=True)
class Span:
    """A range of time.

    Attributes:
        name: What people call it: `2026-10`, or `2026-10-05..2026-10-11`.
        start: When it begins, in UTC.
        end: When it is over, in UTC.
        timezone: Whose days and months are meant.
    """

    name: str
    start: dt.datetime
    end: dt.datetime
    timezone: str


@dataclass(frozen=True)
class Scope:
    """What a report is about.

    Attributes:
        span: The range of time.
        as_of: What the ledger knew at this time is told; in UTC.
        regulation: Only feeds under this one, as a feed writes it.
        feed: Only this feed.
        entity_type: Only checksums of this kind of entity.
        regulations: Of each feed that has a file.
    """

    span: Span
    as_of: dt.datetime
    regulation: str | None
    feed: str | None
    entity_type: str | None
    regulations: Mapping[str, tuple[str, ...]]

    @property
    def is_partial(self) -> bool:
        """Whether the range was not over yet."""
        return self.as_of < self.span.end

    @property
    def until(self) -> dt.datetime:
        """Where what is told ends: with the range, or now."""
        return min(self.as_of, self.span.end)

    @property
    def feeds(self) -> list[str] | None:
        """The feeds that are meant; None for all that the ledger has."""
        if self.regulation is None:
            return None if self.feed is None else [self.feed]
        under = [name for name, words in self.regulations.items() if self.regulation in words]
        return sorted(name for name in under if self.feed in {None, name})

    def under(self, feed: str | None) -> tuple[str, ...]:
        """Say under which regulations a feed is; of one without a file nothing is known any more."""
        return () if feed is None else self.regulations.get(feed, (UNKNOWN,))

    @property
    def parameters(self) -> dict[str, Any]:
        """What the statements of all sections are given."""
        return {
            "start": self.span.start,
            "until": self.until,
            "as_of": self.as_of,
            "feeds": self.feeds,
            "entity_type": self.entity_type,
            "timezone": self.span.timezone,
            "listed": LISTED,
        }


def month(key: str, timezone: str) -> Span:
    """Give the range of a month.

    Args:
        key: The month, as in `2026-10`.
        timezone: Whose month, by a name of the IANA.

    Raises:
        ReportError: It is no month.
    """
    window = _months(timezone).window(key)
    if window is None:
        message = f"{key!r} is no month. Expected a year and a month, as in 2026-10."
        raise ReportError(message)
    return Span(key, window.start, window.end, timezone)


def last_month(now: dt.datetime, timezone: str) -> Span | None:
    """Give the last month that is over.

    Args:
        now: The time, with time zone.
        timezone: Whose months, by a name of the IANA.

    Returns:
        Its range; None before the first month of all.
    """
    found = _months(timezone).newest(now, 1)
    return month(found[0].key, timezone) if found else None


def days(first: dt.date, last: dt.date, timezone: str) -> Span:
    """Give the range of some days.

    Args:
        first: The first day.
        last: The last day; all of it belongs to the range.
        timezone: Whose days, by a name of the IANA.

    Raises:
        ReportError: The last is before the first, or either is beyond all calendars.
    """
    if last < first or first < _FIRST_MONTH or last.year > _LAST_YEAR:
        message = (
            f"From {first} to {last} is no range of days. Expected a first day from {_FIRST_MONTH} on, "
            "and a last day that is the same or later."
        )
        raise ReportError(message)
    zone = ZoneInfo(timezone)
    begins, ends = (
        dt.datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(dt.UTC)
        for day in (first, last + dt.timedelta(days=1))
    )
    return Span(f"{first}..{last}", begins, ends, timezone)


def regulations_of(
    feeds: Mapping[str, Feed], everywhere: Iterable[str]
) -> dict[str, tuple[str, ...]]:
    """Say under which regulations each feed is, by what its file says now.

    Args:
        feeds: The feeds by name.
        everywhere: Regulations that all feeds are under.

    Returns:
        The words by feed, each once however it is capitalised: as `compliance.regulation` has it, and
        those of all feeds in capitals.
    """
    found: dict[str, tuple[str, ...]] = {}
    for name, feed in feeds.items():
        also = [word.upper() for word in everywhere]
        spelled = {word.casefold(): word for word in (*also, *feed.compliance.regulation)}
        found[name] = tuple(sorted(spelled.values()))
    return found


def _months(timezone: str) -> Windows:
    return Windows(Partitions(every="month", timezone=timezone, start=_FIRST_MONTH))


def scope(
    span: Span,
    regulations: Mapping[str, tuple[str, ...]],
    as_of: dt.datetime,
    *,
    regulation: str | None = None,
    feed: str | None = None,
    entity_type: str | None = None,
) -> Scope:
    """Say what a report is about.

    Args:
        span: The range of time.
        regulations: Under which regulations each feed is; see `regulations_of`.
        as_of: The time, with time zone.
        regulation: Only feeds under this one, however it is capitalised.
        feed: Only this feed; one without a file may still be in the ledger.
        entity_type: Only checksums of this kind of entity.

    Raises:
        ReportError: No feed is under that regulation, the feed is under another, or the range has not
            begun.
    """
    if as_of <= span.start:
        message = f"{span.name} has not begun: it begins {span.start:%Y-%m-%d %H:%M} UTC."
        raise ReportError(message)
    word = None if regulation is None else _spelled(regulation, regulations)
    if word is not None and feed is not None and word not in regulations.get(feed, ()):
        known = ", ".join(regulations.get(feed, ())) or "no regulation that is known"
        message = (
            f"Feed {feed} is under {known}, not under {word}: such a report would be empty. Leave one "
            "of the two out."
        )
        raise ReportError(message)
    return Scope(span, as_of.astimezone(dt.UTC), word, feed, entity_type, regulations)


def _spelled(regulation: str, regulations: Mapping[str, tuple[str, ...]]) -> str:
    words = {word for several in regulations.values() for word in several}
    for word in sorted(words):
        if word.casefold() == regulation.casefold():
            return word
    message = (
        f"No feed is under the regulation {regulation!r}; known: {', '.join(sorted(words)) or 'none'}. "
        "A feed says it as `compliance.regulation`."
    )
    raise ReportError(message)
