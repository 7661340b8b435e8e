"""Rows as PostgreSQL sends them (COPY in binary), taken apart into Arrow columns, many at a time.

The format is PostgreSQL's (manual of COPY, Binary Format): a header, then of each row the number of its
columns and of each column its length and its data. libpq hands out a row at a time, so where each row
begins is known, and a column of all rows is found in one step, from where the one before it has ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from psycopg import sql

from batch_pipelines.engine.failpoints import failpoint
from batch_pipelines.engine.wire_types import NUMERIC

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    import numpy.typing as npt
    import psycopg
    from psycopg.abc import Buffer

    from batch_pipelines.engine.archiving.rows.shape import HeldColumn
    from batch_pipelines.engine.postgres.database import Connection

_COPY: Final = sql.SQL(
    "COPY (SELECT {values} FROM {table} AS x WHERE {where}) TO STDOUT (FORMAT binary)"
)
_SIGNATURE: Final = b"PGCOPY\n\xff\r\n\0"
_HEADER_BYTES: Final = len(_SIGNATURE) + 8
_END: Final = b"\xff\xff"
# Of a message that is the end, or header and end.
_LAST_SIZES: Final = frozenset({len(_END), _HEADER_BYTES + len(_END)})
_COUNT_BYTES, _LENGTH_BYTES = 2, 4
# A value is read whole wherever a length has been read: behind the last one there has to be room.
_ROOM: Final = bytes(16)
# What is taken apart at a time: more rows make it no faster. Of long ones it is less, so that memory is
# bounded by this, or by one row.
_ROWS: Final = 1 << 14
_BYTES: Final = 8 << 20
_DAYS_1970_TO_2000: Final = 10_957
_MICROSECONDS_1970_TO_2000: Final = _DAYS_1970_TO_2000 * 86_400_000_000


def copy_out(
    connection: Connection,
    table: sql.Composable,
    columns: Sequence[HeldColumn],
    where: sql.Composable,
) -> Generator[pa.RecordBatch]:
    """Read rows of a table, as they are held.

    Args:
        connection: A connection inside a transaction, pinned.
        table: The quoted name of the table.
        columns: Its columns.
        where: The condition on a row `x`.

    Yields:
        The rows, in the order in which PostgreSQL sends them.

    Raises:
        ValueError: What came is not what PostgreSQL's manual says, or no UTF-8.
    """
    values = sql.SQL(", ").join(_sent(column) for column in columns)
    copy_rows = _COPY.format(values=values, table=table, where=where)
    with connection.cursor() as cursor, cursor.copy(copy_rows) as copy:
        rows: list[Buffer] = []
        waiting = 0
        messages = _messages(connection, copy)
        first = memoryview(next(messages))
        if bytes(first[: len(_SIGNATURE)]) != _SIGNATURE:
            raise ValueError("PostgreSQL sent no COPY in binary")
        if len(first) > _HEADER_BYTES:
            rows.append(first[_HEADER_BYTES:])
        for message in messages:
            rows.append(message)
            waiting += len(message)
            if len(rows) >= _ROWS or waiting > _BYTES:
                yield from _taken_apart(rows, columns)
                rows, waiting = [], 0
        yield from _taken_apart(rows, columns)


def _messages(connection: Connection, copy: psycopg.Copy) -> Iterator[Buffer]:
    """Read what PostgreSQL sends, a message a row.

    What libpq has already is taken from it directly, at a third of the time that psycopg takes for a
    row; psycopg waits for more, and sees to the end.
    """
    ready = connection.pgconn.get_copy_data
    while message := copy.read():
        yield message
        size = len(message)
        # Behind the mark of the end only psycopg may ask.
        while size not in _LAST_SIZES:
            size, row = ready(1)
            if size <= 0:
                break
            yield row


def schema_of(columns: Sequence[HeldColumn]) -> pa.Schema:
    """Give the schema of the record batches."""
    return pa.schema([pa.field(column.name, column.arrow) for column in columns])


def _sent(column: HeldColumn) -> sql.Composable:
    # Arrow reads decimals from text, and PostgreSQL sends them in a format of its own.
    value = column.value("x")
    return sql.SQL("{}::text").format(value) if column.held_as.oid == NUMERIC else value


def _taken_apart(rows: list[Buffer], columns: Sequence[HeldColumn]) -> Iterator[pa.RecordBatch]:
    if rows and rows[-1] == _END:
        rows.pop()
    if not rows:
        return
    sizes = np.fromiter(map(len, rows), np.int64, len(rows))
    ends = np.cumsum(sizes)
    content = b"".join([*rows, _ROOM])
    places = ends - sizes + _COUNT_BYTES
    arrays = []
    for column in columns:
        lengths = _integers(content, places, ">i4").astype(np.int32)
        starts = places + _LENGTH_BYTES
        null = lengths < 0
        has_null = bool(null.any())
        places = starts + (np.where(null, 0, lengths) if has_null else lengths)
        arrays.append(_column(column, content, starts, places, null if has_null else None))
    if not np.array_equal(places, ends):
        raise ValueError("rows do not end where PostgreSQL's COPY said")
    yield failpoint("rows.read", pa.RecordBatch.from_arrays(arrays, schema=schema_of(columns)))


def _column(
    column: HeldColumn,
    content: bytes,
    starts: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
    null: npt.NDArray[np.bool_] | None,
) -> pa.Array:
    arrow = column.held_as.arrow
    if pa.types.is_decimal(arrow):
        return pc.cast(_varying(content, starts, ends, null, pa.string()), arrow)
    if pa.types.is_string(arrow) or pa.types.is_binary(arrow):
        return _varying(content, starts, ends, null, arrow)
    if pa.types.is_fixed_size_binary(arrow):
        halves = [_integers(content, starts + place, "=i8") for place in (0, 8)]
        storage = _of_bytes(np.stack(halves, axis=1).tobytes(), arrow, len(starts), null)
        return pa.ExtensionArray.from_storage(column.arrow, storage)
    if pa.types.is_boolean(arrow):
        return pa.array(_integers(content, starts, "u1").astype(np.bool_), mask=null)
    if pa.types.is_floating(arrow):
        kind = f"f{arrow.bit_width // 8}"
        values = _integers(content, starts, f">{kind}").astype(f"={kind}")
        return pa.array(values, arrow, mask=null, from_pandas=False)
    width = arrow.bit_width // 8
    numbers = _integers(content, starts, f">i{width}").astype(f"=i{width}")
    if pa.types.is_date(arrow):
        numbers += _DAYS_1970_TO_2000
    elif pa.types.is_timestamp(arrow):
        numbers += _MICROSECONDS_1970_TO_2000
    return pa.array(numbers, mask=null).view(arrow)


def _integers(content: bytes, places: npt.NDArray[np.int64], dtype: str) -> npt.NDArray[np.generic]:
    """Read a number at each place, whatever its alignment."""
    count = len(content) - np.dtype(dtype).itemsize + 1
    return np.ndarray(count, dtype, content, strides=(1,))[places]


def _varying(
    content: bytes,
    starts: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
    null: npt.NDArray[np.bool_] | None,
    arrow: pa.DataType,
) -> pa.Array:
    """Copy values of any length, at once: every second of the pieces between all starts and ends."""
    bounds = np.empty(2 * len(starts) + 1, np.int32)
    bounds[0:-1:2], bounds[1::2], bounds[-1] = starts, ends, ends[-1]
    buffers = [None, pa.py_buffer(bounds), pa.py_buffer(content)]
    pieces = pa.Array.from_buffers(arrow, len(bounds) - 1, buffers)
    chosen = pa.array(np.arange(0, len(bounds) - 1, 2, dtype=np.int32), mask=null)
    values = pieces.take(chosen)
    values.validate(full=True)
    return values


def _of_bytes(
    content: bytes, arrow: pa.DataType, rows: int, null: npt.NDArray[np.bool_] | None
) -> pa.Array:
    valid = None
    if null is not None:
        valid = pa.py_buffer(np.packbits(~null, bitorder="little").tobytes())
    return pa.Array.from_buffers(arrow, rows, [valid, pa.py_buffer(content)])
