"""The row audit: for feeds that ask for it, a line of `crc32_audit` for each record that was loaded.

What was computed of a record as it was parsed stands beside what is computed of its stored row, read
back in the publish transaction. No value is kept: a record is told by its place and a checksum of its
key. Not here: the proof of all rows together, which every batch has (`publishing`).
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import crc32c
import numpy as np
import pyarrow.parquet as pq
from psycopg import sql

from batch_pipelines.engine.catalog import STAMP
from batch_pipelines.engine.digests import row_crc32c
from batch_pipelines.engine.errors import PublishError
from batch_pipelines.engine.failpoints import failpoint
from batch_pipelines.engine.writing.proof import Proof, wire_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.writing.source import TableSource

_HAS_CRC32C: Final = 180_000  # crc32c(bytea) came with PostgreSQL 18
_WIRE = sql.SQL("pg_catalog.record_send(ROW({}))")
_STORED = sql.SQL("COPY (SELECT {key}, {row}, octet_length({wire}) FROM {table} WHERE {stamp} = {batch})"
                  " TO STDOUT (FORMAT binary)")  # fmt: skip
_AUDIT = """
COPY batch_audit.crc32_audit (batch_id, entity_type, entity_id, computed_crc32, expected_crc32,
    expected_source, status, bytes_processed, processing_time_ms, throughput_mbps, hardware_utilized)
FROM STDIN (FORMAT binary)
"""
_TYPES = (
    "uuid", "text", "text", "int8", "int8", "text", "text", "int8", "float8", "float8", "bool",
)  # fmt: skip


@dataclass(frozen=True)
class _Stored:
    """The batch's rows as PostgreSQL has them, in the order of their marks.

    Attributes:
        marks: (n,) checksum of the key (0 without one) in the upper 32 bits, of the row in the lower.
        sizes: (n,) bytes of each row in the wire format.
    """

    marks: npt.NDArray[np.uint64]
    sizes: npt.NDArray[np.int64]


def audit_rows(connection: Connection, batch_id: str, proof: Proof) -> int:
    """Write a line for each record of a source; called inside the publish transaction.

    Args:
        connection: The publishing connection.
        batch_id: The batch.
        proof: What was noted of the records while they went by; all of them are stored.

    Returns:
        How many lines.

    Raises:
        PublishError: A stored row is not what was parsed. The record is named.
    """
    source = proof.source
    key = _key_of(source)
    began = time.perf_counter()
    ours = _parsed(proof, key)
    if not len(ours):
        return 0
    stored = _read_back(connection, source, key, batch_id) if source.exact else None
    sizes = np.zeros(len(ours), np.int64)
    if stored is not None:
        places = _places(ours, stored.marks)
        found = np.append(stored.marks, np.uint64(0))[places] == ours
        found &= places < len(stored.marks)
        if not found.all():
            raise _differs(proof, int(np.argmin(found)), int((~found).sum()))
        sizes = stored.sizes[places]
    took = max(time.perf_counter() - began, 1e-9)
    rate = None if stored is None else float(sizes.sum()) / 1e6 / took
    # Numpy computes row digests by tables and not by the processor's instruction: not by hardware.
    each = (took * 1e3 / len(ours), rate, False)
    names = _names(proof, ours, with_key=bool(key))
    own_id, crcs = uuid.UUID(batch_id), (ours & np.uint64(0xFFFFFFFF)).tolist()
    with connection.cursor() as cursor, cursor.copy(_AUDIT) as copy:
        copy.set_types(_TYPES)
        for name, crc, size in zip(names, crcs, sizes.tolist(), strict=True):
            told = (crc, "readback", "valid") if stored is not None else (None, None, "recorded")
            copy.write_row((own_id, "row", name, crc, *told, size, *each))
    return len(ours)


def _key_of(source: TableSource) -> tuple[str, ...]:
    """Give the primary key, where the source tells it in the form in which it is stored."""
    key = source.table.primary_key
    return key if key and {*key} <= {column.name for column in source.exact} else ()


def _parsed(proof: Proof, key: tuple[str, ...]) -> npt.NDArray[np.uint64]:
    """Mark the records as they were parsed, in their order."""
    wires = [wire_of(proof.source.table.column(name)) for name in key]
    parts = [np.zeros(0, np.uint64)]
    with pq.ParquetFile(proof.path) as noted:
        for rows in noted.iter_batches():
            marks = rows.column(rows.num_columns - 1).to_numpy().astype(np.uint64)
            if key:
                columns = [rows.column(2 + place) for place in range(len(key))]
                marks |= row_crc32c(wires, columns).astype(np.uint64) << np.uint64(32)
            parts.append(marks)
    return np.concatenate(parts)


def _names(proof: Proof, marks: npt.NDArray[np.uint64], *, with_key: bool) -> Iterator[str]:
    """Name each record: table, file and number, and the checksum of its key."""
    table, done = proof.source.table.full_name, 0
    with pq.ParquetFile(proof.path) as noted:
        for rows in noted.iter_batches():
            own = (marks[done : done + rows.num_rows] >> np.uint64(32)).tolist()
            done += rows.num_rows
            places = zip(rows.column(0).to_pylist(), rows.column(1).to_pylist(), own, strict=True)
            for file_name, record, crc in places:
                yield f"{table}#{file_name}#{record}" + (f"#{crc:08x}" if with_key else "")


def _read_back(
    connection: Connection, source: TableSource, key: tuple[str, ...], batch_id: str
) -> _Stored:
    columns = [column.name for column in source.exact]
    wire, key_wire = (
        _WIRE.format(sql.SQL(", ").join(map(sql.Identifier, names))) for names in (columns, key)
    )
    in_server = connection.info.server_version >= _HAS_CRC32C
    computed = sql.SQL("pg_catalog.crc32c({})" if in_server else "{}")
    query = _STORED.format(
        key=computed.format(key_wire) if key else sql.SQL("NULL"), row=computed.format(wire), wire=wire,
        table=source.table.identifier, stamp=sql.Identifier(STAMP), batch=sql.Literal(batch_id),
    )  # fmt: skip
    marks: list[int] = []
    sizes: list[int] = []
    kind = "int8" if in_server else "bytea"
    with connection.cursor() as cursor, cursor.copy(query) as copy:
        copy.set_types([kind if key else "text", kind, "int4"])
        for of_key, of_row, size in copy.rows():
            upper, lower = (
                each if each is None or in_server else crc32c.crc32c(each)
                for each in (of_key, of_row)
            )
            marks.append((upper or 0) << 32 | lower)
            sizes.append(size)
    found = failpoint("row_audit.read_back", np.array(marks, np.uint64))
    order = np.argsort(found)
    return _Stored(found[order], np.array(sizes, np.int64)[order])


def _places(ours: npt.NDArray[np.uint64], stored: npt.NDArray[np.uint64]) -> npt.NDArray[np.intp]:
    """Find a stored row for each record, for equal records one each; behind the end where is none."""
    order = np.argsort(ours, kind="stable")
    ranked = ours[order]
    rank = np.arange(len(ours)) - np.searchsorted(ranked, ranked, side="left")
    places = np.empty(len(ours), np.intp)
    places[order] = np.searchsorted(stored, ranked, side="left") + rank
    return np.minimum(places, len(stored))


def _differs(proof: Proof, first: int, differing: int) -> PublishError:
    with pq.ParquetFile(proof.path) as noted:
        for rows in noted.iter_batches():
            if first < rows.num_rows:
                file_name, record = rows.column(0)[first].as_py(), rows.column(1)[first].as_py()
                break
            first -= rows.num_rows
    return PublishError(
        f"{proof.source.table.full_name}: {differing} stored rows are not what was read, the first of "
        f"{file_name}, record {record}; nothing was written. Run again; if it happens again, a trigger "
        "may change the rows, or the machine's memory may be faulty."
    )
