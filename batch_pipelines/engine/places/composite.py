"""The checksum of what was uploaded in parts: CRC32C of the parts' CRC32C, which is not the file's own.

Each part's is written as four bytes, the most significant first, one part after the other; the checksum
is CRC32C of these bytes (Amazon S3 User Guide, "Checking object integrity", composite checksums).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import crc32c

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_CRC_BYTES = 4


class CompositeCrc32c:
    """Computes it from a file's bytes as they go by.

    Args:
        parts: Sizes of the parts in bytes, in order; they add up to the file's size.
    """

    def __init__(self, parts: Iterable[int]) -> None:
        self._left = deque(parts)
        self._part = self._whole = 0

    def watching(self, read: Callable[[int], bytes]) -> Callable[[int], bytes]:
        """Have it take all that is read.

        Args:
            read: Gives at most so many of the file's next bytes.

        Returns:
            The same, watched.
        """

        def watched(size: int) -> bytes:
            piece = read(size)
            self.update(piece)
            return piece

        return watched

    def update(self, piece: bytes) -> None:
        """Take the next bytes of the file."""
        rest = memoryview(piece)
        while rest and self._left:
            own = rest[: self._left[0]]
            self._part = crc32c.crc32c(own, self._part)
            self._left[0] -= len(own)
            rest = rest[len(own) :]
            if not self._left[0]:
                self._end_part()

    def value(self) -> int:
        """Give the checksum of the parts that are complete."""
        return self._whole

    def _end_part(self) -> None:
        self._left.popleft()
        self._whole = crc32c.crc32c(self._part.to_bytes(_CRC_BYTES, "big"), self._whole)
        self._part = 0
