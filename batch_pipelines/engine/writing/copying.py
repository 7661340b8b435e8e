"""COPY into a table: chunks in, digested on the way, binary out. Used by publish and by diagnosis.

The digest of a row is taken from the parsed values, before they are encoded; PostgreSQL's comes from
what it stored. Whatever goes wrong between the two shows as a difference.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import numpy as np
import pgpq
import pyarrow as pa
import pyarrow.parquet as pq
from psycopg import sql

from batch_pipelines.engine.catalog import STAMP
from batch_pipelines.engine.digests import RowDigest, row_crc32c
from batch_pipelines.engine.errors import FeedError
from batch_pipelines.engine.failpoints import failpoint
from batch_pipelines.engine.ledger.proofs import ChunkDigest
from batch_pipelines.engine.reading.readers import file_columns, read_chunks
from batch_pipelines.engine.wire_types import WireType

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

    import numpy.typing as npt
    import psycopg

    from batch_pipelines.engine.catalog import Column, TableInfo
    from batch_pipelines.engine.ledger.files import ImportFile
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.reading.readers import Chunk

# libpq slows down when handed more than about 128 KiB at once (psycopg's own measurement).
_WRITE_BYTES = 128 * 1024
_AS_TEXT = WireType(25, "text", pa.string())


@dataclass(frozen=True)
class TableSource:
    """What a delivery brings for one table.

    Attributes:
        table: The target table.
        files: The staged files, in the order of their names.
        folder: Where they are.
        columns: The columns they bring, in the table's order.
    """

    table: TableInfo
    files: tuple[ImportFile, ...]
    folder: Path
    columns: tuple[Column, ...]

    @property
    def exact(self) -> tuple[Column, ...]:
        """The columns that row digests cover."""
        return tuple(column for column in self.columns if column.wire is not None)

    @property
    def as_text(self) -> tuple[Column, ...]:
        """The columns sent as text and stored by PostgreSQL's own conversion."""
        return tuple(column for column in self.columns if column.wire is None)

    @property
    def records(self) -> int:
        """Records by the independent count."""
        return sum(file.records or 0 for file in self.files)

    def chunks(self) -> Iterator[Chunk]:
        """Read all files, one after the other."""
        for file in self.files:
            yield from read_chunks(self.folder / file.file_name, file.format, self.table)


def table_source(table: TableInfo, files: Sequence[ImportFile], folder: Path) -> TableSource:
    """Put together what a delivery brings for a table.

    Args:
        table: The target table.
        files: Its staged files.
        folder: Where they are.

    Returns:
        The source.

    Raises:
        DeliveryError: A header cannot be read.
        FeedError: Columns do not fit the table, or differ between the files.
    """
    brought = {f.file_name: file_columns(folder / f.file_name, f.format, table) for f in files}
    first, *others = brought
    for other in others:
        difference = {c.name for c in brought[first]} ^ {c.name for c in brought[other]}
        if difference:
            message = (
                f"{other}: its columns differ from those of {first} in {', '.join(sorted(difference))}. "
                "All files of one delivery that fill a table must bring the same columns."
            )
            raise FeedError(message)
    names = {column.name for column in brought[first]}
    columns = tuple(column for column in table.columns if column.name in names)
    return TableSource(table, tuple(files), folder, columns)


@dataclass
class Proof:
    """Watches the chunks of a source go by: counts, digests, and the bag's file of row digests.

    Attributes:
        source: What is watched.
        path: The Parquet file to write: file, record, primary key where delivered, CRC32C.
        digest: Of all rows so far, over the columns whose stored form is foretold.
        received: Of all rows so far, over all columns as they are sent; kept only where some are
            sent as text.
        chunks: Of each chunk so far.
    """

    source: TableSource
    path: Path
    digest: RowDigest = field(default_factory=RowDigest.zero)
    received: RowDigest = field(default_factory=RowDigest.zero)
    chunks: list[ChunkDigest] = field(default_factory=list)

    def __enter__(self) -> Self:
        delivered = {column.name: column for column in self.source.columns}
        names = self.source.table.primary_key
        self._key = tuple(names) if set(names) <= set(delivered) else ()
        fields = [pa.field("file_name", pa.string()), pa.field("record", pa.int64())]
        fields += [pa.field(name, _arrow_type(delivered[name])) for name in self._key]
        self._writer = pq.ParquetWriter(
            self.path, pa.schema([*fields, pa.field("crc32c", pa.uint32())]), compression="zstd"
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.close()

    def watch(self, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
        """Take note of chunks and pass them on.

        Args:
            chunks: The source's chunks in order.

        Yields:
            The same chunks.
        """
        for chunk in chunks:
            arrays = {c.name: a for c, a in zip(chunk.columns, chunk.arrays, strict=True)}
            # Where every column is sent as text, rows are told apart by what is sent.
            columns = self.source.exact or self.source.columns
            self._note(chunk, arrays, _crcs(columns, arrays))
            if self.source.as_text:
                self.received += RowDigest.of(_crcs(self.source.columns, arrays))
            yield chunk

    def _note(
        self, chunk: Chunk, arrays: dict[str, pa.Array], crcs: npt.NDArray[np.uint32]
    ) -> None:
        own = RowDigest.of(crcs)
        self.digest += own
        self.chunks.append(
            ChunkDigest(
                self.source.table.full_name, chunk.file_name, chunk.index, chunk.first_record,
                chunk.rows, own.total, own.moment,
            )
        )  # fmt: skip
        records = np.arange(chunk.first_record, chunk.first_record + chunk.rows, dtype=np.int64)
        self._writer.write_batch(
            pa.record_batch(
                [
                    pa.repeat(pa.scalar(chunk.file_name), chunk.rows),
                    pa.array(records),
                    *(arrays[name] for name in self._key),
                    pa.array(crcs),
                ],
                schema=self._writer.schema,
            )
        )


def copy_stamped(
    connection: Connection,
    target: sql.Composable,
    source: TableSource,
    chunks: Iterable[Chunk],
    batch_id: str,
) -> int:
    """COPY chunks into a table, each row with the batch's stamp.

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
    return _copy(connection, target, schema, batches)


def copy_placed(
    connection: Connection, target: sql.Composable, source: TableSource, places: Sequence[str]
) -> int:
    """COPY a source with the place of each record, to look for what is wrong with it.

    Args:
        connection: A connection inside a transaction.
        target: The quoted name of the table.
        source: The source.
        places: Names of the two columns for the file's number (from 0) and the record's (from 1).

    Returns:
        Rows sent.
    """
    numbers = {file.file_name: number for number, file in enumerate(source.files)}
    types = (pa.int32(), pa.int64())

    def placed() -> Iterator[pa.RecordBatch]:
        for chunk in source.chunks():
            number = pa.repeat(pa.scalar(numbers[chunk.file_name], types[0]), chunk.rows)
            first = chunk.first_record
            records = pa.array(np.arange(first, first + chunk.rows, dtype=np.int64))
            yield _record_batch(
                chunk, source.columns, dict(zip(places, (number, records), strict=True))
            )

    fields = [pa.field(name, kind) for name, kind in zip(places, types, strict=True)]
    return _copy(connection, target, pa.schema([*_fields(source.columns), *fields]), placed())


def staging_columns(columns: Sequence[Column]) -> sql.Composed:
    """Give the column definitions of a table that takes a source as it is read.

    Args:
        columns: The columns; those outside the closed list of types become text.

    Returns:
        SQL like `"a" integer, "b" text`.
    """
    return sql.SQL(", ").join(
        sql.SQL("{} {}").format(
            sql.Identifier(column.name),
            # A type's name comes from PostgreSQL's own format_type, which quotes it.
            sql.SQL("text" if column.wire is None else column.type_name),
        )
        for column in columns
    )


def _wire(column: Column) -> WireType:
    return _AS_TEXT if column.wire is None else column.wire


def _arrow_type(column: Column) -> pa.DataType:
    return _wire(column).arrow


def _crcs(columns: Sequence[Column], arrays: dict[str, pa.Array]) -> npt.NDArray[np.uint32]:
    return row_crc32c([_wire(c) for c in columns], [arrays[c.name] for c in columns])


def _fields(columns: Sequence[Column]) -> list[pa.Field]:
    return [pa.field(column.name, _arrow_type(column)) for column in columns]


def _record_batch(
    chunk: Chunk, columns: Sequence[Column], extra: dict[str, pa.Array]
) -> pa.RecordBatch:
    arrays = {c.name: a for c, a in zip(chunk.columns, chunk.arrays, strict=True)}
    ordered = {column.name: arrays[column.name] for column in columns} | extra
    return pa.RecordBatch.from_pydict(ordered)


def _copy(
    connection: Connection,
    target: sql.Composable,
    schema: pa.Schema,
    batches: Iterable[pa.RecordBatch],
) -> int:
    """Encode record batches for COPY (FORMAT binary), whose layout PostgreSQL's manual gives."""
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


def _send(copy: psycopg.Copy, encoded: bytes) -> None:
    content = memoryview(failpoint("bulk_write.encoded", encoded))
    for start in range(0, len(content), _WRITE_BYTES):
        copy.write(content[start : start + _WRITE_BYTES])
