"""Which windows are launched, by whom, and which are refused."""

from __future__ import annotations

import datetime as dt

import pytest

from batch_pipelines.engine.errors import DeliveryError
from batch_pipelines.engine.feed_parts.partitions import Partitions
from batch_pipelines.engine.feeds import Feed
from batch_pipelines.engine.windowing.timetable import Sieve, due, over, require_over
from batch_pipelines.engine.windowing.windows import Windows

NOW = dt.datetime(2026, 6, 9, 22, tzinfo=dt.UTC)  # midnight in Vienna
PARTITIONS = {"every": "day", "timezone": "Europe/Vienna", "start": "2026-06-01"}
DAYS = Windows(Partitions.model_validate(PARTITIONS))
LAST, BEFORE = "2026-06-09", "2026-06-08"


def feed(**more: object) -> Feed:
    source = {"path": "landing/{batch}/*"}
    return Feed.model_validate({"feed": "f", "source": source, "tables": "none"} | more)


def test_a_schedule_looks_for_the_window_that_has_just_ended() -> None:
    assert due(DAYS, (), now=NOW) == [LAST]
    assert due(DAYS, (BEFORE,), now=NOW) == [LAST]
    assert due(DAYS, (LAST,), now=NOW) == []
    assert due(DAYS, (), now=NOW - dt.timedelta(seconds=1)) == [BEFORE]


def test_windows_that_a_schedule_has_missed_come_with_the_next() -> None:
    assert due(DAYS, ("2026-06-06",), now=NOW) == ["2026-06-07", BEFORE, LAST]
    # A gap before the newest one may be meant.
    assert due(DAYS, ("2026-06-03", BEFORE), now=NOW) == [LAST]


def test_a_history_of_other_keys_does_not_matter() -> None:
    assert due(DAYS, ("odd", "2026-06"), now=NOW) == [LAST]


def test_the_sensor_leaves_a_window_to_its_schedule_at_first() -> None:
    def let_through(after_end: float) -> list[str]:
        sieve = Sieve(DAYS, NOW + dt.timedelta(seconds=after_end))
        return [key for key in (BEFORE, LAST, "2026-06-10") if sieve.lets_through(key)]

    assert let_through(59) == [BEFORE]
    assert let_through(60) == [BEFORE, LAST]
    assert over(DAYS, [LAST, "2026-06-10", "odd"], now=NOW) == [LAST]


def test_the_sensor_says_what_is_of_no_window() -> None:
    scheduled = feed(partitions=PARTITIONS)
    sieve = Sieve.of(scheduled, NOW)
    assert sieve is not None
    assert sieve.told() == []
    assert not any(sieve.lets_through(key) for key in ("odd", "2026-06", "2026-06-10"))
    (told,) = sieve.told()
    assert told.startswith("2 are of no day of this feed (2026-06, odd): expected %Y-%m-%d, in Eur")
    assert Sieve.of(feed(), NOW) is None


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("2026-06-10", "this day is not over before 2026-06-10 22:00 UTC.*is 2026-06-09"),
        ("2026-06", "2026-06 is no day .* Expected %Y-%m-%d, in Europe/Vienna, from 2026-06-01"),
        ("2026-05-31", "is no day of this feed"),
    ],
)  # fmt: skip
def test_a_key_of_no_window_that_is_over_is_refused(key: str, why: str) -> None:
    require_over(feed(), key, now=NOW)
    scheduled = feed(partitions=PARTITIONS)
    require_over(scheduled, LAST, now=NOW)
    with pytest.raises(DeliveryError, match=why):
        require_over(scheduled, key, now=NOW)
