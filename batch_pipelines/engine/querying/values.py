"""Values as a database's driver gives them, made an Arrow array: exactly, or not at all."""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from batch_pipelines.engine.errors import DeliveryError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_ARROW: Final[dict[type, pa.DataType]] = {
    bool: pa.bool_(),
    int: pa.int64(),
    float: pa.float64(),
    str: pa.string(),
    bytes: pa.binary(),
    dt.date: pa.date32(),
    dt.time: pa.time64("us"),
    dt.datetime: pa.timestamp("us"),
}
# Text that says the same value, for what has no type that holds all of it, and for columns without a
# type. The repr of a float is the shortest that reads back as it.
_TEXT: Final[dict[type, Callable[[Any], str]]] = {
    int: str,
    float: repr,
    str: str,
    Decimal: lambda value: format(value, "f"),
    uuid.UUID: str,
}
_INT64: Final = range(-(2**63), 2**63)


def to_array(
    values: Sequence[Any], name: str, *, real: bool = False, untyped: bool = False
) -> pa.Array:
    """Make an array of a column's values.

    Args:
        values: The values; None is null.
        name: The column's name, for messages.
        real: Whether they are floats of 32 bits, which the driver gives in 64.
        untyped: Whether rows elsewhere in the column may be of another kind, so that numbers are written
            out everywhere.

    Returns:
        An array of the type that holds them all; of strings where there is none but that, or no value.

    Raises:
        DeliveryError: They are of a kind, or of kinds together, that cannot be kept exactly.
    """
    kinds = {*map(type, values)} - {type(None)}
    if kinds & {memoryview, bytearray}:
        values = [bytes(v) if isinstance(v, memoryview | bytearray) else v for v in values]
        kinds = kinds - {memoryview, bytearray} | {bytes}
    written = untyped and kinds <= _TEXT.keys()
    if len(kinds) == 1 and not written and (kind := next(iter(kinds))) in _ARROW:
        if kind is dt.datetime or kind is dt.time:
            return _times(values, kind, name)
        if kind is not int or all(v is None or v in _INT64 for v in values):
            return pa.array(values, pa.float32() if real else _ARROW[kind])
    if kinds <= _TEXT.keys():
        return pa.array([None if v is None else _TEXT[type(v)](v) for v in values], pa.string())
    raise _refusal(name, " and ".join(sorted(kind.__name__ for kind in kinds)))


def _times(values: Sequence[Any], kind: type, name: str) -> pa.Array:
    zoned = {v.tzinfo is not None for v in values if v is not None}
    if len(zoned) > 1:
        raise _refusal(name, f"{kind.__name__} with and without time zone")
    if zoned == {False}:
        return pa.array(values, _ARROW[kind])
    if kind is dt.datetime:
        return pa.array(values, pa.timestamp("us", tz="UTC"))
    return pa.array([None if v is None else v.isoformat() for v in values], pa.string())


def _refusal(name: str, kinds: str) -> DeliveryError:
    return DeliveryError(
        f"Column {name} has values of the kind {kinds}, which cannot be kept exactly. "
        "Cast it to text in the SELECT."
    )
