"""Reading staged files as a stream of chunks, each column in its wire type; memory stays bounded."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from batch_pipelines.engine.catalog import match_columns
from batch_pipelines.engine.errors import DeliveryError
from batch_pipelines.engine.reading.convert import to_wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from batch_pipelines.engine.catalog import Column, TableInfo

# Bytes of CSV parsed at once, and rows of Parquet: a chunk of 20 columns is a few megabytes either
# way, which keeps it in the processor's cache and the client's memory flat.
CSV_BLOCK_BYTES = 2 * 1024 * 1024
PARQUET_BATCH_ROWS = 16_384


@dataclass(frozen=True)
class Chunk:
    """Some consecutive records of a file.

    Attributes:
        file_name: The file.
        index: Number of the chunk in the file, from 0.
        first_record: Number of its first record, from 1.
        columns: The target columns it brings, in the file's order.
        arrays: One array a column, all of `rows` values.
        rows: How many records.
    """

    file_name: str
    index: int
    first_record: int
    columns: tuple[Column, ...]
    arrays: tuple[pa.Array, ...]
    rows: int


def file_columns(path: Path, file_format: str, table: TableInfo) -> tuple[Column, ...]:
    """Match a file's column names with its table.

    Args:
        path: The staged file.
        file_format: `csv` or `parquet`.
        table: The target table.

    Returns:
        The target columns in the file's order.

    Raises:
        DeliveryError: The header cannot be read.
        FeedError: The columns do not fit the table.
    """
    names = _csv_header(path) if file_format == "csv" else list(_parquet(path).schema_arrow.names)
    return match_columns(table, names, path.name)


def read_chunks(path: Path, file_format: str, table: TableInfo) -> Iterator[Chunk]:
    """Read a file from its beginning to its end.

    Args:
        path: The staged file.
        file_format: `csv` or `parquet`.
        table: The target table.

    Yields:
        Its records in order.

    Raises:
        DeliveryError: A record cannot be read or a value does not fit; file, record and column are
            named.
        FeedError: The columns do not fit the table.
    """
    columns = file_columns(path, file_format, table)
    first_record = 1
    for index, batch in enumerate(_READERS[file_format](path, columns)):
        arrays = tuple(
            to_wire(values, column, path.name, first_record, written=file_format == "csv")
            for values, column in zip(batch.columns, columns, strict=True)
        )
        yield Chunk(path.name, index, first_record, columns, arrays, batch.num_rows)
        first_record += batch.num_rows


def _csv_header(path: Path) -> list[str]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            names = next((row for row in csv.reader(lines, strict=True) if row), None)
    except (UnicodeDecodeError, csv.Error):
        message = (
            f"{path.name}:1: the header is not UTF-8 CSV. Deliver the file as UTF-8 with commas."
        )
        raise DeliveryError(message) from None
    if not names:
        message = f"{path.name}: the file is empty; expected a header line. Deliver it again."
        raise DeliveryError(message)
    return names


def _read_csv(path: Path, columns: tuple[Column, ...]) -> Iterator[pa.RecordBatch]:
    names = [column.name for column in columns]
    wrong: list[str] = []

    def refuse(row: pyarrow.csv.InvalidRow) -> str:
        # The header is row 1, so the number of a record is one less.
        place = f"record {row.number - 1}" if row.number else "a record"
        wrong.append(
            f"{path.name}, {place}: {row.actual_columns} fields where the header has "
            f"{row.expected_columns}. Correct the file and deliver it again."
        )
        return "error"

    try:
        reader = pyarrow.csv.open_csv(
            path,
            read_options=pyarrow.csv.ReadOptions(
                column_names=names, skip_rows=0, block_size=CSV_BLOCK_BYTES, use_threads=False
            ),
            parse_options=pyarrow.csv.ParseOptions(
                newlines_in_values=True, invalid_row_handler=refuse
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types={name: pa.binary() for name in names},
                check_utf8=False,
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )
        header = True
        for batch in reader:
            # The header is read as a record and dropped: Arrow refuses a file of a header alone.
            body = batch.slice(1) if header else batch
            header = False
            if body.num_rows:
                yield body
    except pa.ArrowInvalid:
        message = wrong[0] if wrong else f"{path.name}: not readable as CSV. Deliver it again."
        raise DeliveryError(message) from None


def _parquet(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, pre_buffer=False)
    except (pa.ArrowException, OSError):
        message = f"{path.name}: not a whole Parquet file. Deliver it again."
        raise DeliveryError(message) from None


def _read_parquet(path: Path, columns: tuple[Column, ...]) -> Iterator[pa.RecordBatch]:
    names = [column.name for column in columns]
    with _parquet(path) as file:
        try:
            yield from file.iter_batches(batch_size=PARQUET_BATCH_ROWS, columns=names)
        except (pa.ArrowException, OSError):
            message = f"{path.name}: a page cannot be decoded: damaged. Deliver it again."
            raise DeliveryError(message) from None


_READERS: dict[str, Callable[[Path, tuple[Column, ...]], Iterator[pa.RecordBatch]]] = {
    "csv": _read_csv,
    "parquet": _read_parquet,
}
