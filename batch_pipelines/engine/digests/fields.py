"""The data bytes of one column, as PostgreSQL's send functions write them.

What lives here: what the columns of all types have in common, and which class a type belongs to.
What does
not: the row around them (`rows`), the arithmetic (`crc`).

Every value ends up as big-endian integers at a known distance from the end of the row: a number as
one, a uuid as two, text as one every eight bytes, numeric as a head and its digits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import pyarrow as pa

from batch_pipelines.engine.digests import columns
from batch_pipelines.engine.digests.fixed import Fixed
from batch_pipelines.engine.digests.numeric import Numeric
from batch_pipelines.engine.digests.text import Text

if TYPE_CHECKING:
    from batch_pipelines.engine.digests.crc import States
    from batch_pipelines.engine.digests.lengths import Lengths
    from batch_pipelines.engine.wire_types import WireType


class Field(Protocol):
    """A column of a batch, measured, and ready to be added to the states of its rows."""

    @property
    def lengths(self) -> Lengths:
        """How long each value is on the wire."""

    def add(self, states: States, distance: int) -> None:
        """Xor the data bytes' contribution into each row's state.

        Args:
            states: (n,) states, changed in place.
            distance: Bytes of the row that follow the column.
        """


def field_of(wire_type: WireType, column: pa.Array) -> Field:
    """Measure a column.

    Args:
        wire_type: Its type; the column has the Arrow type that this names.
        column: (n > 0,) values.

    Returns:
        The column, ready to be added.
    """
    null = columns.nulls(column)
    arrow = wire_type.arrow
    if pa.types.is_decimal128(arrow):
        return Numeric.of(column, null)
    if pa.types.is_string(arrow) or pa.types.is_binary(arrow):
        return Text.of(column, null)
    return Fixed.of(column, null)
