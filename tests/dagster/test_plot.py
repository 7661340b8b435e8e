"""The plot of a stage's throughput: a whole SVG in markdown, whatever partitions are called."""

from __future__ import annotations

import base64
import datetime as dt
import re
from xml.etree import ElementTree as ET

import pytest

from assets.plot import RECENT, draw, throughput
from batch_pipelines.engine.ledger.speeds import StageSpeed

BEGAN = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)


def speed(key: str, records: int = 10, seconds: float = 0.5) -> StageSpeed:
    return StageSpeed("0" * 36, key, BEGAN, 2_000_000, records, seconds)


def shapes(svg: str, name: str) -> list[ET.Element]:
    root = ET.fromstring(svg)  # noqa: S314  # our own
    return root.findall(f"{{http://www.w3.org/2000/svg}}{name}")


@pytest.mark.parametrize("number", [1, 7, RECENT])
def test_each_batch_has_a_bar_and_the_fastest_the_highest(number: int) -> None:
    rates = [float(1 + n % 5) for n in range(number)]
    bars = shapes(draw(["<&>"] * number, rates, "MB/s"), "rect")
    heights = [float(bar.attrib["height"]) for bar in bars]
    assert len(bars) == number
    assert heights.index(max(heights)) == rates.index(max(rates))
    assert all(0 <= float(bar.attrib["x"]) <= 640 for bar in bars)


def test_nothing_at_all_is_drawn_as_such() -> None:
    (bar,) = shapes(draw(["a"], [0.0], "MB/s"), "rect")
    assert float(bar.attrib["height"]) == 1


def test_the_newest_batches_are_listed_first_and_names_are_no_markup() -> None:
    speeds = [speed(f"day-{n}") for n in range(8)] + [speed("a|<b>*c*")]
    shown = str(throughput(speeds, of_records=False).value)
    image, *lines = shown.splitlines()
    found = re.search(r"base64,([^)]+)\)", image)
    assert found is not None
    assert len(shapes(base64.b64decode(found[1]).decode(), "rect")) == 9
    rows = [line for line in lines if line.startswith("| ")][1:]
    assert len(rows) == 5
    assert rows[0].startswith("| a&#124;&#60;b&#62;&#42;c&#42; | 00000000 | 2026-01-01 12:00 |")
    assert rows[0].endswith("| 2,000,000 | 10 | 0.500 | 4 |")
    assert "| 20 |" in str(throughput(speeds, of_records=True).value)


def test_without_a_batch_it_says_so() -> None:
    assert "No batch" in str(throughput([], of_records=True).value)
