"""Notation: numbers and times as a feed says they are written, turned into what `convert` reads.

Only the writing changes, a whole column at once: a value that is not written as the feed says becomes
one that `convert` refuses, and everything else about a value is for `convert` to judge.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from batch_pipelines.engine.catalog import Column
    from batch_pipelines.engine.formats import Format

TEXTS = frozenset({"text", "character varying", "character", "bpchar", "citext"})
_FRACTIONS = frozenset({"numeric", "real", "double precision"})
_DATES = frozenset({"date"})
_TIMESTAMPS = frozenset({"timestamp without time zone", "timestamp with time zone"})
# So 1,5 is read, and 1.5 is not.
_SWAP = bytes.maketrans(b",.", b".,")
_GROUPS = {
    "Y": "[0-9]{4}", "y": "[0-9]{2}", "b": "[A-Za-z]{3}", "f": "[0-9]{1,6}",
    "z": "Z|[+-][0-9]{2}:?[0-9]{2}",
}  # fmt: skip
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
# No number and no time, whatever follows.
_REFUSED = b"?"


def is_textual(column: Column) -> bool:
    """Say whether an empty text is a value of a column's type like any other."""
    return column.base_type in TEXTS


def is_special(column: Column, form: Format) -> bool:
    """Say whether the values of a column have a notation of the feed's own."""
    return (column.base_type in _FRACTIONS and form.decimal == ",") or pattern_of(
        column, form
    ) is not None


def pattern_of(column: Column, form: Format) -> str | None:
    """Give the pattern of a column's dates or timestamps; None where they are ISO 8601, or none."""
    if column.base_type in _DATES:
        return form.dates
    return form.timestamps if column.base_type in _TIMESTAMPS else None


def canonical(values: pa.Array, column: Column, form: Format) -> pa.Array:
    """Rewrite a column of which `is_special` is true.

    Args:
        values: The values as bytes.
        column: The target column.
        form: How they are written.

    Returns:
        The values as bytes, as `convert` wants them.
    """
    pattern = pattern_of(column, form)
    return _swapped(values) if pattern is None else _iso(values, pattern)


def _swapped(values: pa.Array) -> pa.Array:
    validity, offsets, data = values.buffers()
    if data is None:
        return values
    swapped = pa.py_buffer(data.to_pybytes().translate(_SWAP))
    return pa.Array.from_buffers(
        values.type, len(values), [validity, offsets, swapped], offset=values.offset
    )


def _iso(values: pa.Array, pattern: str) -> pa.Array:
    parts = dict(zip(_directives(pattern), _extracted(values, pattern), strict=True))
    year = parts["Y"] if "Y" in parts else _century(parts["y"])
    month = parts["m"] if "m" in parts else _month(parts["b"])
    joined = pc.binary_join_element_wise(year, _two(month), _two(parts["d"]), b"-")
    if {"H", "M", "S", "f", "z"} & set(parts):
        zero = pa.scalar(b"00")
        clock = [_two(parts[name]) if name in parts else zero for name in "HMS"]
        joined = pc.binary_join_element_wise(
            joined, pc.binary_join_element_wise(*clock, b":"), b" "
        )
    if "f" in parts:
        joined = pc.binary_join_element_wise(joined, parts["f"], b".")
    if "z" in parts:
        joined = pc.binary_join_element_wise(joined, parts["z"], b"")
    refused = pc.binary_join_element_wise(_REFUSED, values, b"")
    return pc.if_else(pc.and_(values.is_valid(), joined.is_null()), refused, joined)


def _directives(pattern: str) -> list[str]:
    return re.findall(r"%(.)", pattern.replace("%%", ""))


def _extracted(values: pa.Array, pattern: str) -> list[pa.Array]:
    """Take values apart; what does not fit the pattern is null in all parts."""
    found = pc.extract_regex(values, _expression(pattern))
    parts: list[pa.Array] = found.flatten()
    return parts


@functools.cache
def _expression(pattern: str) -> str:
    """Write the regular expression of a pattern."""
    pieces = re.split(r"(%.)", pattern)
    written = []
    for place, piece in enumerate(pieces):
        name = piece[1:]
        if not piece.startswith("%"):
            written.append(re.escape(piece))
        elif name == "%":
            written.append("%")
        else:
            # One digit is enough only where something marks its end.
            apart = all(pieces[p] for p in (place - 1, place + 1) if 0 < p < len(pieces) - 1)
            group = _GROUPS.get(name, "[0-9]{1,2}" if apart else "[0-9]{2}")
            written.append(f"(?P<{name}>{group})")
    return "^" + "".join(written) + "$"


def _two(digits: pa.Array) -> pa.Array:
    """Write a number of one or two digits in two."""
    short = pc.equal(pc.binary_length(digits), 1)
    return pc.if_else(short, pc.binary_join_element_wise(b"0", digits, b""), digits)


def _century(years: pa.Array) -> pa.Array:
    """Write years in four digits, as POSIX has them: 69 to 99 are of the last century."""
    last = pc.greater_equal(years, pa.scalar(b"69"))
    return pc.binary_join_element_wise(
        pc.if_else(last, pa.scalar(b"19"), pa.scalar(b"20")), years, b""
    )


def _month(names: pa.Array) -> pa.Array:
    found = pc.index_in(pc.ascii_lower(names.cast(pa.string())).cast(pa.binary()), _months())
    return pc.add(found, 1).cast(pa.string()).cast(pa.binary())


@functools.cache
def _months() -> pa.Array:
    # Not when this is imported: the first array makes pyarrow import pandas, which takes a third of a
    # second of every command.
    return pa.array(_MONTHS, pa.binary())
