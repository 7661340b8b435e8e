"""How many bytes each row of a batch has in one column, told by the exceptions.

In most columns most rows have the same length, and only the others cost time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from batch_pipelines.engine.digests.columns import Mask

Rows: TypeAlias = "npt.NDArray[np.intp]"
Sizes: TypeAlias = "npt.NDArray[np.int32]"

NULL: Final = -1
"""What stands in the length field of a column that has no value."""

_LONGEST_USUAL: Final = 64  # bounds the memory for counting; longer values are never many a second


@dataclass(frozen=True, slots=True)
class Lengths:
    """The length fields of one column.

    Attributes:
        usual: Data bytes of every row but the exceptions. Any number would be correct, the most
            frequent one is fastest.
        rows: (m,) the exceptions, ascending.
        fields: (m,) their length fields: data bytes, or `NULL`.
    """

    usual: int
    rows: Rows
    fields: Sizes

    @classmethod
    def fixed(cls, width: int, null: Mask) -> Lengths:
        """Describe a column of equally long values.

        Args:
            width: Data bytes of a value.
            null: (n,) whether there is no value.

        Returns:
            The lengths; every NULL is an exception.
        """
        rows = np.flatnonzero(null)
        return cls(width, rows, np.full(len(rows), NULL, np.int32))

    @classmethod
    def varying(cls, sizes: Sizes, null: Mask) -> Lengths:
        """Describe a column of values of different lengths.

        Args:
            sizes: (n > 0,) data bytes of each value; 0 where there is none.
            null: (n,) whether there is no value.

        Returns:
            The lengths; the most frequent size is the usual one.
        """
        usual = int(sizes[0])
        unusual = sizes != usual
        if unusual.any():
            usual = int(np.bincount(np.minimum(sizes, _LONGEST_USUAL)).argmax())
            unusual = sizes != usual
        rows = np.flatnonzero(unusual | null)
        return cls(usual, rows, np.where(null[rows], np.int32(NULL), sizes[rows]))
