"""Which time and which feeds a report is about."""

from __future__ import annotations

import datetime as dt

import pytest

from batch_pipelines.engine.compliance.scope import days, month, regulations_of, scope
from batch_pipelines.engine.errors import ReportError
from tests.engine.compliance.support import UNDER, VIENNA
from tests.support_engine import feed_of


def utc(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("key", "zone", "start", "end"),
    [
        ("2026-03", VIENNA, "2026-02-28 23:00", "2026-03-31 22:00"),
        ("2026-10", VIENNA, "2026-09-30 22:00", "2026-10-31 23:00"),
        ("2024-02", "UTC", "2024-02-01 00:00", "2024-03-01 00:00"),
        # Its clock was set at midnight of the first of October: the month begins at one o'clock.
        ("2017-10", "America/Asuncion", "2017-10-01 04:00", "2017-11-01 03:00"),
        ("2026-12", "Pacific/Kiritimati", "2026-11-30 10:00", "2026-12-31 10:00"),
    ],
)
def test_a_month_is_that_of_its_time_zone(key: str, zone: str, start: str, end: str) -> None:
    found = month(key, zone)
    assert (found.start, found.end) == (utc(start), utc(end))


@pytest.mark.parametrize(
    "key", ["2026-13", "2026-1", "26-01", "2026-01-01", "", "January", "9999-12"]
)
def test_what_is_no_month_is_refused(key: str) -> None:
    with pytest.raises(
        ReportError, match=r"is no month\. Expected a year and a month, as in 2026-10"
    ):
        month(key, "UTC")


def test_a_range_of_days_has_its_last_day() -> None:
    found = days(dt.date(2026, 3, 28), dt.date(2026, 3, 29), VIENNA)
    assert (found.start, found.end) == (utc("2026-03-27 23:00"), utc("2026-03-29 22:00"))
    assert found.name == "2026-03-28..2026-03-29"
    for first, last in (("2026-03-02", "2026-03-01"), ("1969-01-01", "2026-01-01"),
                        ("2026-01-01", "9999-12-31")):  # fmt: skip
        with pytest.raises(ReportError, match="is no range of days"):
            days(dt.date.fromisoformat(first), dt.date.fromisoformat(last), "UTC")


def test_filters_leave_the_feeds_they_mean() -> None:
    span, now = month("2026-03", "UTC"), utc("2026-04-01 00:00")
    assert scope(span, UNDER, now).feeds is None
    assert scope(span, UNDER, now, feed="gone").feeds == ["gone"]
    assert scope(span, UNDER, now, regulation="hipaa").feeds == ["lab", "visits"]
    assert scope(span, UNDER, now, regulation="Clia", feed="lab").feeds == ["lab"]
    with pytest.raises(ReportError, match="'GDPR'; known: CLIA, HIPAA"):
        scope(span, UNDER, now, regulation="GDPR")
    with pytest.raises(ReportError, match=r"Feed orders is under no regulation .* not under CLIA"):
        scope(span, UNDER, now, regulation="CLIA", feed="orders")


def test_a_month_that_is_not_over_is_partial_and_one_that_has_not_begun_is_none() -> None:
    span = month("2026-03", "UTC")
    assert scope(span, UNDER, utc("2026-03-31 23:59")).is_partial
    whole = scope(span, UNDER, utc("2026-04-01 00:00"))
    assert (whole.is_partial, whole.until) == (False, span.end)
    with pytest.raises(ReportError, match="has not begun"):
        scope(span, UNDER, span.start)


def test_a_feed_is_under_what_its_file_says_and_what_all_are() -> None:
    feeds = {
        "lab": feed_of({"public.t": "*"}, compliance={"regulation": ["Clia", "CAP"]}),
        "orders": feed_of({"public.t": "*"}),
    }
    assert regulations_of(feeds, []) == {"lab": ("CAP", "Clia"), "orders": ()}
    assert regulations_of(feeds, ["clia", "hipaa"])["lab"] == ("CAP", "Clia", "HIPAA")
    assert regulations_of(feeds, ["hipaa"]) == {
        "lab": ("CAP", "Clia", "HIPAA"),
        "orders": ("HIPAA",),
    }
