"""Parquet files of rows: written as rows arrive, and read again with their digest.

Each has its table's columns with their PostgreSQL types in its metadata, so that it says by itself what
it holds.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.parquet as pq

from batch_pipelines.engine.archiving.rows.copy_out import schema_of
from batch_pipelines.engine.digests import RowDigest, row_crc32c
from batch_pipelines.engine.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from batch_pipelines.engine.archiving.rows.shape import HeldColumn

TABLE_KEY: Final = b"postgresql.table"
TYPE_KEY: Final = b"postgresql.type"
"""What the metadata of a file, and of each of its fields, say."""
# A row group is what a reader has in memory at least. It ends with whichever comes first.
_GROUP_ROWS: Final = 1 << 17
_GROUP_BYTES: Final = 32 << 20
_READ_ROWS: Final = 1 << 14
_REMEDY: Final = "Restore the bag from a backup, and run again."


def write_rows(
    path: Path, full_name: str, columns: Sequence[HeldColumn], batches: Iterable[pa.RecordBatch]
) -> int:
    """Write rows into a new file, and have it on the disk.

    Args:
        path: The file.
        full_name: The table.
        columns: Its columns.
        batches: Its rows.

    Returns:
        How many.
    """
    fields = [
        field.with_metadata({TYPE_KEY: column.type_name.encode()})
        for field, column in zip(schema_of(columns), columns, strict=True)
    ]
    schema = pa.schema(fields, {TABLE_KEY: full_name.encode()})
    rows = 0
    with path.open("wb") as file:
        with pq.ParquetWriter(file, schema, compression="zstd", compression_level=1) as writer:
            for group in _groups(batches):
                table = pa.Table.from_batches(group).cast(schema)
                writer.write_table(table, row_group_size=_GROUP_ROWS)
                rows += table.num_rows
        file.flush()
        os.fsync(file.fileno())
    return rows


def read_rows(path: Path, columns: Sequence[HeldColumn]) -> Iterator[pa.RecordBatch]:
    """Read a file again, rows in their order.

    Args:
        path: The file.
        columns: The columns that it should have.

    Yields:
        The rows.

    Raises:
        ArchiveError: It cannot be read as what it should be.
    """
    expected = schema_of(columns)
    try:
        with pq.ParquetFile(path) as file:
            if not file.schema_arrow.equals(expected):
                message = f"{path.name}: its columns are not those that the bag says. {_REMEDY}"
                raise ArchiveError(message)
            yield from file.iter_batches(_READ_ROWS)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        message = f"{path.name}: cannot be read as Parquet ({type(error).__name__}). {_REMEDY}"
        raise ArchiveError(message) from None


def digest_of(batch: pa.RecordBatch, columns: Sequence[HeldColumn]) -> RowDigest:
    """Digest rows as PostgreSQL does where they are in the table; see `live`."""
    arrays = [
        array.storage if isinstance(array, pa.ExtensionArray) else array for array in batch.columns
    ]
    return RowDigest.of(row_crc32c([column.held_as for column in columns], arrays))


def _groups(batches: Iterable[pa.RecordBatch]) -> Iterator[list[pa.RecordBatch]]:
    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        waiting.append(batch)
        rows = sum(each.num_rows for each in waiting)
        if rows >= _GROUP_ROWS or sum(each.nbytes for each in waiting) >= _GROUP_BYTES:
            yield waiting
            waiting = []
    if waiting:
        yield waiting
