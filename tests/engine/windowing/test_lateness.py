"""Deliveries that are late: which, told once, and resolved when they come."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import pytest

from batch_pipelines.engine.alerts import acknowledge, listed
from batch_pipelines.engine.feed_parts.partitions import Partitions
from batch_pipelines.engine.feeds import Feed
from batch_pipelines.engine.windowing.lateness import late_windows, tell_late
from batch_pipelines.engine.windowing.windows import Windows

if TYPE_CHECKING:
    from batch_pipelines.engine.postgres.database import Database

PARTITIONS = {"every": "hour", "start": "2026-06-01", "late_after": "2h"}
HOURS = Windows(Partitions.model_validate(PARTITIONS))
NOW = dt.datetime(2026, 6, 9, 12, tzinfo=dt.UTC)  # 09 to 10 is two hours over
TWO_HOURS = dt.timedelta(hours=2)


def late(*arrived: str, now: dt.datetime = NOW) -> list[str]:
    return [each.window.key for each in late_windows(HOURS, arrived, late_after=TWO_HOURS, now=now)]


def test_a_window_is_late_once_its_time_has_passed() -> None:
    assert late("2026-06-09-08") == ["2026-06-09-09"]
    assert late("2026-06-09-08", now=NOW - dt.timedelta(seconds=1)) == []
    assert late("2026-06-09-08", "2026-06-09-09") == []


def test_gaps_are_late_from_the_first_delivery_on() -> None:
    assert late("2026-06-09-06", "2026-06-09-08") == ["2026-06-09-07", "2026-06-09-09"]


def test_of_a_feed_that_never_had_a_delivery_the_last_window_is_late() -> None:
    """Given years of windows before anybody has begun, nobody is told of each."""
    assert late() == ["2026-06-09-09"]
    assert late("odd", "2026-06-02-00") == ["2026-06-09-09"]
    assert late(now=dt.datetime(2026, 6, 1, tzinfo=dt.UTC)) == []


def test_it_is_told_once_and_resolved_when_it_comes(database18: Database) -> None:
    source = {"path": "landing/{batch}/*"}
    feed = Feed.model_validate(
        {"feed": "f", "source": source, "tables": "none", "partitions": PARTITIONS}
    )
    with database18.connect("test") as connection:
        arrived = {"2026-06-09-08"}
        for _ in range(2):
            found = tell_late(connection, feed, arrived, place="landing", now=NOW)
            assert [each.window.key for each in found] == ["2026-06-09-09"]
        (told,) = listed(connection)
        assert told.is_open
        assert told.alert.subject == "f/2026-06-09-09 is late"
        assert told.alert.occurred_at == NOW
        assert told.alert.deduplication_key == "late_delivery/f/2026-06-09-09"
        assert told.alert.details["due"] == "2026-06-09 12:00 UTC"

        later = NOW + dt.timedelta(hours=1)
        tell_late(connection, feed, arrived, place="landing", now=later)
        assert len(listed(connection, open_only=True)) == 2
        acknowledge(connection, told.alert_id, by="Ada")
        arrived |= {"2026-06-09-09", "2026-06-09-10"}
        assert tell_late(connection, feed, arrived, place="landing", now=later) == []
        assert all(each.resolved_at is not None for each in listed(connection))
        # Told is told: a window that is late again is the same occasion.
        assert len(listed(connection)) == 2


@pytest.mark.parametrize(
    "partitions", [None, {k: v for k, v in PARTITIONS.items() if k != "late_after"}]
)
def test_of_other_feeds_nothing_is_late(database18: Database, partitions: object) -> None:
    source = {"path": "landing/{batch}/*"}
    feed = Feed.model_validate(
        {"feed": "f", "source": source, "tables": "none", "partitions": partitions}
    )
    with database18.connect("test") as connection:
        assert tell_late(connection, feed, (), place="landing", now=NOW) == []
