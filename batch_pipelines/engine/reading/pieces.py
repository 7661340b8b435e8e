"""Pieces: record batches of bounded size, cut from those that a columnar file is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterator

# At most so many rows at a time, and fewer of wide ones: some 4 MB of the file, like a block of CSV.
BATCH_ROWS: Final = 32_768
BATCH_BYTES: Final = 4_000_000
# In memory the same rows may be larger; above this they are cut once more.
_PIECE_BYTES: Final = 8_000_000


def rows_of_width(width: float) -> int:
    """Choose how many rows to read at a time.

    Args:
        width: Bytes of a row, as far as the file tells.
    """
    return max(1, min(BATCH_ROWS, int(BATCH_BYTES / max(width, 1.0))))


def cut(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Cut a record batch into pieces of about the same size, without copying it.

    Args:
        batch: Any number of rows, whose arrays have buffers of the right sizes.

    Yields:
        Its rows in order; nothing where there are none.
    """
    rows = batch.num_rows
    size = sum(_size(column) for column in batch.columns)
    parts = max(-(-rows // BATCH_ROWS), int(size / _PIECE_BYTES), 1)
    step = max(1, -(-rows // parts))
    for start in range(0, rows, step):
        yield batch.slice(start, step)


def _size(values: pa.Array) -> float:
    """Estimate the bytes of an array, a dictionary's values as often as they are used."""
    if isinstance(values, pa.DictionaryArray):
        width: float = values.dictionary.nbytes / max(len(values.dictionary), 1)
        return len(values) * width
    size: int = values.nbytes
    return size
