"""A plot of a stage's throughput over recent batches, and the numbers beside it, for Dagster's UI.

The plot is an SVG of a few lines, as an image in markdown: Dagster's UI shows images from `data:` and
nothing else that draws, and a plotting library would cost a run half a second. Its colours can be read
on a light page and on a dark one, since an image does not know which it is on.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

import dagster as dg

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batch_pipelines.engine.ledger.speeds import StageSpeed

RECENT = 20
"""Batches in a plot."""
_LISTED = 5
_MEGABYTE = 1_000_000
_WIDTH, _HEIGHT = 640, 170  # units of the drawing
_LEFT, _TOP, _BOTTOM = 8, 26, 26
_BAR, _LAST, _TEXT, _LINE = "#6f9ceb", "#2f6fde", "#828a96", "#828a9680"
_LONGEST_NAME = 28


def throughput(speeds: Sequence[StageSpeed], *, of_records: bool) -> dg.MetadataValue:
    """Show how fast a stage was.

    Args:
        speeds: Its recent batches, oldest first.
        of_records: Whether in records a second, or in MB (10^6 bytes) a second.

    Returns:
        Metadata: a plot of all, and a table of the newest.
    """
    if not speeds:
        return dg.MetadataValue.md("No batch of this feed has come so far yet.")
    unit = "records/s" if of_records else "MB/s"
    rates = [
        (each.records if of_records else each.size / _MEGABYTE) / each.seconds for each in speeds
    ]
    drawn = base64.b64encode(draw([s.partition_key for s in speeds], rates, unit).encode()).decode()
    rows = [
        f"| {_cell(each.partition_key)} | {each.batch_id[:8]} | {each.started_at:%Y-%m-%d %H:%M} | "
        f"{each.size:,} | {each.records:,} | {each.seconds:.3f} | {_number(rate)} |"
        for each, rate in list(zip(speeds, rates, strict=True))[: -_LISTED - 1 : -1]
    ]
    head = f"| partition | batch | began (UTC) | bytes | records | seconds | {unit} |"
    return dg.MetadataValue.md(
        "\n".join(
            [
                f"![Throughput of the last {len(speeds)} batches](data:image/svg+xml;base64,{drawn})",
                "", head, "|---|---|---|--:|--:|--:|--:|", *rows,
            ]
        )
    )  # fmt: skip


def draw(names: Sequence[str], rates: Sequence[float], unit: str) -> str:
    """Draw bars, the newest at the right and darkest.

    Args:
        names: What each bar stands for.
        rates: How high each is; at least one.
        unit: Of the rates.

    Returns:
        An SVG.
    """
    highest = max(rates) or 1.0
    base, step = _HEIGHT - _BOTTOM, (_WIDTH - 2 * _LEFT) / RECENT
    bars = []
    for place, rate in enumerate(rates):
        height = max(rate / highest * (base - _TOP), 1)
        x = _WIDTH - _LEFT - (len(rates) - place) * step
        colour = _LAST if place == len(rates) - 1 else _BAR
        bars.append(
            f'<rect x="{x + step * 0.15:.1f}" y="{base - height:.1f}" width="{step * 0.7:.1f}" '
            f'height="{height:.1f}" rx="2" fill="{colour}"/>'
        )
    text = f'font-family="sans-serif" font-size="13" fill="{_TEXT}"'
    first, last = _shown(names[0]), _shown(names[-1])
    begin = _WIDTH - _LEFT - len(rates) * step
    told = f"up to {_number(highest)} {unit}, now {_number(rates[-1])}"
    labels = [
        f'<text x="{_LEFT}" y="16" {text}>{told}</text>',
        f'<text x="{_WIDTH - _LEFT}" y="{_HEIGHT - 8}" text-anchor="end" {text}>{last}</text>',
    ]
    # Side by side they would run into each other.
    if len(rates) > RECENT // 2:
        labels.append(f'<text x="{begin:.0f}" y="{_HEIGHT - 8}" {text}>{first}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}">'
        f'<path d="M{_LEFT} {base}H{_WIDTH - _LEFT}M{_LEFT} {_TOP}H{_WIDTH - _LEFT}" '
        f'stroke="{_LINE}" stroke-width="1" fill="none"/>'
        f"{''.join(bars)}{''.join(labels)}</svg>"
    )


def _number(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"  # noqa: PLR2004  # three digits tell


def _shown(name: str) -> str:
    short = name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
    return escape(short)


def _cell(name: str) -> str:
    """Write a partition key so that markdown takes nothing in it for its own."""
    return "".join(f"&#{ord(sign)};" if not sign.isalnum() else sign for sign in name)
