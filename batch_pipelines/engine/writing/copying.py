"""COPY of chunks into a table, in PostgreSQL's binary format: a target table, or one that stages."""

from __future__ import annotations

import itertools
import uuid
from typing import TYPE_CHECKING

import pgpq
import pyarrow as pa
from psycopg import sql

from batch_pipelines.engine.catalog import STAMP
from batch_pipelines.engine.failpoints import failpoint
from batch_pipelines.engine.writing.proof import wire_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import psycopg

    from batch_pipelines.engine.catalog import Column
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.reading.chunks import Chunk
    from batch_pipelines.engine.writing.source import TableSource

# libpq slows down when handed more than about 128 KiB at once (psycopg's own measurement).
_WRITE_BYTES = 128 * 1024
PLACE = "batch_pipelines_place"
"""Column of a staging table: where a record stands in its source; see `place`."""
GROUP = "batch_pipelines_group"
"""Column of a staging table whose rows are not all written alike; see `Chunk.groups`."""
_FILE_BITS = 40


def place(file_number: int, record: int) -> int:
    """Give the place of a record among all of a table's source, in source order.

    Args:
        file_number: Number of its file, from 0.
        record: Its number in the file, from 1 to 2^40 - 1.

    Returns:
        A number that fits a bigint.
    """
    return file_number << _FILE_BITS | record


def file_and_record(place: int) -> tuple[int, int]:
    """Take a place apart into number of the file and number of the record."""
    return place >> _FILE_BITS, place & (1 << _FILE_BITS) - 1


def copy_stamped(
    connection: Connection,
    target: sql.Composable,
    source: TableSource,
    chunks: Iterable[Chunk],
    batch_id: str,
) -> int:
    """COPY chunks into a table, each row with the batch's stamp.

    Where the table has foreign keys, the first chunk is a statement of its own: they are looked at
    when a statement ends, and a delivery that is dirty throughout should not be sent to its end before
    that shows. (Not where the table refers to itself: a parent may come after its child.)

    Args:
        connection: A connection inside the publish transaction.
        target: The quoted name of the table.
        source: Says which columns, in the table's order.
        chunks: The chunks.
        batch_id: The stamp.

    Returns:
        Rows sent.
    """
    stamp = pa.scalar(uuid.UUID(batch_id).bytes, pa.binary(16))
    batches = (
        _record_batch(chunk, source.columns, {STAMP: pa.repeat(stamp, chunk.rows)})
        for chunk in chunks
    )
    schema = pa.schema([*_fields(source.columns), pa.field(STAMP, pa.binary(16))])
    sent = 0
    if statements_for(source) > 1:
        sent = copy_batches(connection, target, schema, itertools.islice(batches, 1))
    return sent + copy_batches(connection, target, schema, batches)


def statements_for(source: TableSource) -> int:
    """Say how many statements `copy_stamped` takes."""
    parents = {key.parent_oid for key in source.table.parents}
    return 2 if parents and source.table.oid not in parents else 1


def copy_placed(
    connection: Connection, target: sql.Composable, source: TableSource, chunks: Iterable[Chunk]
) -> int:
    """COPY chunks into a staging table, each row with its place.

    Args:
        connection: A connection.
        target: The quoted name of the table.
        source: Says which columns, in the table's order.
        chunks: The chunks.

    Returns:
        The sum of the places, for what arrives to be held against.
    """
    numbers = {file.file_name: number for number, file in enumerate(source.files)}
    total = 0

    def placed() -> Iterator[pa.RecordBatch]:
        nonlocal total
        for chunk in chunks:
            start = place(numbers[chunk.file_name], 0)
            total += start * chunk.rows + int(chunk.records.sum())
            extra = {PLACE: pa.array(chunk.records + start)}
            if source.is_grouped:
                extra[GROUP] = pa.array(chunk.groups, pa.int32())
            yield _record_batch(chunk, source.columns, extra)

    schema = pa.schema([*_fields(source.columns), pa.field(PLACE, pa.int64())])
    if source.is_grouped:
        schema = schema.append(pa.field(GROUP, pa.int32()))
    copy_batches(connection, target, schema, placed())
    return total


def copy_batches(
    connection: Connection,
    target: sql.Composable,
    schema: pa.Schema,
    batches: Iterator[pa.RecordBatch],
) -> int:
    """COPY record batches into a table, in binary, whose layout PostgreSQL's manual gives.

    Args:
        connection: A connection.
        target: The quoted name of the table.
        schema: Its columns, each with the Arrow type of its wire type.
        batches: The rows.

    Returns:
        Rows sent.
    """
    names = sql.SQL(", ").join(map(sql.Identifier, schema.names))
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(target, names)
    encoder = pgpq.ArrowToPostgresBinaryEncoder(schema)
    sent = 0
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        _send(copy, encoder.write_header())
        for batch in batches:
            _send(copy, encoder.write_batch(failpoint("bulk_write.parsed", batch)))
            sent += batch.num_rows
        _send(copy, encoder.finish())
    return sent


def _fields(columns: Sequence[Column]) -> list[pa.Field]:
    return [pa.field(column.name, wire_of(column).arrow) for column in columns]


def _record_batch(
    chunk: Chunk, columns: Sequence[Column], extra: dict[str, pa.Array]
) -> pa.RecordBatch:
    arrays = {c.name: a for c, a in zip(chunk.columns, chunk.arrays, strict=True)}
    ordered = {column.name: arrays[column.name] for column in columns} | extra
    return pa.RecordBatch.from_pydict(ordered)


def _send(copy: psycopg.Copy, encoded: bytes) -> None:
    content = memoryview(failpoint("bulk_write.encoded", encoded))
    for start in range(0, len(content), _WRITE_BYTES):
        copy.write(content[start : start + _WRITE_BYTES])
