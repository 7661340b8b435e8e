"""Turning a file's columns into the Arrow type whose bytes PostgreSQL's binary COPY takes.

Strict on purpose: a value is converted exactly or refused with its place. Nothing is rounded,
shortened, wrapped or guessed; where two readings are possible, neither is taken.
"""

from __future__ import annotations

import binascii
import decimal
import re
import uuid
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batch_pipelines.engine.rejects import (
    BAD_ENCODING,
    BAD_TIME,
    BAD_VALUE,
    NOT_NULL,
    OUT_OF_RANGE,
    TOO_LONG,
    Breach,
)
from batch_pipelines.engine.wire_types import NUMERIC

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from batch_pipelines.engine.catalog import Column


# What PostgreSQL's types hold (src/include/datatype/timestamp.h), in Arrow's days or microseconds
# since 1970: from 4714-11-24 BC to the end of the year 5874897 or 294276, and 00:00 to 24:00.
_RANGES = {
    pa.date32(): (-2_440_588, 2_145_031_948),
    pa.time64("us"): (0, 86_400_000_000),
    pa.timestamp("us"): (-210_866_803_200_000_000, 9_223_371_331_199_999_999),
}
_MICROSECOND_DIGITS = 6
# int64 and uint64 have up to 20 digits, for which Arrow wants room before it makes them decimals.
_ANY_INTEGER = pa.decimal128(20, 0)
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", re.ASCII)
_WHOLE = re.compile(r"-?[0-9]+", re.ASCII)
_UUID = re.compile(
    r"(\{)?[0-9a-f]{8}(-?)[0-9a-f]{4}\2[0-9a-f]{4}\2[0-9a-f]{4}\2[0-9a-f]{12}(?(1)\})",
    re.ASCII | re.IGNORECASE,
)


# What may have space around it: for PostgreSQL, and for Arrow's CSV parser, which reads these too.
_TRIMMED = (
    pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_date,
)  # fmt: skip


class _RefusedError(Exception):
    """Some value of an array cannot be converted."""


def to_wire(
    values: pa.Array, column: Column, *, written: bool
) -> tuple[pa.Array, dict[int, Breach]]:
    """Convert one column of a chunk.

    Args:
        values: The column as the file has it.
        column: The target column.
        written: Whether the values are written out as text (CSV) and not typed (Parquet).

    Returns:
        An array of the column's wire type, or of strings where it is loaded as text; and what is
        wrong with which value, by its index. Those are null in the array.
    """
    wrong = {}
    try:
        converted = _convert(values, column, written=written)
    except _RefusedError:
        if pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        converted = pa.concat_arrays(_convert_some(values, column, written=written))
        refused = pc.and_(values.is_valid(), converted.is_null())
        for place in np.flatnonzero(refused.to_numpy(zero_copy_only=False)).tolist():
            wrong[place] = _breach(values[place], column, written=written)
    if column.not_null and converted.null_count > len(wrong):
        message = "has no value, and the table needs one there"
        for place in np.flatnonzero(converted.is_null().to_numpy(zero_copy_only=False)).tolist():
            wrong.setdefault(place, Breach(NOT_NULL, message, column.name))
    return converted, wrong


def _convert_some(values: pa.Array, column: Column, *, written: bool) -> list[pa.Array]:
    """Convert what can be, in parts; what cannot is null."""
    strange = None if column.wire is None else _STRANGE.get(column.wire.oid)
    if strange is not None and values.type in _MATCHED:
        # Most of what is wrong is plain to see at once; the rest is found by halving.
        possible = pc.invert(pc.match_substring_regex(values, strange))
        values = pc.if_else(possible, values, pa.scalar(None, values.type))
    return _halved(values, column, written=written)


def _halved(values: pa.Array, column: Column, *, written: bool) -> list[pa.Array]:
    try:
        return [_convert(values, column, written=written)]
    except _RefusedError:
        if len(values) == 1:
            return [pa.nulls(1, _wanted(column))]
        half = len(values) // 2
        return [
            *_halved(values.slice(0, half), column, written=written),
            *_halved(values.slice(half), column, written=written),
        ]


def _breach(value: pa.Scalar, column: Column, *, written: bool) -> Breach:
    """Say why a value is refused, with PostgreSQL's code for that, and without the value."""
    kind, text = _wanted(column), None
    if written or _is_string(value.type):
        try:
            text = value.as_buffer().to_pybytes().decode()
        except UnicodeDecodeError:
            return Breach(BAD_ENCODING, "is not UTF-8", column.name)
        if "\0" in text:
            message = "holds a NUL, which PostgreSQL's text cannot"
            return Breach(BAD_ENCODING, message, column.name)
    if _is_number(kind) and (_is_number(value.type) if text is None else _is_meant(text, kind)):
        return Breach(OUT_OF_RANGE, f"does not fit into {column.type_name}", column.name)
    code = BAD_TIME if pa.types.is_temporal(kind) else BAD_VALUE
    if text is not None and column.max_length is not None and len(text) > column.max_length:
        code = TOO_LONG
    return Breach(code, f"is not a valid {column.type_name}", column.name)


def _is_number(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    )


def _is_meant(text: str, kind: pa.DataType) -> bool:
    """Tell a number that is written as one of this kind, whatever its size."""
    pattern = _WHOLE if pa.types.is_integer(kind) else _DECIMAL
    return pattern.fullmatch(text.strip(" \t")) is not None


def _wanted(column: Column) -> pa.DataType:
    return pa.string() if column.wire is None else column.wire.arrow


def _convert(values: pa.Array, column: Column, *, written: bool) -> pa.Array:
    wanted = _wanted(column)
    try:
        if pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        if pa.types.is_null(values.type):
            return pa.nulls(len(values), wanted)
        if written or _is_string(values.type):
            return _check(_from_text(values, wanted, column), column)
        return _check(_from_typed(values, wanted), column)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError):
        raise _RefusedError from None


def _is_string(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _from_text(values: pa.Array, wanted: pa.DataType, column: Column) -> pa.Array:
    text = values.cast(pa.string())  # refuses bytes that are not UTF-8
    if _is_string(values.type):
        text.validate(full=True)  # Parquet's strings are not looked at until somebody does
    if any(kind(wanted) for kind in _TRIMMED):
        text = pc.utf8_trim(text, " \t")
    special = _TEXT_READERS.get(column.wire.oid) if column.wire is not None else None
    if special is not None:
        return special(text, wanted)
    converted = text.cast(wanted)
    if pa.types.is_integer(wanted) and _any(pc.match_substring(text, "x", ignore_case=True)):
        # Arrow reads 0x10 as 16, and PostgreSQL before 16 does not read it at all.
        raise _RefusedError
    if pa.types.is_floating(wanted):
        # Arrow turns what is too large into infinity; only a written infinity may be one.
        written = pc.match_substring(text, "inf", ignore_case=True)
        if _any(pc.and_not(pc.is_inf(converted), written)):
            raise _RefusedError
    return converted


def _from_typed(values: pa.Array, wanted: pa.DataType) -> pa.Array:
    kind = values.type
    if kind == wanted:
        return _in_range(values)
    if pa.types.is_timestamp(wanted) and pa.types.is_timestamp(kind):
        if (kind.tz is None) != (wanted.tz is None):
            # A cast would take a local time for UTC without a word.
            raise _RefusedError
        return _in_range(values.cast(wanted))
    if wanted == pa.string():
        # PostgreSQL's own rendering of a number or time may differ from Arrow's.
        raise _RefusedError
    if wanted == pa.binary(16) or wanted == pa.binary():
        return values.cast(wanted)
    families = (
        pa.types.is_boolean, pa.types.is_date, pa.types.is_time, pa.types.is_timestamp,
    )  # fmt: skip
    if any(family(kind) != family(wanted) for family in families):
        raise _RefusedError
    if pa.types.is_floating(wanted):
        return _round_trip(values, wanted)
    if pa.types.is_decimal(wanted):
        if pa.types.is_integer(kind):
            values = values.cast(_ANY_INTEGER)
        return (_round_trip if pa.types.is_floating(kind) else _rescale)(values, wanted)
    return _in_range(values.cast(wanted))


def _round_trip(values: pa.Array, wanted: pa.DataType) -> pa.Array:
    """Cast from or to floats: equal on the way back, or something was lost on the way there."""
    converted = _cast_exactly(values, wanted)
    same = pc.equal(_cast_exactly(converted, values.type), values)
    if pa.types.is_floating(values.type):
        same = pc.or_kleene(same, pc.is_nan(values))
    if _any(pc.invert(same)):
        raise _RefusedError
    return converted


def _rescale(values: pa.Array, wanted: pa.DataType) -> pa.Array:
    if wanted.scale > values.type.scale:
        # Arrow does not see an overflow of 128 bits; in 256 there can be none.
        safe = values.cast(pa.decimal128(38, values.type.scale))
        return safe.cast(pa.decimal256(76, wanted.scale)).cast(wanted)
    return values.cast(wanted)


def _cast_exactly(values: pa.Array, wanted: pa.DataType) -> pa.Array:
    if pa.types.is_decimal(values.type) and pa.types.is_floating(wanted):
        # Arrow multiplies by a power of ten, which is off in the last bit for every eighth price.
        return values.cast(pa.string()).cast(wanted)
    return values.cast(wanted)


def _in_range(values: pa.Array) -> pa.Array:
    """Refuse a date or time that Arrow can hold and PostgreSQL cannot."""
    kind = pa.timestamp("us") if pa.types.is_timestamp(values.type) else values.type
    if kind in _RANGES:
        low, high = _RANGES[kind]
        numbers = _numbers(values)
        if numbers.size and not low <= numbers.min() <= numbers.max() <= high:
            raise _RefusedError
    return values


def _numbers(values: pa.Array) -> npt.NDArray[np.signedinteger[Any]]:
    """View dates or times as the integers they are, without the nulls."""
    integer = pa.int32() if pa.types.is_date32(values.type) else pa.int64()
    return values.drop_null().view(integer).to_numpy()  # type: ignore[no-any-return]


def _check(values: pa.Array, column: Column) -> pa.Array:
    if pa.types.is_string(values.type):
        if _any(pc.match_substring(values, "\0")):
            raise _RefusedError  # PostgreSQL has no place for a NUL in text
        limit = column.max_length
        if limit is not None and _any(pc.greater(pc.utf8_length(values), limit)):
            raise _RefusedError
    digits = column.second_digits
    if digits is not None and np.any(_numbers(values) % 10 ** (_MICROSECOND_DIGITS - digits)):
        raise _RefusedError  # PostgreSQL would round
    return values


def _any(mask: pa.Array) -> bool:
    return bool(pc.any(mask).as_py())


def _numeric(text: pa.Array, wanted: pa.DataType) -> pa.Array:
    """Read decimals; Arrow only those that it cannot get wrong.

    What exceeds 128 bits on the way to the wanted scale wraps around in Arrow, without a word.
    """
    plain = rf"^[+-]?[0-9]{{0,{wanted.precision - wanted.scale}}}(\.[0-9]{{0,{wanted.scale}}})?$"
    if not _any(pc.invert(pc.match_substring_regex(text, plain))):
        return text.cast(wanted)
    exact = decimal.Context(
        prec=wanted.precision, traps=[decimal.Inexact, decimal.InvalidOperation]
    )
    unit = decimal.Decimal(1).scaleb(-wanted.scale)

    def read(value: str) -> decimal.Decimal:
        if not _DECIMAL.fullmatch(value):
            raise ValueError
        try:
            return decimal.Decimal(value).quantize(unit, context=exact)
        except decimal.DecimalException:
            raise ValueError from None

    return pa.array([None if v is None else read(v) for v in text.to_pylist()], wanted)


def _time(text: pa.Array, wanted: pa.DataType) -> pa.Array:
    # Arrow reads times of day only as part of a timestamp, where an hour alone would do.
    if _any(pc.invert(pc.match_substring(text, ":"))):
        raise _RefusedError
    dated = pc.binary_join_element_wise("1970-01-01", text, " ")
    return dated.cast(pa.timestamp("us")).cast(wanted)


def _date(text: pa.Array, wanted: pa.DataType) -> pa.Array:
    # PostgreSQL knows no year 0, which Arrow takes for 1 BC.
    if _any(pc.starts_with(text, "0000")):
        raise _RefusedError
    return text.cast(wanted)


def _uuid(text: pa.Array, wanted: pa.DataType) -> pa.Array:
    def read(value: str) -> bytes:
        if not _UUID.fullmatch(value):
            raise ValueError  # Python's own reader drops any hyphen, brace and underscore
        return uuid.UUID(value).bytes

    return pa.array([None if v is None else read(v) for v in text.to_pylist()], wanted)


def _bytea(text: pa.Array, wanted: pa.DataType) -> pa.Array:
    def read(value: str) -> bytes:
        if not value.startswith("\\x"):
            raise ValueError  # PostgreSQL's hex format, the one reading that is not ambiguous
        return binascii.unhexlify(value[2:])

    return pa.array([None if v is None else read(v) for v in text.to_pylist()], wanted)


def _boolean(text: pa.Array, wanted: pa.DataType) -> pa.Array:
    lower = pc.utf8_lower(text)
    true = pc.is_in(lower, pa.array(["t", "true", "y", "yes", "on", "1"]))
    false = pc.is_in(lower, pa.array(["f", "false", "n", "no", "off", "0"]))
    if _any(pc.and_(text.is_valid(), pc.invert(pc.or_(true, false)))):
        raise _RefusedError
    return pc.if_else(text.is_valid(), true, pa.scalar(None, wanted))


# By the OID of the wire type: what Arrow's casts from text read too narrowly or not at all.
_TEXT_READERS: dict[int, Callable[[pa.Array, pa.DataType], pa.Array]] = {
    16: _boolean,
    17: _bytea,
    1082: _date,
    1083: _time,
    1114: _date,
    1184: _date,
    NUMERIC: _numeric,
    2950: _uuid,
}

# Written values are bytes; Arrow has no regular expressions for its other kinds of text.
_MATCHED = frozenset({pa.binary(), pa.string()})
# By the OID of the wire type: characters that no value of it has, however it is written. Narrower than
# what is refused, never wider: this only saves the halving.
_INTEGER, _TIME = r"[^0-9+\- \t]", r"[^0-9:+\-. TZ\t]"
_STRANGE = {
    20: _INTEGER,
    21: _INTEGER,
    23: _INTEGER,
    700: r"[^0-9+\-.eEinfatyINFATY \t]",
    701: r"[^0-9+\-.eEinfatyINFATY \t]",
    NUMERIC: r"[^0-9+\-.eE \t]",
    1082: r"[^0-9\- \t]",
    1083: _TIME,
    1114: _TIME,
    1184: _TIME,
    2950: r"[^0-9a-fA-F{}\-]",
}
