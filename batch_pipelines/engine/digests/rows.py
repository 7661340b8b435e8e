"""The CRC of each row of a batch, as PostgreSQL computes it from the row it has stored.

What lives here: the row as record_send (src/backend/utils/adt/rowtypes.c) writes it, all
big-endian:

    int32 number of columns, then for each column: int32 type, int32 length (-1 for NULL), data

and how rows of different lengths are worked on together. What does not: the columns' data
(`fields`).

A *usual* row has in every column the length that is most frequent there. In it each byte has a
known distance from the end, so a value's contribution comes from a table (see `crc`) and all that
is not a value is one constant. A row that differs in a column is bent when that column is reached:
what it has to the left is moved by the difference, so that the rest of it lies as in a usual row
again.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

from batch_pipelines.engine.digests import crc
from batch_pipelines.engine.digests.fields import field_of
from batch_pipelines.engine.digests.lengths import NULL

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from batch_pipelines.engine.digests.lengths import Lengths
    from batch_pipelines.engine.wire_types import WireType

_COUNT: Final = struct.Struct(">i")
_HEADER: Final = struct.Struct(">Ii")


def row_crc32c(types: Sequence[WireType], columns: Sequence[pa.Array]) -> npt.NDArray[np.uint32]:
    """Compute `crc32c(record_send(ROW(...)))` for each row, without a server.

    Args:
        types: Each column's type; at least one.
        columns: (n,) values each, in the Arrow type that its wire type names.

    Returns:
        (n,) one CRC32C a row.

    Raises:
        TypeError: A column is chunked, or its Arrow type is not that of its wire type.
        ValueError: There is no column, not one for each type, or they differ in length.
    """
    _check(types, columns)
    if not len(columns[0]):
        return np.zeros(0, np.uint32)
    fields = [field_of(*pair) for pair in zip(types, columns, strict=True)]
    usual = _COUNT.pack(len(fields)) + b"".join(
        _HEADER.pack(wire_type.oid, field.lengths.usual) + bytes(field.lengths.usual)
        for wire_type, field in zip(types, fields, strict=True)
    )
    states = np.full(len(columns[0]), crc.state_of(usual, crc.ALL_ONES), np.uint32)
    end = _COUNT.size
    for field in fields:
        end += _HEADER.size + field.lengths.usual
        if len(field.lengths.rows):
            _bend(states, field.lengths, usual[end:])
        field.add(states, len(usual) - end)
    return states ^ np.uint32(crc.ALL_ONES)


def _bend(states: crc.States, lengths: Lengths, following: bytes) -> None:
    """Give the exceptions of a column their length, before its data are added.

    Args:
        states: (n,) states, of which those of the exceptions change.
        lengths: The column's lengths.
        following: The usual row from the end of the column on; its constants are in the states
            already, and stay where they are.
    """
    constants = np.uint32(crc.state_of(following))
    states_of_left = states[lengths.rows] ^ constants
    instead = lengths.fields ^ np.int32(lengths.usual)
    crc.add_integers(states_of_left, instead, len(following) + lengths.usual)
    added = np.where(lengths.fields == NULL, 0, lengths.fields) - np.int32(lengths.usual)
    states[lengths.rows] = crc.shift_each(states_of_left, added) ^ constants


def _check(types: Sequence[WireType], columns: Sequence[pa.Array]) -> None:
    if not types:
        raise ValueError("A row digest needs at least one column; rows without any are all equal.")
    if len(types) != len(columns):
        raise ValueError(f"Expected a column for each of {len(types)} types, found {len(columns)}.")
    for number, (wire_type, column) in enumerate(zip(types, columns, strict=True), start=1):
        if not isinstance(column, pa.Array) or column.type != wire_type.arrow:
            raise TypeError(
                f"Column {number} ({wire_type.name}) must come as an Arrow array of "
                f"{wire_type.arrow}, found {type(column).__name__} of {column.type}; cast it or "
                "combine its chunks first."
            )
        if len(column) != len(columns[0]):
            raise ValueError(
                f"Column {number} has {len(column)} rows where the first has {len(columns[0])}; "
                "a batch's columns must be equally long."
            )
