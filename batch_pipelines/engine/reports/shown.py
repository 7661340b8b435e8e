"""How values are written for people: numbers, times, states, and text that may be hostile."""

from __future__ import annotations

import datetime as dt
import unicodedata
from decimal import Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from batch_pipelines.engine.reports.page import Cell, Kind, Level

NOTHING = "–"  # noqa: RUF001  # an en dash, as tables have it
MARKS: dict[Level, str] = {"good": "✓", "warn": "!", "bad": "✕", "plain": "·"}
"""What stands before a state, so that no state is told by its colour alone."""
_LEVELS: dict[str, Level] = {
    **dict.fromkeys(("SUCCESS", "VALID", "valid", "SENT", "ok", "same", "exact", "yes"), "good"),
    **dict.fromkeys(
        ("PARTIAL_SUCCESS", "PUBLISHED", "ROLLED_BACK", "UNVERIFIED", "WAITING",
         "warn", "warning"),
        "warn",
    ),
    **dict.fromkeys(
        ("FAILED", "VALIDATION_FAILED", "invalid", "DAMAGED", "MISSING", "GAVE_UP", "breach",
         "critical", "breaking", "no"),
        "bad",
    ),
}  # fmt: skip
# Format characters that have a place in words of some languages; all others steer what is around them.
_JOINERS = frozenset("\u200c\u200d")


def level(state: str) -> Level:
    """Say how good a state is; `plain` where that is no question."""
    return _LEVELS.get(state, "plain")


def visible(text: str, *, lines: bool = False) -> str:
    """Make characters visible that would be none, or would turn around what stands beside them.

    Args:
        text: Any text, of a file's name for example.
        lines: Whether line ends and tabs stay.

    Returns:
        The text, with `⟨U+202E⟩` for each control, format or private character and lone surrogate.
    """
    return "".join(
        sign if _is_plain(sign) or (lines and sign in "\n\t") else f"⟨U+{ord(sign):04X}⟩"
        for sign in text
    )


def shown(value: Cell, kind: Kind) -> str:
    """Write a cell for people.

    Args:
        value: The value.
        kind: The kind of its column.

    Returns:
        Text that has yet to be escaped.
    """
    if value is None:
        return NOTHING
    match value:
        case bool():
            return "yes" if value else "no"
        case dt.datetime():
            return f"{value.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S}"
        case dt.date():
            return value.isoformat()
        case str():
            return visible(value, lines=kind == "code")
        case int() | float() | Decimal():
            return _number(value, kind)


def _number(value: float | Decimal, kind: Kind) -> str:
    if kind == "percent":
        return f"{value:.2f} %"
    if kind == "count":
        return f"{value:,.0f}"
    return f"{value:,.3f}" if kind == "number" else str(value)


def short(value: float) -> str:
    """Write a number in as little room as the axis of a picture has: 1.2k, 35M.

    Args:
        value: The number, not negative.
    """
    for size, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{sign}"
    return f"{value:.3g}"


def _is_plain(sign: str) -> bool:
    category = unicodedata.category(sign)
    return (category[0] != "C" and category not in {"Zl", "Zp"}) or sign in _JOINERS
