"""Windows of time: their keys and bounds, held against Dagster's over zones that set their clocks."""

from __future__ import annotations

import datetime as dt
from itertools import islice
from typing import Any

import dagster as dg
import pydantic
import pytest

from batch_pipelines.engine.feed_parts.partitions import Partitions
from batch_pipelines.engine.feeds import Feed, is_key
from batch_pipelines.engine.windowing.windows import Windows
from batch_pipelines.partitions import feed_partitions

# Clocks set at night, at midnight (days without one, and with two), by two hours, never; offsets of
# a half and of three quarters of an hour.
ZONES = [
    "Europe/Vienna", "America/Havana", "Africa/Cairo", "America/Santiago", "Antarctica/Troll", "UTC",
    "Asia/Kolkata", "Asia/Kathmandu", "Africa/Casablanca",
]  # fmt: skip


def said(every: str, zone: str = "Europe/Vienna", **more: Any) -> Partitions:
    start = {"start": dt.date(2025, 9, 3)}
    return Partitions.model_validate(start | {"every": every, "timezone": zone} | more)


def utc(*parts: int) -> dt.datetime:
    return dt.datetime(*parts, tzinfo=dt.UTC)  # type: ignore[misc,arg-type]


@pytest.mark.parametrize("zone", ZONES)
def test_they_are_those_of_dagster(zone: str) -> None:
    for every in ("hour", "day", "week", "month"):
        source = {"path": "landing/{batch}/*"}
        partitions = said(every, zone).model_dump()
        feed = Feed.model_validate(
            {"feed": "f", "source": source, "tables": "none", "partitions": partitions}
        )
        theirs = feed_partitions(feed)
        assert isinstance(theirs, dg.TimeWindowPartitionsDefinition)
        assert feed.windows is not None
        now = utc(2026, 5, 1, 12, 30)
        mine = feed.windows.newest(now, 100_000)
        assert [w.key for w in mine] == [*theirs.get_partition_keys(current_time=now)]
        assert len({w.key for w in mine}) == len(mine)
        for window in mine if every != "hour" else mine[::7]:
            bounds = theirs.time_window_for_partition_key(window.key)
            assert window.start.timestamp() == bounds.start.timestamp()
            assert window.end.timestamp() == bounds.end.timestamp()
            assert feed.windows.window(window.key) == window
            assert is_key(window.key)


def test_a_day_has_23_24_or_25_hours() -> None:
    windows = Windows(said("day"))
    hours = {
        key: (found.end - found.start) / dt.timedelta(hours=1)
        for key in ("2025-10-25", "2025-10-26", "2026-03-29")
        if (found := windows.window(key))
    }
    assert hours == {"2025-10-25": 24, "2025-10-26": 25, "2026-03-29": 23}


def test_an_hour_that_comes_twice_has_two_keys() -> None:
    windows = Windows(said("hour"))
    first = windows.window("2025-10-26-01")
    assert first is not None
    keys = [window.key for window in islice(windows.after(first), 3)]
    assert keys == ["2025-10-26-02", "2025-10-26-02+0100", "2025-10-26-03"]
    second = windows.window("2025-10-26-02+0100")
    assert second is not None
    assert second.start == utc(2025, 10, 26, 1)
    # An hour that the clock skips is none.
    assert windows.window("2026-03-29-02") is None
    assert windows.window("2026-03-29-03") is not None


def test_a_key_may_say_the_offset_of_each_hour() -> None:
    windows = Windows(said("hour", format="%Y%m%dT%H%z"))
    window = windows.window("20251026T02+0200")
    assert window is not None
    assert next(windows.after(window)).key == "20251026T02+0100"
    assert windows.window("20251026T02+0300") is None


@pytest.mark.parametrize(
    ("every", "first"),
    [
        ("hour", "2025-09-03-00"),
        ("day", "2025-09-03"),
        ("week", "2025-09-08"),
        ("month", "2025-10"),
    ],
)
def test_the_first_begins_on_the_start_or_after_it(every: str, first: str) -> None:
    windows = Windows(said(every))
    assert windows.first.key == first
    before = windows.first.start - dt.timedelta(seconds=1)
    assert windows.newest(before, 5) == []
    assert windows.newest(windows.first.end - dt.timedelta(seconds=1), 5) == []
    assert windows.newest(windows.first.end, 5) == [windows.first]


@pytest.mark.parametrize(
    "key",
    [
        "", "2025-9-4", "2025-09-04 ", "2025-09-31", "2025-09-02", "2025-09", "20250904", "9999-12-31",
        "2025-09-04+0200", "odd",
    ],
)  # fmt: skip
def test_what_is_no_key_of_a_window_is_none(key: str) -> None:
    assert Windows(said("day")).window(key) is None


def test_a_week_goes_by_its_monday_and_a_month_by_its_first_day() -> None:
    assert Windows(said("week")).window("2025-09-10") is None
    assert Windows(said("week")).window("2025-09-08") is not None
    months = Windows(said("month", format="%Y-%m-%d"))
    assert months.window("2025-10-02") is None
    assert months.window("2025-10-01") is not None


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"every": "minute"}, "every"),
        ({"timezone": "Europe/Wien"}, "is no time zone"),
        ({"timezone": "../etc/passwd"}, "is no time zone"),
        ({"start": "yesterday"}, "start"),
        ({"start": dt.datetime(2026, 1, 1, 6)}, "a day without a time"),  # noqa: DTZ001
        ({"late_after": "2 hours"}, "90m, 2h or 1d"),
        ({"late_after": 7}, "90m, 2h or 1d"),
        ({"format": "%Y-%m"}, "every day from every other"),
        ({"format": "%Y-%m-%d %H:%M"}, "name of a folder"),
        ({"format": "%d/%m/%Y"}, "name of a folder"),
        ({"every": "hour", "format": "%Y-%m-%d"}, "every hour from every other"),
        ({"every": "hour", "timezone": "Australia/Lord_Howe"}, "part of an hour"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_what_a_feed_may_not_say(wrong: dict[str, object], why: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=why):
        said(**({"every": "day"} | wrong))  # type: ignore[arg-type]


def test_what_is_said_can_be_written_again() -> None:
    first = said("day", late_after="2h", format="dt=%Y-%m-%d")
    assert first.late_after == dt.timedelta(hours=2)
    assert Partitions.model_validate(first.model_dump(mode="json")) == first


def test_no_two_feeds_have_the_same_partitions() -> None:
    """Given two feeds that say the same, a run is of one of them all the same."""
    source = {"path": "landing/{batch}/*"}
    same = {"source": source, "tables": "none", "partitions": said("day").model_dump()}
    one, other = (
        feed_partitions(Feed.model_validate(same | {"feed": name})) for name in ("one", "other")
    )
    assert one != other
    assert one.get_partition_keys() == other.get_partition_keys()
