"""Arrow IPC and ORC for the second reader, which reads Parquet itself: record batches, read elsewhere.

How independent that is of what loads, which is pyarrow's: Arrow IPC is decoded by nanoarrow, which
shares no code with it. Dictionaries and views it does not read (of compressed dictionaries it makes
something else), so a file with such a column is read by pyarrow, as a stream from its first message on,
and by nothing of `arrow_reader`. ORC is decoded by pyorc: another build of the same C++ library of
Apache ORC's, whose values become Python's and then Arrow's on a way of their own.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import nanoarrow.ipc
import pyarrow as pa
import pyorc
from pyorc import TypeKind
from pyorc.converters import ORCConverter

from batch_pipelines.engine.errors import ValidationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

_MAGIC: Final = b"ARROW1"
_MAGIC_PADDED: Final = 8
# Rows of ORC at a time, as Python's objects: some 20 MB of 20 columns.
_ROWS: Final = 8_192


def names_again(path: Path, file_format: str) -> list[str]:
    """List the columns of a file.

    Args:
        path: The file.
        file_format: `arrow` or `orc`.

    Returns:
        Their names, in the file's order.

    Raises:
        ValidationError: It cannot be read.
    """
    with _readable(path), path.open("rb") as file:
        if file_format == "orc":
            return list(_fields(pyorc.Reader(file)))
        return list(_stream(file).schema.names)


def read_again(path: Path, file_format: str, wanted: Sequence[int]) -> pa.RecordBatchReader:
    """Read a file once.

    Args:
        path: The file.
        file_format: `arrow` or `orc`.
        wanted: Places of the columns to read, rising.

    Returns:
        Its rows; columns `c0` and so on by their place in the file, and behind them each row's `number`,
        from 0.

    Raises:
        ValidationError: It cannot be read.
    """
    with _readable(path):
        kinds = (_orc_kinds if file_format == "orc" else _arrow_kinds)(path, wanted)
        columns = [(f"c{place}", kind) for place, kind in zip(wanted, kinds, strict=True)]
        schema = pa.schema([*columns, ("number", pa.int64())])
        batches = (_orc if file_format == "orc" else _arrow)(path, wanted, schema)
        return pa.RecordBatchReader.from_batches(schema, batches)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, pyorc.ORCError, RuntimeError, ValueError, OSError) as error:
        # Of what it stumbled over nothing is repeated.
        message = (
            f"{path.name}: the second reader could not read the source ({type(error).__name__}). "
            "The rows are published but not validated."
        )
        raise ValidationError(message) from None


# Arrow IPC.


def _stream(file: BinaryIO) -> pa.RecordBatchReader:
    """Open a stream, or a file as the stream in it."""
    start = _MAGIC_PADDED if file.read(len(_MAGIC)) == _MAGIC else 0
    file.seek(start)
    reader = pa.ipc.open_stream(file)
    if any(_is_for_pyarrow(kind) for kind in reader.schema.types):
        return reader
    file.seek(start)
    return pa.RecordBatchReader.from_stream(nanoarrow.ipc.InputStream.from_readable(file))


def _is_for_pyarrow(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.BaseExtensionType):
        return _is_for_pyarrow(kind.storage_type)
    return any(
        is_one(kind)
        for is_one in (
            pa.types.is_dictionary, pa.types.is_string_view, pa.types.is_binary_view,
            pa.types.is_nested, pa.types.is_run_end_encoded,
        )
    )  # fmt: skip


def _arrow_kinds(path: Path, wanted: Sequence[int]) -> list[pa.DataType]:
    with path.open("rb") as file:
        kinds = _stream(file).schema.types
    return [_known(kinds[place]) for place in wanted]


def _known(kind: pa.DataType) -> pa.DataType:
    """Say as what DuckDB can read values of an Arrow type."""
    if isinstance(kind, pa.BaseExtensionType):
        return _known(kind.storage_type)
    if pa.types.is_float16(kind):
        return pa.float32()
    return pa.string() if pa.types.is_decimal256(kind) else kind


def _arrow(path: Path, wanted: Sequence[int], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    first = 0
    with path.open("rb") as file:
        for batch in _stream(file):
            arrays = [batch.column(place) for place in wanted]
            stored = [a.storage if isinstance(a, pa.ExtensionArray) else a for a in arrays]
            yield _numbered(
                [a.cast(kind) for a, kind in zip(stored, schema.types[:-1], strict=True)],
                first, batch.num_rows, schema,
            )  # fmt: skip
            first += batch.num_rows


def _numbered(
    arrays: Sequence[pa.Array], first: int, rows: int, schema: pa.Schema
) -> pa.RecordBatch:
    numbers = pa.array(range(first, first + rows), pa.int64())
    return pa.RecordBatch.from_arrays([*arrays, numbers], schema=schema)


# ORC.


class _Days(ORCConverter):
    """A date as days since 1970; Python's own end with the year 9999."""

    @staticmethod
    def from_orc(days: int) -> int:
        """Give the days."""
        return days

    @staticmethod
    def to_orc(obj: int) -> int:
        """Give the days."""
        return obj


class _Microseconds(ORCConverter):
    """A time as microseconds since 1970."""

    @staticmethod
    def from_orc(seconds: int, nanoseconds: int, _: object) -> int:
        """Give the microseconds."""
        return seconds * 1_000_000 + nanoseconds // 1000

    @staticmethod
    def to_orc(obj: int, _: object) -> tuple[int, int]:
        """Give seconds and nanoseconds."""
        return obj // 1_000_000, obj % 1_000_000 * 1000


_CONVERTERS: Final = {
    TypeKind.DATE: _Days,
    TypeKind.TIMESTAMP: _Microseconds,
    TypeKind.TIMESTAMP_INSTANT: _Microseconds,
}
_KINDS: Final[dict[TypeKind, Callable[[Any], pa.DataType]]] = {
    TypeKind.BOOLEAN: lambda _: pa.bool_(),
    TypeKind.BYTE: lambda _: pa.int64(),
    TypeKind.SHORT: lambda _: pa.int64(),
    TypeKind.INT: lambda _: pa.int64(),
    TypeKind.LONG: lambda _: pa.int64(),
    TypeKind.FLOAT: lambda _: pa.float32(),
    TypeKind.DOUBLE: lambda _: pa.float64(),
    TypeKind.BINARY: lambda _: pa.binary(),
    TypeKind.DATE: lambda _: pa.date32(),
    TypeKind.TIMESTAMP: lambda _: pa.timestamp("us"),
    TypeKind.TIMESTAMP_INSTANT: lambda _: pa.timestamp("us", "UTC"),
    TypeKind.DECIMAL: lambda kind: pa.decimal128(kind.precision, kind.scale),
}
_TEXTS: Final = frozenset({TypeKind.STRING, TypeKind.CHAR, TypeKind.VARCHAR})


def _fields(reader: pyorc.Reader) -> dict[str, Any]:
    # Its types do not say that what a file holds is a struct.
    fields: dict[str, Any] = reader.schema.fields  # type: ignore[attr-defined]
    return fields


def _orc_kinds(path: Path, wanted: Sequence[int]) -> list[pa.DataType]:
    with path.open("rb") as file:
        fields = [*_fields(pyorc.Reader(file)).values()]
    found = [(_KINDS.get(fields[place].kind), fields[place]) for place in wanted]
    return [pa.string() if kind is None else kind(field) for kind, field in found]


def _orc(path: Path, wanted: Sequence[int], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    first = 0
    with path.open("rb") as file:
        reader = pyorc.Reader(
            file, batch_size=_ROWS, column_indices=list(wanted), converters=_CONVERTERS
        )
        total = len(reader)
        while first < total:
            rows = _rows(reader, first, len(wanted))
            arrays = [
                pa.array(values, kind)
                for values, kind in zip(zip(*rows, strict=True), schema.types[:-1], strict=True)
            ]
            yield _numbered(arrays, first, len(rows), schema)
            first += len(rows)


def _rows(reader: pyorc.Reader, first: int, width: int) -> list[tuple[Any, ...]]:
    """Read some rows; with nothing in one that is not UTF-8, which has been set aside."""
    try:
        return list(reader.read(_ROWS))
    except UnicodeDecodeError:
        pass
    rows: list[tuple[Any, ...]] = []
    for number in range(first, min(first + _ROWS, len(reader))):
        reader.seek(number)
        try:
            rows += reader.read(1)
        except UnicodeDecodeError:
            rows.append((None,) * width)
    reader.seek(first + len(rows))
    return rows
