"""Pictures: columns and lines over batches or time, and a batch's timeline, as SVG.

Drawn by templates, since a plotting library burns its colours in: here the page's style sheet has
them, so that one picture is right on a light page, on a dark one and on paper. A picture that stands
alone, as Dagster shows it, has colours for both. No series is told by its colour alone: columns have
patterns, lines have marks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from batch_pipelines.engine.reports.html import source, templates
from batch_pipelines.engine.reports.shown import short, visible

if TYPE_CHECKING:
    import datetime as dt

Look = Literal["plain", "good", "partial", "bad", "other"]
# In units of the drawing, which is as wide as a phone: there its text has its own size.
WIDTH, HEIGHT = 360, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 10, 30, 34
_TICKS = 4
_LONGEST_LABEL = 18
_LARGEST_MARK = 3.5
_ROW, _NAMES, _ROWS_TOP = 24, 84, 26


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture on a page.

    Attributes:
        svg: The drawing; its words are escaped.
        caption: What it shows.
    """

    svg: str
    caption: str


@dataclass(frozen=True, slots=True)
class Series:
    """Values of one kind, one for each label; None where there is none."""

    name: str
    look: Look
    values: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """What is to be drawn.

    Attributes:
        name: Unique in a page: letters, digits and hyphens.
        title: What it shows, with the unit.
        labels: What stands for each place, from the left; at least one.
        series: Columns that stand upon each other, or lines; values are not negative.
        form: Columns, or a line with a mark for each value.
        top: Where the axis ends; None has it end above the highest value.
        marked: The place that is pointed at.
    """

    name: str
    title: str
    labels: tuple[str, ...]
    series: tuple[Series, ...]
    form: Literal["columns", "line"] = "columns"
    top: float | None = None
    marked: int | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """A time that something took, in a timeline; without an end it has not ended."""

    name: str
    look: Look
    start: dt.datetime
    end: dt.datetime | None


@dataclass(frozen=True, slots=True)
class _Shape:
    """A rectangle, or the place of a mark, with what is told of it."""

    x: float
    y: float
    width: float
    height: float
    look: Look
    told: str


def draw(chart: Chart, *, alone: bool = False) -> Picture:
    """Draw columns or a line.

    Args:
        chart: What is to be drawn.
        alone: Whether it is to stand in a file of its own, with its own style.

    Returns:
        The picture.
    """
    sums = [
        sum(each.values[place] or 0 for each in chart.series) for place in range(len(chart.labels))
    ]
    ticks = ticks_up_to(chart.top or max(sums))
    highest = ticks[-1]
    base = HEIGHT - _BOTTOM
    step = (WIDTH - _LEFT - _RIGHT) / len(chart.labels)
    shapes: list[_Shape] = []
    floors = [0.0] * len(chart.labels)
    for series in chart.series:
        for place, value in enumerate(series.values):
            if value is None or (chart.form == "columns" and value == 0):
                continue
            height = value / highest * (base - _TOP)
            told = f"{chart.labels[place]}: {short(value)} {series.name}"
            x = _LEFT + step * (place + 0.5)
            if chart.form == "line":
                shapes.append(_Shape(x, base - height, 0, 0, series.look, told))
                continue
            # What is there is seen, however little it is.
            drawn, width = max(height, 1.5), min(step * 0.72, 26)
            top = base - floors[place] - drawn
            shapes.append(_Shape(x - width / 2, top, width, drawn, series.look, told))
            floors[place] += drawn
    svg = templates().get_template("chart.svg").render(
        chart=chart, alone=alone, style=source("chart.css") if alone else "",
        width=WIDTH, height=HEIGHT, base=base, left=_LEFT, right=WIDTH - _RIGHT,
        ticks=[(base - tick / highest * (base - _TOP), short(tick)) for tick in ticks],
        radius=min(_LARGEST_MARK, step * 0.4), shapes=shapes,
        lines=_lines(chart, shapes) if chart.form == "line" else [],
        legend=_legend(chart) if len(chart.series) > 1 else [],
        first=_label(chart.labels[0]), last=_label(chart.labels[-1]),
        pointed=None if chart.marked is None else _LEFT + step * (chart.marked + 0.5),
    )  # fmt: skip
    return Picture(svg, chart.title)


def draw_timeline(name: str, title: str, spans: tuple[Span, ...], now: dt.datetime) -> Picture:
    """Draw when each of several things began and ended.

    Args:
        name: Unique in a page.
        title: What it shows.
        spans: The things; at least one.
        now: Where what has not ended is cut off.

    Returns:
        The picture.
    """
    begin = min(each.start for each in spans)
    end = max(each.end or now for each in spans)
    total = max((end - begin).total_seconds(), 0.001)
    room = WIDTH - _NAMES - _RIGHT
    shapes = []
    for place, each in enumerate(spans):
        x = _NAMES + (each.start - begin).total_seconds() / total * room
        seconds = ((each.end or now) - each.start).total_seconds()
        width = max(seconds / total * room, 2)
        told = f"{each.name}: {seconds:,.1f} s" + ("" if each.end else " so far")
        y = _ROWS_TOP + place * _ROW
        shapes.append(_Shape(min(x, WIDTH - _RIGHT - width), y, width, _ROW - 8, each.look, told))
    svg = templates().get_template("timeline.svg").render(
        name=name, title=title, width=WIDTH, height=_ROWS_TOP + len(spans) * _ROW + 4,
        left=_NAMES, right=WIDTH - _RIGHT, names=[_label(each.name) for each in spans],
        shapes=shapes, total=f"{total:,.1f} s",
    )  # fmt: skip
    return Picture(svg, title)


def ticks_up_to(highest: float) -> list[float]:
    """Choose round numbers for an axis.

    Args:
        highest: What has to find room; nothing is drawn as such below 1.

    Returns:
        From 0 upwards, at most five, the last of them not below `highest`.
    """
    if highest <= 0:
        return [0, 1]
    power = 10.0 ** math.floor(math.log10(highest / _TICKS))
    step = next(s for s in (1, 2, 2.5, 5, 10, 20) if highest <= power * s * _TICKS * (1 + 1e-9))
    return [power * step * n for n in range(math.ceil(highest / (power * step) * (1 - 1e-9)) + 1)]


def _lines(chart: Chart, shapes: list[_Shape]) -> list[tuple[Look, str]]:
    """Join the marks of each series."""
    return [
        (each.look, " ".join(f"{s.x:.1f},{s.y:.1f}" for s in shapes if s.look == each.look))
        for each in chart.series
    ]


def _legend(chart: Chart) -> list[tuple[float, Look, str]]:
    places, x = [], 6.0
    for each in chart.series:
        places.append((x, each.look, each.name))
        # Of 11 units a letter takes about 6.
        x += 18 + 6.2 * len(each.name) + 8
    return places


def _label(name: str) -> str:
    seen = visible(name)
    return seen if len(seen) <= _LONGEST_LABEL else f"{seen[: _LONGEST_LABEL - 1]}…"
