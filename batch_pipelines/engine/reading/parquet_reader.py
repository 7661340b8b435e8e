"""Reading Parquet: batches of rows; a record that cannot be loaded is kept as JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batch_pipelines.engine.errors import DeliveryError
from batch_pipelines.engine.reading.chunks import Chunk, convert_columns, loaded
from batch_pipelines.engine.rejects import Reject

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from batch_pipelines.engine.catalog import Column
    from batch_pipelines.engine.reading.chunks import Raw

# At most so many rows at a time, and fewer of wide ones: some 4 MB, like a block of CSV.
BATCH_ROWS: Final = 32_768
_BATCH_BYTES: Final = 4_000_000
# A column of a row group is read in parts of this size, and not as a whole: row groups may be large.
_PAGE_BYTES: Final = 128 * 1024
# Other layouts in memory of the same type.
_SAME = {
    "large_string": "string", "string_view": "string", "large_binary": "binary",
    "binary_view": "binary",
}  # fmt: skip


def parquet_names(path: Path) -> list[str]:
    """Read the column names of a Parquet file.

    Args:
        path: The file.

    Returns:
        The names in the file's order.

    Raises:
        DeliveryError: It has no readable footer.
    """
    return list(_open(path).schema_arrow.names)


def parquet_types(path: Path) -> dict[str, str]:
    """Read the types of the columns of a Parquet file.

    Args:
        path: The file.

    Returns:
        Arrow's name of the type of each column; how values are encoded does not count.

    Raises:
        DeliveryError: It has no readable footer.
    """
    return {field.name: _type_name(field.type) for field in _open(path).schema_arrow}


def _type_name(kind: pa.DataType) -> str:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return _SAME.get(str(kind), str(kind))


def read_parquet(path: Path, places: tuple[Column | None, ...]) -> Iterator[Chunk]:
    """Read a Parquet file from its beginning to its end.

    Args:
        path: The file.
        places: The target column of each of its columns, in the file's order; None for none.

    Yields:
        Its records in order.

    Raises:
        DeliveryError: A page cannot be decoded.
    """
    columns = tuple(column for column in places if column is not None)
    first = 1
    with _open(path) as file:
        own = zip(file.schema_arrow.names, places, strict=True)
        names = [name for name, column in own if column is not None]
        try:
            batches = file.iter_batches(batch_size=_batch_rows(file), columns=names)
            for index, batch in enumerate(batches):
                arrays, good, wrong = convert_columns(batch.columns, columns, written=False)
                rejects = tuple(
                    Reject(path.name, first + place, None, None, _raw(batch, place), (*breaches,))
                    for place, breaches in sorted(wrong.items())
                )
                records = first + np.flatnonzero(good)
                yield Chunk(path.name, index, loaded(columns), records, arrays, rejects)
                first += batch.num_rows
        except (pa.ArrowException, OSError):
            message = f"{path.name}: a page cannot be decoded: damaged. Deliver it again."
            raise DeliveryError(message) from None


def read_raw_parquet(path: Path, records: Iterable[int]) -> Iterator[Raw]:
    """Read some records of a Parquet file as JSON; see `readers.read_raw`."""
    waiting = iter(records)
    record, first = next(waiting, None), 1
    with _open(path) as file:
        for batch in file.iter_batches(batch_size=_batch_rows(file)):
            while record is not None and record < first + batch.num_rows:
                yield None, None, _raw(batch, record - first)
                record = next(waiting, None)
            if record is None:
                return
            first += batch.num_rows


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, pre_buffer=False, buffer_size=_PAGE_BYTES)
    except (pa.ArrowException, OSError):
        message = f"{path.name}: not a whole Parquet file. Deliver it again."
        raise DeliveryError(message) from None


def _batch_rows(file: pq.ParquetFile) -> int:
    """Choose how many rows to read at a time, by their width as the footer tells it."""
    groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
    widest = max((g.total_byte_size / max(g.num_rows, 1) for g in groups), default=1.0)
    return max(1, min(BATCH_ROWS, int(_BATCH_BYTES / max(widest, 1.0))))


def _raw(batch: pa.RecordBatch, place: int) -> bytes:
    row = {
        name: _shown(column[place])
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    }
    return json.dumps(row, default=_written, ensure_ascii=False).encode("utf-8", "surrogateescape")


def _shown(value: pa.Scalar) -> object:
    """Give a value for JSON, whatever is wrong with it: out of Python's range, or not UTF-8."""
    if isinstance(value, pa.DictionaryScalar):
        value = value.value
    try:
        if isinstance(value, pa.StringScalar) and value.is_valid:
            return value.as_buffer().to_pybytes().decode("utf-8", "surrogateescape")
        # Python has no nanoseconds, no negative times of day and no year 10000; Arrow writes them.
        return (value.cast(pa.string()) if pa.types.is_temporal(value.type) else value).as_py()
    except (pa.ArrowException, ValueError, OverflowError, LookupError):
        return f"<{value.type}>"


def _written(value: object) -> str:
    return "\\x" + value.hex() if isinstance(value, bytes) else str(value)
