"""How many records a file holds, by a reader that is simpler than the one that loads.

A CSV's records are counted by a scan over its bytes that knows quotes and line ends and nothing else;
a Parquet file says it in its footer. The publish transaction balances its books against this number.
"""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batch_pipelines.engine.errors import DeliveryError

if TYPE_CHECKING:
    from pathlib import Path

_QUOTE, _NEWLINE, _RETURN = 0x22, 0x0A, 0x0D


class CsvScan:
    """Counts the records of a CSV file fed to it in pieces.

    A record begins with the first byte after a line end outside quotes; empty lines are no records.
    Inside quotes means after an odd number of quote characters, which RFC 4180's doubling of quotes
    inside quoted fields makes true at any place.
    """

    def __init__(self) -> None:
        self._fed = False
        self._begun = 0
        self._inside = False
        self._after_break = True

    def feed(self, piece: bytes) -> None:
        """Take the next bytes of the file.

        Args:
            piece: Any number of bytes, the first piece at least three.
        """
        if not self._fed:
            # A byte order mark is no record, not even before an empty line.
            self._fed, piece = True, piece.removeprefix(codecs.BOM_UTF8)
        if not piece:
            return
        data = np.frombuffer(piece, dtype=np.uint8)
        breaks = (data == _NEWLINE) | (data == _RETURN)
        if self._inside or _QUOTE in piece:
            inside = np.logical_xor.accumulate(data == _QUOTE) ^ self._inside
            breaks &= ~inside
            self._inside = bool(inside[-1])
        after_break = np.empty(len(data), dtype=bool)
        after_break[0] = self._after_break
        after_break[1:] = breaks[:-1]
        self._begun += int(np.count_nonzero(after_break & ~breaks))
        self._after_break = bool(breaks[-1])

    def records(self, where: str) -> int:
        """End the count.

        Args:
            where: The file, for messages.

        Returns:
            Records, the header line not among them.

        Raises:
            DeliveryError: The file is empty, or ends inside a quoted field.
        """
        if self._begun == 0:
            message = f"{where}: the file is empty; expected a header line. Deliver it again."
            raise DeliveryError(message)
        if self._inside:
            message = (
                f"{where}: the file ends inside a quoted field: a quote is missing, or the file was "
                "cut off. Deliver it again."
            )
            raise DeliveryError(message)
        return self._begun - 1


def parquet_records(path: Path) -> int:
    """Read the number of rows from a Parquet file's footer.

    Args:
        path: The file.

    Returns:
        Its rows.

    Raises:
        DeliveryError: It has no readable footer.
    """
    try:
        return int(pq.read_metadata(path).num_rows)
    except (pa.ArrowException, OSError):
        message = (
            f"{path.name}: not a whole Parquet file: its footer cannot be read. Deliver it again."
        )
        raise DeliveryError(message) from None
