"""What is measured over the last batches."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import pytest

from batch_pipelines.engine.monitoring.facts import BatchFacts, Facts, Speed
from batch_pipelines.engine.monitoring.measures import Measured, measure

NOON = dt.datetime(2026, 11, 22, 12, tzinfo=dt.UTC)
GOOD = BatchFacts(
    "good", "orders/k", NOON, failed=False, in_force=True, error_details=None, source_records=100,
    rejected_records=0, invalid_checksums=0, varies=False,
)  # fmt: skip
BAD = replace(GOOD, batch_id="bad", failed=True, source_records=0)


def measured(name: str, *batches: BatchFacts) -> Measured:
    return measure(Facts(batches, (), 0))[name]


def test_failures_count_since_the_last_good_batch() -> None:
    newest = replace(BAD, batch_id="newest")
    assert measured("failed_in_a_row", newest, BAD, GOOD, BAD) == Measured(2, "newest")
    assert measured("failed_in_a_row", GOOD, BAD) == Measured(0)
    assert measured("failed_in_a_row") == Measured(0)


def test_invalid_checksums_are_added_up() -> None:
    damaged = replace(BAD, invalid_checksums=2)
    assert measured("invalid_checksums", GOOD, damaged, damaged) == Measured(4, "bad")


def test_rejected_rows_are_a_share_of_all_records() -> None:
    some = replace(GOOD, batch_id="some", rejected_records=10)
    assert measured("rejected_rows", GOOD, some, replace(GOOD, source_records=50)) == Measured(
        4, "some"
    )
    assert measured("rejected_rows", BAD) == Measured(0)


def test_batches_with_other_columns_are_counted() -> None:
    other = replace(GOOD, batch_id="other", varies=True)
    assert measured("schema_variation", GOOD, other, other) == Measured(2, "other")


def speeds(*rows_per_second: float, counts: int = 3) -> tuple[Speed, ...]:
    return tuple(
        Speed(str(place), speed, place < counts) for place, speed in enumerate(rows_per_second)
    )


@pytest.mark.parametrize(
    ("found", "drop"),
    [
        (speeds(50, 50, 50, 100, 100, 100, 100, 100), 50),
        (speeds(1, 100, 100, 100, 100, 100, 100, 100), 0),  # one slow batch may be anything
        (speeds(50, 50, 50, 100, 100, 100, 100), 0),  # that is no history
        (speeds(50, 50, 50, 100, 100, 100, 100, 100, counts=2), 0),
        (speeds(200, 200, 200, 100, 100, 100, 100, 100), 0),
        (speeds(), 0),
    ],
)
def test_throughput_is_held_against_the_median_before(found: tuple[Speed, ...], drop: int) -> None:
    assert measure(Facts((), found, 0))["throughput_drop"].value == drop


def test_late_deliveries_are_counted() -> None:
    assert measure(Facts((), (), 3))["late_deliveries"] == Measured(3)
