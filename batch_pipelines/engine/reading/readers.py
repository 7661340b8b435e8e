"""Reading staged files as a stream of chunks, each column in its wire type; memory stays bounded."""

from __future__ import annotations

import csv
import datetime as dt
import io
import mmap
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from batch_pipelines.engine.catalog import match_columns
from batch_pipelines.engine.errors import DeliveryError
from batch_pipelines.engine.reading.convert import to_wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import BinaryIO

    from batch_pipelines.engine.catalog import Column, TableInfo

# Bytes of CSV parsed at once, and rows of Parquet: some 65,000 rows of 20 columns either way. Smaller
# chunks cost (row digests have a millisecond each of fixed cost), larger ones only take memory.
CSV_BLOCK_BYTES = 8_000_000
PARQUET_BATCH_ROWS = 65_536

# OIDs of the wire types that Arrow's CSV parser reads as exactly as `convert` does: integers, floats,
# text, varchar, date, timestamp, timestamptz. (Hexadecimal, infinity and the year 0 are looked for.)
# Not numeric, of which it takes 1e8 for numeric(10,2), and 205.39 for 1.22 in numeric(38,37).
_WHILE_PARSING = frozenset({20, 21, 23, 25, 700, 701, 1043, 1082, 1114, 1184})
# The parser passes over spaces and tabulators around a number.
_FIELD_BEGINS_AFTER = frozenset({b"", b",", b'"', b"\r", b"\n", b" ", b"\t"})
_YEAR_1 = dt.date(1, 1, 1)
_LONE_CR = re.compile(rb"\r(?!\n|$)")


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
    if file_format == "csv":
        names, _ = _csv_header(path)
    else:
        names = list(_parquet(path).schema_arrow.names)
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
            to_wire(
                values, column, path.name, first_record,
                # What stands in a CSV was read while it was parsed, or comes as the bytes it is.
                written=file_format == "csv" and pa.types.is_binary(values.type),
            )
            for values, column in zip(batch.columns, columns, strict=True)
        )  # fmt: skip
        yield Chunk(path.name, index, first_record, columns, arrays, batch.num_rows)
        first_record += batch.num_rows


def _csv_header(path: Path) -> tuple[list[str], int]:
    """Read the column names; also where the first record begins, in bytes."""
    taken = 0

    def lines(file: BinaryIO) -> Iterator[str]:
        nonlocal taken
        for line in file:
            # A file whose lines end in a lone CR is one line to Python; take its first.
            first = line[: line.index(b"\r") + 1] if _LONE_CR.search(line) else line
            taken += len(first)
            yield first.decode("utf-8-sig" if taken == len(first) else "utf-8")

    try:
        with path.open("rb") as file:
            names = next((row for row in csv.reader(lines(file), strict=True) if row), None)
    except (UnicodeDecodeError, csv.Error):
        message = (
            f"{path.name}:1: the header is not UTF-8 CSV. Deliver the file as UTF-8 with commas."
        )
        raise DeliveryError(message) from None
    if not names:
        message = f"{path.name}: the file is empty; expected a header line. Deliver it again."
        raise DeliveryError(message)
    return names, taken


def _read_csv(path: Path, columns: tuple[Column, ...]) -> Iterator[pa.RecordBatch]:
    """Read a CSV, values converted while it is parsed; where one is refused, as bytes from there.

    Converting while parsing takes a third of the time of converting afterwards, but cannot say which
    record was wrong, and reads 0x10 as 16: only the second way is strict and names the place.
    """
    done = 0
    if not _holds_hexadecimal(path):
        try:
            for batch in _parse_csv(path, columns, typed=True):
                if _is_doubtful(batch):
                    break
                yield batch
                done += batch.num_rows
            else:
                return
        except DeliveryError:
            pass
    for batch in _parse_csv(path, columns, typed=False):
        skipped = min(done, batch.num_rows)
        done -= skipped
        if skipped < batch.num_rows:
            yield batch.slice(skipped)


def _parse_csv(path: Path, columns: tuple[Column, ...], *, typed: bool) -> Iterator[pa.RecordBatch]:
    _, start = _csv_header(path)
    wrong: list[str] = []

    def refuse(row: pyarrow.csv.InvalidRow) -> str:
        place = f"record {row.number}" if row.number else "a record"
        wrong.append(
            f"{path.name}, {place}: {row.actual_columns} fields where the header has "
            f"{row.expected_columns}. Correct the file and deliver it again."
        )
        return "error"

    if start == path.stat().st_size:
        return  # Arrow refuses to read nothing
    try:
        with _Careful(path) as file:
            file.seek(start)
            batches = pyarrow.csv.open_csv(
                file,
                read_options=pyarrow.csv.ReadOptions(
                    column_names=[c.name for c in columns],
                    block_size=CSV_BLOCK_BYTES,
                    use_threads=False,
                ),
                parse_options=pyarrow.csv.ParseOptions(
                    newlines_in_values=True, invalid_row_handler=refuse
                ),
                convert_options=pyarrow.csv.ConvertOptions(
                    column_types={c.name: _csv_type(c, typed=typed) for c in columns},
                    check_utf8=typed,
                    null_values=[""],
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                ),
            )
            yield from (batch for batch in batches if batch.num_rows)  # empty lines make empty ones
    except pa.ArrowInvalid:
        message = wrong[0] if wrong else (
            f"{path.name}: not readable as CSV, or a record is longer than "
            f"{CSV_BLOCK_BYTES // 1_000_000} MB. Correct the file and deliver it again."
        )  # fmt: skip
        raise DeliveryError(message) from None


class _Careful(io.FileIO):
    """A file for Arrow's CSV parser, which gets wrong what is not handed to it like this.

    Where the last line does not end, Arrow takes no value at its end for ''. And of CR LF inside
    quotes it drops the LF where one read ends and the next begins between the two.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._size = self.seek(-1, os.SEEK_END) + 1
        self._ended = super().read(1) in {b"\r", b"\n"}

    def read(self, size: int | None = -1, /) -> bytes:
        """Read at most so many bytes, never up to between CR and LF; the last end with a line end."""
        content = super().read(-1 if size is None or size < 0 else max(size - 1, 1)) or b""
        if self.tell() < self._size:
            whole = content.rstrip(b"\r") or content
            self.seek(len(whole) - len(content), os.SEEK_CUR)
            return whole
        if not self._ended:
            self._ended = True
            content += b"\n"
        return content


def _csv_type(column: Column, *, typed: bool) -> pa.DataType:
    if typed and column.wire is None:
        return pa.string()
    if typed and column.wire is not None and column.wire.oid in _WHILE_PARSING:
        return column.wire.arrow
    return pa.binary()


def _holds_hexadecimal(path: Path) -> bool:
    """Look for a field that begins with 0x, anywhere in the file."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for prefix in (b"0x", b"0X"):
            place = content.find(prefix)
            while place >= 0:
                if content[place - 1 : place] in _FIELD_BEGINS_AFTER:
                    return True
                place = content.find(prefix, place + 1)
    return False


def _is_doubtful(batch: pa.RecordBatch) -> bool:
    """Find what the strict way has to tell: infinity or a number too large; the year 0, or not."""
    for values in batch.columns:
        if pa.types.is_floating(values.type) and pc.any(pc.is_inf(values)).as_py():
            return True
        if pa.types.is_date(values.type) or pa.types.is_timestamp(values.type):
            year_1 = pa.scalar(_YEAR_1).cast(values.type)
            if pc.any(pc.less(values, year_1)).as_py():
                return True
    return False


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
