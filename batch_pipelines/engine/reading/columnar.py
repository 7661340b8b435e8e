"""Reading columnar files (Parquet, Arrow IPC, ORC): pieces of typed rows, one way for all of them.

How a format is opened and decoded is in a module of its own; what becomes of the rows is here. A record
that cannot be loaded is kept as JSON.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

from batch_pipelines.engine.errors import DeliveryError
from batch_pipelines.engine.reading.arrow_reader import arrow_batches, arrow_schema
from batch_pipelines.engine.reading.chunks import Chunk, convert_columns, loaded
from batch_pipelines.engine.reading.orc_reader import orc_batches, orc_schema
from batch_pipelines.engine.reading.parquet_reader import parquet_batches, parquet_schema
from batch_pipelines.engine.reading.pieces import cut
from batch_pipelines.engine.rejects import Reject

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from batch_pipelines.engine.catalog import Column
    from batch_pipelines.engine.reading.chunks import Raw

SCHEMAS: Final[Mapping[str, Callable[[Path], pa.Schema]]] = {
    "arrow": arrow_schema, "orc": orc_schema, "parquet": parquet_schema,
}  # fmt: skip
# Given a file and the places of some of its columns, rising: its rows in order, in batches of these.
BATCHES: Final[Mapping[str, Callable[[Path, Sequence[int]], Iterator[pa.RecordBatch]]]] = {
    "arrow": arrow_batches, "orc": orc_batches, "parquet": parquet_batches,
}  # fmt: skip
# Other layouts in memory of the same type.
_SAME = {
    "large_string": "string", "string_view": "string", "large_binary": "binary",
    "binary_view": "binary",
}  # fmt: skip
_TEXTS = (pa.StringScalar, pa.LargeStringScalar, pa.StringViewScalar)


def columnar_names(path: Path, file_format: str) -> list[str]:
    """Read the column names of a columnar file.

    Args:
        path: The file.
        file_format: One of `formats.COLUMNAR`.

    Returns:
        The names in the file's order.

    Raises:
        DeliveryError: It is not a whole file of that format.
    """
    schema = SCHEMAS[file_format](path)
    try:
        return list(schema.names)
    except UnicodeDecodeError:
        message = f"{path.name}: the name of a column is not UTF-8: damaged. Deliver it again."
        raise DeliveryError(message) from None


def columnar_types(path: Path, file_format: str) -> dict[str, str]:
    """Read the types of the columns of a columnar file.

    Args:
        path: The file.
        file_format: One of `formats.COLUMNAR`.

    Returns:
        Arrow's name of the type of each column; how values are encoded does not count.

    Raises:
        DeliveryError: It is not a whole file of that format.
    """
    names = columnar_names(path, file_format)
    kinds = (_type_name(kind) for kind in SCHEMAS[file_format](path).types)
    return dict(zip(names, kinds, strict=True))


def _type_name(kind: pa.DataType) -> str:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return _SAME.get(str(kind), str(kind))


def read_columnar(
    path: Path, file_format: str, places: tuple[Column | None, ...]
) -> Iterator[Chunk]:
    """Read a columnar file from its beginning to its end.

    Args:
        path: The file.
        file_format: One of `formats.COLUMNAR`.
        places: The target column of each of its columns, in the file's order; None for none.

    Yields:
        Its records in order.

    Raises:
        DeliveryError: It cannot be decoded.
    """
    columns = tuple(column for column in places if column is not None)
    wanted = [place for place, column in enumerate(places) if column is not None]
    names, first = columnar_names(path, file_format), 1
    for index, batch in enumerate(_pieces(path, file_format, wanted)):
        values = [_stored(array) for array in batch.columns]
        arrays, good, wrong = convert_columns(values, columns, written=False)
        rejects = tuple(
            Reject(path.name, first + place, None, None, raw, (*breaches,))
            for place, breaches in sorted(wrong.items())
            for raw in [_raw([names[each] for each in wanted], batch, place)]
        )
        records = first + np.flatnonzero(good)
        yield Chunk(path.name, index, loaded(columns), records, arrays, rejects)
        first += batch.num_rows


def read_raw_columnar(path: Path, file_format: str, records: Iterable[int]) -> Iterator[Raw]:
    """Read some records of a columnar file as JSON; see `readers.read_raw`."""
    waiting = iter(records)
    record, first = next(waiting, None), 1
    names = columnar_names(path, file_format)
    for batch in _pieces(path, file_format, range(len(names))):
        while record is not None and record < first + batch.num_rows:
            yield None, None, _raw(names, batch, record - first)
            record = next(waiting, None)
        if record is None:
            return
        first += batch.num_rows


def _pieces(path: Path, file_format: str, wanted: Sequence[int]) -> Iterator[pa.RecordBatch]:
    for batch in BATCHES[file_format](path, wanted):
        yield from cut(batch)


def _stored(values: pa.Array) -> pa.Array:
    """Give the values of an extension type, such as Arrow's own for UUIDs, as they are stored."""
    return values.storage if isinstance(values, pa.ExtensionArray) else values


def _raw(names: Sequence[str], batch: pa.RecordBatch, place: int) -> bytes:
    row = {name: _shown(column[place]) for name, column in zip(names, batch.columns, strict=True)}
    return json.dumps(row, default=_written, ensure_ascii=False).encode("utf-8", "surrogateescape")


def _shown(value: pa.Scalar) -> object:
    """Give a value for JSON, whatever is wrong with it: out of Python's range, or not UTF-8."""
    if isinstance(value, pa.DictionaryScalar):
        value = value.value
    try:
        if isinstance(value, _TEXTS) and value.is_valid:
            return value.as_buffer().to_pybytes().decode("utf-8", "surrogateescape")
        # Python has no nanoseconds, no negative times of day and no year 10000; Arrow writes them.
        return (value.cast(pa.string()) if pa.types.is_temporal(value.type) else value).as_py()
    except (pa.ArrowException, ValueError, OverflowError, LookupError):
        return f"<{value.type}>"


def _written(value: object) -> str:
    return "\\x" + value.hex() if isinstance(value, bytes) else str(value)
