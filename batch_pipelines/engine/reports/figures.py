"""What sections share: durations, rates, parts of a whole, and a paragraph where there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import datetime as dt


def said(text: str) -> tuple[str, ...]:
    """Make a paragraph of a text, and none of an empty one."""
    return (text,) if text else ()


def seconds(start: dt.datetime, end: dt.datetime | None) -> float | None:
    """Say how long something took, in seconds; None where it has not ended."""
    return None if end is None else (end - start).total_seconds()


def rate(amount: float | None, seconds: float | None) -> float | None:
    """Say how much there was a second; None where one of both is not known."""
    return amount / seconds if amount is not None and seconds else None


def share(part: int, whole: int) -> float | None:
    """Give a share in percent, to two digits and never rounded up to all; None of nothing."""
    if whole == 0:
        return None
    # 99.999 % of valid checksums are not 100 %: rounded down, as what is claimed less than it is.
    return part * 10_000 // whole / 100
