"""Reading Parquet: page by page, because a column of a row group may be large."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.parquet as pq

from batch_pipelines.engine.errors import DeliveryError
from batch_pipelines.engine.reading.pieces import rows_of_width

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

# A column of a row group is read in parts of this size, and not as a whole.
_PAGE_BYTES: Final = 128 * 1024


def parquet_schema(path: Path) -> pa.Schema:
    """Read names and types of a Parquet file's columns; see `columnar.SCHEMAS`."""
    with _open(path) as file:
        return file.schema_arrow


def parquet_batches(path: Path, wanted: Sequence[int]) -> Iterator[pa.RecordBatch]:
    """Read a Parquet file; see `columnar.BATCHES`."""
    with _open(path) as file:
        names = [file.schema_arrow.names[place] for place in wanted]
        try:
            yield from file.iter_batches(batch_size=_batch_rows(file), columns=names)
        except (pa.ArrowException, OSError):
            message = f"{path.name}: a page cannot be decoded: damaged. Deliver it again."
            raise DeliveryError(message) from None


def _open(path: Path) -> pq.ParquetFile:
    try:
        # Where its writer has put checksums of pages there, they count.
        return pq.ParquetFile(
            path, pre_buffer=False, buffer_size=_PAGE_BYTES, page_checksum_verification=True
        )
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        message = f"{path.name}: not a whole Parquet file. Deliver it again."
        raise DeliveryError(message) from None


def _batch_rows(file: pq.ParquetFile) -> int:
    """Choose how many rows to read at a time, by their width as the footer tells it."""
    groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
    return rows_of_width(max((g.total_byte_size / max(g.num_rows, 1) for g in groups), default=1.0))
