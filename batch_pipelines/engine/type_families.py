"""Families of types: whether all values of a type fit into another one, by the names of the types.

By their names, since that is what the ledger keeps of a delivery that came long ago: Arrow's of what a
file holds, PostgreSQL's of what a table does.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

TEXT: Final = "text"
"""What the values of a text format are, before they are given a type."""
ALSO: Final = " | "
"""Between the types of a column that has another one in each file."""
_UNBOUNDED = float("inf")
_NULL = "null"
_PARTS = re.compile(r"(?P<word>[a-z_0-9 ]+?) ?(?:[\[(](?P<inside>[^\])]*)[\])](?P<zone>.*))?")
_INTEGER = re.compile(r"(?P<unsigned>u?)int(?P<bits>8|16|32|64)")
_INTEGERS = {"smallint": "int16", "integer": "int32", "bigint": "int64"}
# Bits of the significand.
_FLOATS = {"halffloat": 11, "float": 24, "real": 24, "double": 53, "double precision": 53}
_FAMILIES = {
    "string": TEXT, "character varying": TEXT, "fixed_size_binary": "binary", "bytea": "binary",
    "bool": "boolean", "date32": "date", "date64": "date",
}  # fmt: skip
_TIMES = {
    "time32": "time", "time64": "time", "time": "time", "time without time zone": "time",
    "timestamp": "timestamp", "timestamp without time zone": "timestamp",
    "timestamp with time zone": "timestamptz",
}  # fmt: skip
_DIGITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}
_SQL_TYPES = {
    "uint8": "smallint", "int8": "smallint", "int16": "smallint", "uint16": "integer",
    "int32": "integer", "uint32": "bigint", "int64": "bigint", "uint64": "numeric(20,0)",
    "halffloat": "real", "float": "real", "double": "double precision", "binary": "bytea",
    "boolean": "boolean", "date": "date", "time": "time", "timestamp": "timestamp",
    "timestamptz": "timestamptz",
}  # fmt: skip


class _Values(NamedTuple):
    """What a type holds: the wider, the larger each of its sizes."""

    family: str
    sizes: tuple[float, ...] = ()

    def within(self, other: _Values) -> bool:
        if self.family == _NULL:
            return True
        return self.family == other.family and all(
            own <= its for own, its in zip(self.sizes, other.sizes, strict=True)
        )


def is_harmless(before: tuple[str, str], now: tuple[str, str]) -> bool:
    """Say whether a column may change its types without harm to its values.

    So it is where the values are of the same family as before, and fit into the column or are no others
    than before; and where the column holds what it held, or all that comes now.

    Args:
        before: The type in the file, or several, and that of the table's column.
        now: The same, now.

    Returns:
        Whether no value can be refused that would not have been before.
    """
    were, are = ([_values(name) for name in each[0].split(ALSO)] for each in (before, now))
    held, holds = _values(before[1]), _values(now[1])
    if before[0] != now[0] and now[0] != TEXT:
        families = {kind.family for kind in were} - {_NULL}
        for kind in are:
            known = not families or kind.family in {*families, _NULL} or before[0] == TEXT
            no_others = before[0] != TEXT and any(kind.within(each) for each in were)
            if not (known and (no_others or kind.within(holds))):
                return False
    return before[1] == now[1] or held.within(holds) or all(kind.within(holds) for kind in are)


def sql_type(type_name: str) -> str:
    """Name a type of PostgreSQL that takes all values of a file's type.

    Args:
        type_name: Arrow's name of it, or `text`.

    Returns:
        The type; `text` where there is none.
    """
    if type_name.startswith("decimal"):
        return "numeric" + type_name[type_name.index("(") :]
    return _SQL_TYPES.get(type_name) or _SQL_TYPES.get(_values(type_name).family, TEXT)


def _values(type_name: str) -> _Values:
    """Say what a type holds; one that is not known is a family of its own."""
    found = _PARTS.fullmatch(type_name)
    if found is None:
        return _Values(type_name)
    word = found["word"] + (found["zone"] or "")
    inside = [part.strip() for part in (found["inside"] or "").split(",") if part.strip()]
    family = _FAMILIES.get(word, word)
    if family == TEXT:
        return _Values(TEXT, (float(inside[0]) if inside else _UNBOUNDED,))
    if word in _FAMILIES:
        return _Values(family)
    if word in _TIMES:
        return _time(_TIMES[word], inside)
    return _number(word, inside) or _Values(type_name)


def _time(family: str, inside: list[str]) -> _Values:
    """The wider, the more digits behind the second; PostgreSQL has six where it does not say."""
    digits = inside[0] if inside else "us"
    zoned = len(inside) > 1 and family == "timestamp"
    size = _DIGITS[digits] if digits in _DIGITS else int(digits)
    return _Values("timestamptz" if zoned else family, (size,))


def _number(word: str, inside: list[str]) -> _Values | None:
    """The wider, the further from zero on both sides, and the more digits behind the point."""
    integer = _INTEGER.fullmatch(_INTEGERS.get(word, word))
    if integer:
        signed = not integer["unsigned"]
        high = 2 ** (int(integer["bits"]) - signed) - 1
        return _Values("number", (high + 1 if signed else 0, high, 0))
    if word in _FLOATS:
        return _Values("float", (_FLOATS[word],))
    if word == "numeric" and not inside:
        return _Values("number", (_UNBOUNDED,) * 3)
    if word == "numeric" or word.startswith("decimal"):
        precision, scale = int(inside[0]), int(inside[1])
        whole = 10 ** (precision - scale) - 1
        return _Values("number", (whole, whole, scale))
    return None
