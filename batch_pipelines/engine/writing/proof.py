"""The proof of a table's rows: digests of what was parsed, to be held against what PostgreSQL stored.

The digest of a row is taken from the parsed values, before they are encoded; PostgreSQL's comes from
what it stored. Whatever goes wrong between the two shows as a difference.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batch_pipelines.engine.digests import RowDigest, row_crc32c
from batch_pipelines.engine.ledger.proofs import ChunkDigest
from batch_pipelines.engine.wire_types import WireType

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    import numpy.typing as npt

    from batch_pipelines.engine.catalog import Column
    from batch_pipelines.engine.ledger.rejects import Rejects
    from batch_pipelines.engine.reading.chunks import Chunk
    from batch_pipelines.engine.writing.source import TableSource

_AS_TEXT = WireType(25, "text", pa.string())


@dataclass
class Proof:
    """Watches the chunks of a source go by: counts, digests, rejects, and the bag's row digests.

    Attributes:
        source: What is watched.
        path: The Parquet file to write: file, record, primary key where delivered, CRC32C.
        rejects: Takes in the records that cannot be loaded.
        digest: Of all rows so far, over the columns whose stored form is foretold.
        received: Of all rows so far, over all columns as they are sent; kept only where what is
            stored may differ.
        chunks: Of each chunk so far.
    """

    source: TableSource
    path: Path
    rejects: Rejects
    digest: RowDigest = field(default_factory=RowDigest.zero)
    received: RowDigest = field(default_factory=RowDigest.zero)
    chunks: list[ChunkDigest] = field(default_factory=list)

    @cached_property
    def _key(self) -> tuple[str, ...]:
        names = self.source.table.primary_key
        return names if {*names} <= {column.name for column in self.source.told} else ()

    @cached_property
    def _schema(self) -> pa.Schema:
        fields = [pa.field("file_name", pa.string()), pa.field("record", pa.int64())]
        key = (self.source.table.column(name) for name in self._key)
        fields += [pa.field(column.name, wire_of(column).arrow) for column in key]
        return pa.schema([*fields, pa.field("crc32c", pa.uint32())])

    def __enter__(self) -> Self:
        self._writer = _open(self.path, self._schema)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.close()

    def watch(self, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
        """Take note of chunks and pass on what can be loaded of them.

        Args:
            chunks: The source's chunks in order.

        Yields:
            Those of them that have rows.
        """
        for chunk in chunks:
            self.rejects.add(self.source.table.full_name, chunk.rejects)
            if not chunk.rows:
                continue
            arrays = {c.name: a for c, a in zip(chunk.columns, chunk.arrays, strict=True)}
            # Where every column is sent as text, rows are told apart by what is sent.
            columns = self.source.exact or self.source.columns
            self._note(chunk, arrays, _crcs(columns, arrays))
            if self.source.is_received_otherwise:
                self.received += RowDigest.of(_crcs(self.source.columns, arrays))
            yield chunk

    def take_out(self, rejected: Mapping[str, npt.NDArray[np.int64]]) -> None:
        """Leave records out that were found not to fit after they had gone by.

        Args:
            rejected: Their numbers by file, sorted.
        """
        if not any(len(numbers) for numbers in rejected.values()):
            return
        whole = self.path.with_suffix(".whole")
        self.path.rename(whole)
        begun = self.chunks
        self.digest, self.chunks = RowDigest.zero(), []
        with pq.ParquetFile(whole) as reading, _open(self.path, self._schema) as writing:
            for batch in reading.iter_batches():
                left = batch.filter(pa.array(~_is_among(batch, rejected)))
                writing.write_batch(left)
                self._add_up(left, begun)
        whole.unlink()

    def _add_up(self, rows: pa.RecordBatch, begun: Sequence[ChunkDigest]) -> None:
        """Add rows to the digests of the chunks they came in."""
        crcs, records = rows["crc32c"].to_numpy(), rows["record"].to_numpy()
        for name in pc.unique(rows["file_name"]).to_pylist():
            chunks = [chunk for chunk in begun if chunk.file_name == name]
            of_file = pc.equal(rows["file_name"], name).to_numpy(zero_copy_only=False)
            place = np.searchsorted([c.first_record for c in chunks], records, side="right") - 1
            for index in np.unique(place[of_file]).tolist():
                own = of_file & (place == index)
                self._add(name, chunks[index].chunk, records[own], crcs[own])

    def _add(
        self,
        file_name: str,
        index: int,
        records: npt.NDArray[np.int64],
        crcs: npt.NDArray[np.uint32],
    ) -> None:
        own = RowDigest.of(crcs)
        self.digest += own
        table, last = self.source.table.full_name, self.chunks[-1] if self.chunks else None
        if last is not None and (last.file_name, last.chunk) == (file_name, index):
            self.chunks[-1] = replace(
                last,
                records=last.records + own.rows,
                digest_sum=last.digest_sum + own.total,
                digest_moment=last.digest_moment + own.moment,
            )
            return
        self.chunks.append(
            ChunkDigest(table, file_name, index, int(records[0]), own.rows, own.total, own.moment)
        )

    def _note(
        self, chunk: Chunk, arrays: dict[str, pa.Array], crcs: npt.NDArray[np.uint32]
    ) -> None:
        self._add(chunk.file_name, chunk.index, chunk.records, crcs)
        self._writer.write_batch(
            pa.record_batch(
                [
                    pa.repeat(pa.scalar(chunk.file_name), chunk.rows),
                    pa.array(chunk.records),
                    *(arrays[name] for name in self._key),
                    pa.array(crcs),
                ],
                schema=self._schema,
            )
        )


def wire_of(column: Column) -> WireType:
    """Give the type a column is sent in.

    Args:
        column: A target column.

    Returns:
        Its own wire type, or text where that is not in the closed list.
    """
    return _AS_TEXT if column.wire is None else column.wire


def _open(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    return pq.ParquetWriter(path, schema, compression="zstd")


def _crcs(columns: Sequence[Column], arrays: dict[str, pa.Array]) -> npt.NDArray[np.uint32]:
    return row_crc32c([wire_of(c) for c in columns], [arrays[c.name] for c in columns])


def _is_among(
    rows: pa.RecordBatch, records: Mapping[str, npt.NDArray[np.int64]]
) -> npt.NDArray[np.bool_]:
    numbers, found = rows["record"].to_numpy(), np.zeros(rows.num_rows, dtype=bool)
    for name, own in records.items():
        of_file = pc.equal(rows["file_name"], name).to_numpy(zero_copy_only=False)
        found |= of_file & np.isin(numbers, own)
    return found
