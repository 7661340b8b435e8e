"""The plot of a stage's throughput: a whole SVG in markdown, whatever partitions are called."""

from __future__ import annotations

import base64
import datetime as dt
import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from assets.plot import RECENT, recent, throughput
from batch_pipelines.engine.ledger.speeds import StageSpeed
from batch_pipelines.engine.reports.trends import RecentBatch

if TYPE_CHECKING:
    import dagster as dg

SVG = "{http://www.w3.org/2000/svg}"
BEGAN = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)


def speed(key: str, records: int = 10, seconds: float = 0.5) -> StageSpeed:
    return StageSpeed("0" * 36, key, BEGAN, 2_000_000, records, seconds)


def bars(svg: str) -> list[ET.Element]:
    """The columns of a drawing: what tells what it stands for."""
    root = ET.fromstring(svg)  # noqa: S314  # our own
    return [each for each in root.iter(f"{SVG}rect") if each.find(f"{SVG}title") is not None]


def images(value: dg.MetadataValue) -> list[str]:
    """The drawings in metadata."""
    found = re.findall(r"!\[[^]]*\]\(data:image/svg\+xml;base64,([^)]+)\)", str(value.value))
    return [base64.b64decode(each).decode() for each in found]


@pytest.mark.parametrize("number", [1, 7, RECENT])
def test_each_batch_has_a_bar_and_the_fastest_the_highest(number: int) -> None:
    speeds = [speed("<&>", records=1 + n % 5) for n in range(number)]
    (drawn,) = images(throughput(speeds, of_records=True))
    heights = [float(bar.attrib["height"]) for bar in bars(drawn)]
    assert len(heights) == number
    assert heights.index(max(heights)) == [each.records for each in speeds].index(
        max(each.records for each in speeds)
    )
    assert all(0 <= float(bar.attrib["x"]) <= 360 for bar in bars(drawn))
    assert "<style>" in drawn


def test_nothing_at_all_is_no_bar() -> None:
    (drawn,) = images(throughput([speed("a", records=0)], of_records=True))
    assert bars(drawn) == []


def test_batches_are_compared_by_speed_by_what_is_loaded_and_by_what_is_set_aside() -> None:
    found = [
        RecentBatch("0" * 36, f"day-{n}", 1, status, BEGAN, 10, 10 - n, n, 2_000_000, 0.5)
        for n, status in enumerate(["SUCCESS", "PARTIAL_SUCCESS", "FAILED"])
    ]
    fast, loaded, aside = images(recent(found))
    assert [len(bars(each)) for each in (fast, loaded, aside)] == [3, 0, 2]
    assert "day-2: 80 % loaded" in loaded
    assert "day-2: 2 set aside" in aside
    # Told by patterns, too.
    assert len({bar.get("fill") for bar in bars(fast)}) == 3


def test_the_newest_batches_are_listed_first_and_names_are_no_markup() -> None:
    speeds = [speed(f"day-{n}") for n in range(8)] + [speed("a|<b>*c*")]
    shown = str(throughput(speeds, of_records=False).value)
    (drawn,) = images(throughput(speeds, of_records=False))
    assert len(bars(drawn)) == 9
    lines = shown.splitlines()
    rows = [line for line in lines if line.startswith("| ")][1:]
    assert len(rows) == 5
    assert rows[0].startswith("| a&#124;&#60;b&#62;&#42;c&#42; | 00000000 | 2026-01-01 12:00 |")
    assert rows[0].endswith("| 2,000,000 | 10 | 0.500 | 4 |")
    assert "| 20 |" in str(throughput(speeds, of_records=True).value)


def test_what_cannot_be_drawn_fails_no_stage() -> None:
    endless = speed("a", records=10**400)
    assert str(throughput([endless], of_records=True).value) == (
        "It could not be drawn: OverflowError."
    )


def test_without_a_batch_it_says_so() -> None:
    assert "No batch" in str(throughput([], of_records=True).value)
    assert "No batch" in str(recent([]).value)
