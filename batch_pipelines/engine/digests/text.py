"""Columns of strings and bytes: the bytes themselves (textsend and byteasend send nothing else)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

from batch_pipelines.engine.digests import columns, crc
from batch_pipelines.engine.digests.lengths import Lengths

if TYPE_CHECKING:
    import numpy.typing as npt

    from batch_pipelines.engine.digests.columns import Mask
    from batch_pipelines.engine.digests.lengths import Rows, Sizes

_WORD: Final = 8  # bytes taken at a time, as one integer
_LOW_BYTES: Final = np.array([256**kept - 1 for kept in range(_WORD)] + [-1], np.int64)

# Up to so many bytes a value is taken word by word, at 10 to 30 ns a word; above, it is handed to
# the crc32c package at 0.2 us a call.
_LONGEST_IN_WORDS: Final = 64

# Encoding as a dictionary costs as much as the calls it may save, so a sample decides.
_SAMPLE: Final = 1024


@dataclass(frozen=True, slots=True)
class Text:
    """A column of values of any length.

    Words are taken from the end of each value: there the distance to the end of the row does not
    depend on the value's length. The first word of a value is cut to length, as leading zeros
    contribute nothing.

    Attributes:
        lengths: The length fields.
        column: The values.
        sizes: (n,) data bytes; 0 where there is no value.
        ends: (n,) where in `data` each value ends.
        data: The bytes of all values, after eight that belong to none, so that every end has a
            word.
    """

    lengths: Lengths
    column: pa.Array
    sizes: Sizes
    ends: npt.NDArray[np.int64]
    data: npt.NDArray[np.uint8]

    @classmethod
    def of(cls, column: pa.Array, null: Mask) -> Text:
        """Find the values' places.

        Args:
            column: (n,) values.
            null: (n,) whether there is no value.

        Returns:
            The column, measured.
        """
        offsets = columns.offsets(column)
        sizes = np.diff(offsets)
        sizes[null] = 0  # Arrow allows bytes under a NULL
        first, last = int(offsets[0]), int(offsets[-1])
        data = np.concatenate([np.zeros(_WORD, np.uint8), columns.data(column)[first:last]])
        ends = offsets[1:] + np.int64(_WORD - first)
        return cls(Lengths.varying(sizes, null), column, sizes, ends, data)

    def add(self, states: crc.States, distance: int) -> None:
        """Xor in the values' contribution; see `fields.Field`."""
        is_long = self.sizes > _LONGEST_IN_WORDS
        sizes = np.where(is_long, np.int32(0), self.sizes)
        for passed in range(0, int(sizes.max()), _WORD):
            reaches = sizes > passed
            rows = slice(None) if reaches.all() else np.flatnonzero(reaches)
            part = states[rows]
            crc.add_integers(part, self._words(rows, passed), distance + passed)
            states[rows] = part
        if is_long.any():
            self._add_long(states, np.flatnonzero(is_long), distance)

    def _words(self, rows: slice | Rows, passed: int) -> npt.NDArray[np.int64]:
        """Read the eight bytes before the last `passed`; zeros where a value does not reach."""
        if not len(self.lengths.rows):  # all of the same size: the words stand at equal distances
            size = self.lengths.usual
            shape, first = len(self.sizes), size - passed
            words = np.ndarray(shape, ">i8", self.data, first, (size,)).astype(np.int64)
            words &= _LOW_BYTES[min(size - passed, _WORD)]
            return words
        every_place = np.ndarray(len(self.data) - _WORD + 1, "<i8", self.data, strides=(1,))
        words = every_place[self.ends[rows] - (passed + _WORD)].byteswap().astype(np.int64)
        words &= _LOW_BYTES[np.minimum(self.sizes[rows] - passed, _WORD)]
        return words

    def _add_long(self, states: crc.States, rows: Rows, distance: int) -> None:
        values = self.column.take(pa.array(rows))
        sample = values.slice(0, _SAMPLE)
        if len(sample.unique()) * 2 > len(sample):
            states[rows] ^= crc.shift(_states_of(values), distance)
        else:
            encoded = values.dictionary_encode()
            distinct = crc.shift(_states_of(encoded.dictionary), distance)
            states[rows] ^= distinct[encoded.indices.to_numpy()]


def _states_of(values: pa.Array) -> crc.States:
    data = columns.data(values).data
    bounds = itertools.pairwise(columns.offsets(values).tolist())
    return crc.states_of(data[start:end] for start, end in bounds)
