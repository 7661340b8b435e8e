"""Pictures of recent batches, and the numbers beside them, for Dagster's UI.

Dagster's UI shows images from `data:` and nothing else that draws, in markdown. They are the pictures
of the reports, standing alone: an image does not know whether it is on a light page or on a dark one.
"""

from __future__ import annotations

import base64
import functools
from typing import TYPE_CHECKING, ParamSpec

import dagster as dg

from batch_pipelines.engine.reports.charts import Chart, Series, draw
from batch_pipelines.engine.reports.trends import compared

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from batch_pipelines.engine.ledger.speeds import StageSpeed
    from batch_pipelines.engine.reports.charts import Picture
    from batch_pipelines.engine.reports.trends import RecentBatch

RECENT = 20
"""Batches in a plot."""
_LISTED = 5
_MEGABYTE = 1_000_000


_P = ParamSpec("_P")


def _no_reason_to_fail(
    show: Callable[_P, dg.MetadataValue],
) -> Callable[_P, dg.MetadataValue]:
    """Say so where something cannot be drawn: the rows are there, and the stage would read failed."""

    @functools.wraps(show)
    def shown(*args: _P.args, **named: _P.kwargs) -> dg.MetadataValue:
        try:
            return show(*args, **named)
        except Exception as error:  # noqa: BLE001  # whatever it is, the rows are none the worse
            return dg.MetadataValue.md(f"It could not be drawn: {type(error).__name__}.")

    return shown


@_no_reason_to_fail
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
    rates = tuple(
        (each.records if of_records else each.size / _MEGABYTE) / each.seconds for each in speeds
    )
    plot = Chart(
        "throughput",
        f"Throughput, {unit}",
        tuple(each.partition_key for each in speeds),
        (Series(unit, "plain", rates),),
        marked=len(speeds) - 1,
    )
    rows = [
        f"| {_cell(each.partition_key)} | {each.batch_id[:8]} | {each.started_at:%Y-%m-%d %H:%M} | "
        f"{each.size:,} | {each.records:,} | {each.seconds:.3f} | {_number(rate)} |"
        for each, rate in list(zip(speeds, rates, strict=True))[: -_LISTED - 1 : -1]
    ]
    head = f"| partition | batch | began (UTC) | bytes | records | seconds | {unit} |"
    image = _image(draw(plot, alone=True))
    return dg.MetadataValue.md("\n".join([image, "", head, "|---|---|---|--:|--:|--:|--:|", *rows]))


@_no_reason_to_fail
def recent(found: Sequence[RecentBatch]) -> dg.MetadataValue:
    """Show how the batches of a feed went: how fast, how much of each was loaded, what was set aside.

    Args:
        found: The batches, oldest first.

    Returns:
        Metadata: an image for each.
    """
    if not found:
        return dg.MetadataValue.md("No batch of this feed has come so far yet.")
    pictures = compared(found, marked=found[-1].batch_id, alone=True)
    return dg.MetadataValue.md("\n\n".join(_image(each) for each in pictures))


def _image(picture: Picture) -> str:
    drawn = base64.b64encode(picture.svg.encode()).decode()
    return f"![{picture.caption}](data:image/svg+xml;base64,{drawn})"


def _number(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"  # noqa: PLR2004  # three digits tell


def _cell(name: str) -> str:
    """Write a partition key so that markdown takes nothing in it for its own."""
    return "".join(f"&#{ord(sign)};" if not sign.isalnum() else sign for sign in name)
