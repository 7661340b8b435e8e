"""Many rows' CRCs as three numbers, the same whatever order the rows come in.

Not their xor: equal rows would cancel out. Not their sum alone: CRC is linear, so exchanging values
of equal width between two rows leaves the sum unchanged about once in ten thousand times; the
second moment sees that.

The three numbers find accidents. They are no proof against intent, as a CRC can be forged in no
time, and a row's CRC does not identify it: among a million rows about a hundred pairs collide.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

CENTRE: Final = 1 << 31
"""Subtracted before squaring, so that a square fits 63 bits (a bigint, too)."""


@dataclass(frozen=True, slots=True)
class RowDigest:
    """What a set of rows adds up to; digests of disjoint sets can be added.

    Attributes:
        rows: How many.
        total: Sum of the rows' CRCs.
        moment: Sum of (CRC - 2^31)^2.
    """

    rows: int
    total: int
    moment: int

    @classmethod
    def zero(cls) -> RowDigest:
        """Give the digest of no rows."""
        return cls(0, 0, 0)

    @classmethod
    def of(cls, crcs: npt.NDArray[np.uint32]) -> RowDigest:
        """Add up rows, exactly.

        Args:
            crcs: (n < 2^32,) one CRC32C a row.

        Returns:
            Their digest.
        """
        squares = np.square(crcs.astype(np.int64) - CENTRE)
        # 2^32 squares overflow 64 bits, 2^32 halves of squares do not.
        upper, lower = squares >> 32, squares & 0xFFFFFFFF
        moment = (int(upper.sum(dtype=np.uint64)) << 32) + int(lower.sum(dtype=np.uint64))
        return cls(len(crcs), int(crcs.sum(dtype=np.uint64)), moment)

    def __str__(self) -> str:
        return f"rows={self.rows} sum={self.total} moment={self.moment}"

    def __add__(self, other: RowDigest) -> RowDigest:
        return RowDigest(
            self.rows + other.rows, self.total + other.total, self.moment + other.moment
        )
