"""The closed list of column types whose values keep their bytes on the way into PostgreSQL.

For each: the Arrow type a batch carries it in. `digests` knows how such a value looks on the wire
and can foretell a row's digest; a type that is not listed here is loaded as text, and says so. This
module decides only what is in the list; it neither reads a catalog nor converts a value.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import pyarrow as pa

NUMERIC: Final = 1700
"""OID of numeric, the one type here whose modifier decides whether and how it is carried."""

_DECIMAL128_DIGITS: Final = 38  # what 128 bits hold; numeric itself goes on to 1000
_MOST_DIGITS: Final = 1000
_NUMERIC: Final = re.compile(r"numeric\((\d+),(\d+)\)")
_NUMERIC_NAME: Final = re.compile(rf"numeric\({_MOST_DIGITS},(\d+)\)")


@dataclass(frozen=True, slots=True)
class WireType:
    """A PostgreSQL type and the Arrow type that carries it without loss.

    Attributes:
        oid: Its row in pg_type; the same on every server, because these types are built in.
        name: What a person calls it, e.g. `numeric(10,2)`.
        arrow: The Arrow type of a column of it.
    """

    oid: int
    name: str
    arrow: pa.DataType

    @property
    def digested_as(self) -> str:
        """The type to cast a value to for the same bytes; of a numeric only the scale is in them."""
        if self.oid == NUMERIC:
            return f"numeric({_MOST_DIGITS},{self.arrow.scale})"
        return self.name


_BY_OID: Final = MappingProxyType(
    {
        listed.oid: listed
        for listed in (
            WireType(16, "boolean", pa.bool_()),
            WireType(17, "bytea", pa.binary()),
            WireType(20, "bigint", pa.int64()),
            WireType(21, "smallint", pa.int16()),
            WireType(23, "integer", pa.int32()),
            WireType(25, "text", pa.string()),
            WireType(700, "real", pa.float32()),
            WireType(701, "double precision", pa.float64()),
            WireType(1043, "character varying", pa.string()),
            WireType(1082, "date", pa.date32()),
            WireType(1083, "time without time zone", pa.time64("us")),
            WireType(1114, "timestamp without time zone", pa.timestamp("us")),
            WireType(1184, "timestamp with time zone", pa.timestamp("us", tz="UTC")),
            WireType(2950, "uuid", pa.binary(16)),
        )
    }
)


def wire_type(oid: int, typmod: int) -> WireType | None:
    """Look a column's type up in the closed list.

    Args:
        oid: `pg_attribute.atttypid`.
        typmod: `pg_attribute.atttypmod`; -1 where the type has no modifier.

    Returns:
        The type, or None where the column has to be loaded as text: a type not in the list, a
        numeric without precision, or one that 128 bits cannot carry.
    """
    if oid == NUMERIC:
        return _numeric(typmod)
    return _BY_OID.get(oid)


def wire_type_digested_as(name: str) -> WireType | None:
    """Look a type of the closed list up by what its values are cast to.

    Args:
        name: A `WireType.digested_as`.

    Returns:
        The type, a numeric with as many digits as are carried; None where there is none of that name.
    """
    if match := _NUMERIC_NAME.fullmatch(name):
        arrow = pa.decimal128(_DECIMAL128_DIGITS, int(match[1]))
        return WireType(NUMERIC, f"numeric({_DECIMAL128_DIGITS},{match[1]})", arrow)
    return next((listed for listed in _BY_OID.values() if listed.name == name), None)


def wire_type_named(name: str) -> WireType | None:
    """Look a type of the closed list up by its name.

    Args:
        name: A `WireType.name`.

    Returns:
        The type; None where there is none of that name.
    """
    if match := _NUMERIC.fullmatch(name):
        return _numeric((int(match[1]) << 16 | int(match[2])) + 4)
    return next((listed for listed in _BY_OID.values() if listed.name == name), None)


def _numeric(typmod: int) -> WireType | None:
    """Unpack `((precision << 16) | (scale & 0x7ff)) + 4`, as numeric.c of PostgreSQL packs it."""
    if typmod < 0:
        return None
    packed = typmod - 4
    precision = packed >> 16 & 0xFFFF
    scale = (packed & 0x7FF ^ 0x400) - 0x400  # eleven bits with a sign: PostgreSQL 15 allows -1000
    if not (1 <= precision <= _DECIMAL128_DIGITS and 0 <= scale <= precision):
        return None
    return WireType(NUMERIC, f"numeric({precision},{scale})", pa.decimal128(precision, scale))
