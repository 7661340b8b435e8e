"""Columns whose values all have the same width: numbers, dates and times, uuid, boolean.

The server sends the machine's own bits, most significant byte first (pq_sendint in
src/backend/libpq). Dates and timestamps count from 2000-01-01 there
(src/include/datatype/timestamp.h), from 1970-01-01 in Arrow; times from midnight in both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

from batch_pipelines.engine.digests import columns, crc
from batch_pipelines.engine.digests.lengths import Lengths

if TYPE_CHECKING:
    from batch_pipelines.engine.digests.columns import Mask

_DAYS_1970_TO_2000: Final = 10_957
_MICROSECONDS_1970_TO_2000: Final = _DAYS_1970_TO_2000 * 86_400_000_000


@dataclass(frozen=True, slots=True)
class Fixed:
    """A column of values of the same width.

    Attributes:
        lengths: The width, and the rows that are NULL.
        words: (n,) integers each, from the left to the right; anything where NULL.
        null: (n,) whether there is no value.
        epoch: What to subtract from each word before it is sent.
    """

    lengths: Lengths
    words: tuple[crc.Integers, ...]
    null: Mask
    epoch: int

    @classmethod
    def of(cls, column: pa.Array, null: Mask) -> Fixed:
        """View a column's values as integers.

        Args:
            column: (n,) values.
            null: (n,) whether there is no value.

        Returns:
            The column, measured.
        """
        words = _words(column)
        width = sum(word.itemsize for word in words)
        return cls(Lengths.fixed(width, null), words, null, _epoch(column.type))

    def add(self, states: crc.States, distance: int) -> None:
        """Xor in the values' contribution; see `fields.Field`."""
        nulls = len(self.lengths.rows)
        if nulls == len(states):
            return
        for word in reversed(self.words):
            if nulls:
                self._add_present(states, word, distance)
            else:
                crc.add_integers(states, word, distance, self.epoch)
            distance += word.itemsize

    def _add_present(self, states: crc.States, word: crc.Integers, distance: int) -> None:
        """Lend NULLs a value of another row, which keeps the range narrow, and take it back."""
        some = int(np.argmin(self.null))
        loan = word[some : some + 1]
        filled = word.copy()
        filled[self.lengths.rows] = loan
        crc.add_integers(states, filled, distance, self.epoch)
        taken_back = np.zeros(1, np.uint32)
        crc.add_integers(taken_back, loan, distance, self.epoch)
        states[self.lengths.rows] ^= taken_back


def _words(column: pa.Array) -> tuple[crc.Integers, ...]:
    if pa.types.is_boolean(column.type):
        return (columns.booleans(column).view(np.int8),)
    if pa.types.is_fixed_size_binary(column.type):
        words = columns.fixed(column, ">i8", column.type.byte_width // 8)
        return tuple(word.astype(np.int64) for word in words.T)
    return (columns.fixed(column, f"i{column.type.bit_width // 8}")[:, 0],)


def _epoch(arrow: pa.DataType) -> int:
    if pa.types.is_date(arrow):
        return _DAYS_1970_TO_2000
    if pa.types.is_timestamp(arrow):
        return _MICROSECONDS_1970_TO_2000
    return 0
