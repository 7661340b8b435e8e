"""The quarantine: rejects gathered in a file while a batch is read, then kept in the ledger.

Until it is decided whether the batch is published, rejects stand in a file of its staging: however many
there are, memory stays bounded, and the ledger gets them in one transaction with the verdict.
"""

from __future__ import annotations

import json
import uuid
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pgpq
import pyarrow as pa
from psycopg import sql
from psycopg.rows import class_row

from batch_pipelines.engine.errors import DeliveryError
from batch_pipelines.engine.rejects import Breach, Reason, Reject

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

    import numpy.typing as npt

    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.postgres.database import Connection

# Rejects held in memory at a time.
_ROWS = 2_000
_SCHEMA = pa.schema(
    [
        ("target_table", pa.string()),
        ("file_name", pa.string()),
        ("record_number", pa.int64()),
        ("line_number", pa.int64()),
        ("byte_offset", pa.int64()),
        ("raw", pa.binary()),
        ("column_name", pa.string()),
        ("sqlstate", pa.string()),
        ("constraint_name", pa.string()),
        ("message", pa.string()),
        ("breaches", pa.string()),
        ("skipped", pa.bool_()),
    ]
)
STORED = pa.schema(
    [
        ("id", pa.int64()),
        ("batch_id", pa.string()),
        ("feed", pa.string()),
        *_SCHEMA,
        ("created_at", pa.timestamp("us", tz="UTC")),
        ("replayed_at", pa.timestamp("us", tz="UTC")),
        ("replayed_by", pa.string()),
    ]
)
"""The columns of `opened_reject`; uuids as text, `breaches` as JSON."""
_RAW = STORED.names.index("raw")
_FORGET = "DELETE FROM batch_audit.import_reject WHERE batch_id = %s AND replayed_at IS NULL"
_COPY = sql.SQL(
    "COPY batch_audit.import_reject ({}, feed, batch_id) FROM STDIN (FORMAT binary)"
).format(sql.SQL(", ").join(map(sql.Identifier, _SCHEMA.names)))
_OF_BATCH = """
SELECT target_table, file_name, record_number, line_number, byte_offset, column_name, sqlstate,
       constraint_name, message, breaches, replayed_at
FROM batch_audit.import_reject WHERE batch_id = %(batch_id)s AND NOT skipped
ORDER BY file_name, record_number LIMIT %(limit)s
"""
# In the same order, so that they can be told apart by their places.
_RAW_OF_BATCH = """
SELECT raw FROM batch_audit.opened_reject WHERE batch_id = %(batch_id)s AND NOT skipped
ORDER BY file_name, record_number LIMIT %(limit)s
"""
_SUMMARY = """
SELECT target_table, sqlstate, column_name, constraint_name, message, count(*) AS records
FROM batch_audit.import_reject_breach WHERE batch_id = %s AND replayed_at IS NULL
GROUP BY 1, 2, 3, 4, 5 ORDER BY 6 DESC, 1, 2, 3, 4, 5
"""
_COUNT = """
SELECT target_table, count(*) FROM batch_audit.import_reject
WHERE batch_id = %s AND replayed_at IS NULL AND NOT skipped GROUP BY 1 ORDER BY 1
"""
_STILL = """
CREATE TEMPORARY TABLE batch_pipelines_still (file_name text, record_number bigint) ON COMMIT DROP
"""
_ADD_STILL = """
INSERT INTO batch_pipelines_still SELECT * FROM unnest(%s::text[], %s::bigint[])
"""
_REPLAYED = """
UPDATE batch_audit.import_reject AS r
SET replayed_at = clock_timestamp(), replayed_by = %(run_id)s
WHERE batch_id = %(batch_id)s AND replayed_at IS NULL AND NOT skipped AND NOT EXISTS (
    SELECT FROM batch_pipelines_still AS s
    WHERE s.file_name = r.file_name AND s.record_number = r.record_number)
"""
_LEFT_OUT = """
SELECT record_number, coalesce(byte_offset, -1), raw_bytes
FROM batch_audit.import_reject
WHERE batch_id = %s AND file_name = %s AND replayed_at IS NULL AND (%s OR NOT skipped)
    AND (target_table = %s OR %s::text IS NULL)
ORDER BY record_number
"""
_HAS_ANY = "SELECT EXISTS (SELECT FROM batch_audit.import_reject WHERE batch_id = %s)"
# COPY sends row by row: however many there are, neither side holds them all.
_STORED = sql.SQL("""
COPY (SELECT id, batch_id::text, feed, target_table, file_name, record_number, line_number, byte_offset,
             raw, column_name, sqlstate, constraint_name, message, breaches::text, skipped, created_at,
             replayed_at, replayed_by::text
      FROM batch_audit.opened_reject WHERE batch_id = {} ORDER BY file_name, record_number)
TO STDOUT (FORMAT binary)
""")
_TYPES = [
    "int8", "text", "text", "text", "text", "int8", "int8", "int8", "bytea", "text", "text", "text",
    "text", "text", "bool", "timestamptz", "timestamptz", "text",
]  # fmt: skip
_PART_ROWS, _PART_BYTES = 10_000, 8_000_000
_REPLAYS = """
SELECT DISTINCT replayed_by::text FROM batch_audit.import_reject
WHERE batch_id = %s AND replayed_by IS NOT NULL ORDER BY 1
"""
_WERE_REFUSED = """
SELECT EXISTS (
    SELECT FROM batch_audit.import_reject AS r
    WHERE r.sqlstate NOT LIKE '22%%' AND r.constraint_name IS NOT NULL AND r.batch_id = (
        SELECT batch_id FROM batch_audit.import_history
        WHERE feed = %s AND published_at IS NOT NULL ORDER BY published_at DESC LIMIT 1))
"""


class Rejects:
    """The rejects of one batch, gathered in a file; one writer, in any thread.

    Attributes:
        count: How many, by target table, those apart that are skipped.
        skipped: How many the feed has passed over, by target table.
        reasons: How many, by the first reason of each.
        first: The first one by file and record, or None.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: list[dict[str, object]] = []
        self._batches = 0
        self.count = Counter[str]()
        self.skipped = Counter[str]()
        self.reasons = Counter[Reason]()
        self.first: Reject | None = None

    def __enter__(self) -> Self:
        self._file = self._path.open("wb")
        self._writer = pa.ipc.new_stream(
            self._file, _SCHEMA, options=pa.ipc.IpcWriteOptions(compression="zstd")
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Finish the file, so that it can be taken over: nothing is taken in any more."""
        if not self._file.closed:
            self._flush()
            self._writer.close()
            self._file.close()

    @property
    def total(self) -> int:
        """How many there are in all."""
        return self.count.total()

    def add(self, table: str, rejects: Iterable[Reject], *, skipped: bool = False) -> None:
        """Take rejects in.

        Args:
            table: The table they were meant for, as the feed writes it.
            rejects: Some records, no two of them the same.
            skipped: Whether the feed has them passed over.
        """
        for reject in rejects:
            if skipped:
                self.skipped[table] += 1
            else:
                self.first = min(self.first or reject, reject, key=_place)
                self.count[table] += 1
                self.reasons[Reason(table, reject.breaches[0])] += 1
            self._waiting.append(_row(table, reject, skipped=skipped))
            if len(self._waiting) >= _ROWS:
                self._flush()

    def take_over(self, path: Path) -> None:
        """Take in the rejects that an earlier step of the batch has gathered.

        Args:
            path: Its file.

        Raises:
            DeliveryError: The file is gone or damaged.
        """
        try:
            with path.open("rb") as file, pa.ipc.open_stream(file) as reader:
                for rows in reader:
                    for row in rows.to_pylist():
                        self.add(row["target_table"], [_reject(row)], skipped=row["skipped"])
        except (OSError, pa.ArrowException):
            message = f"{path}: gone or damaged. Run the whole partition again."
            raise DeliveryError(message) from None

    def record(self, connection: Connection, batch: Batch) -> None:
        """Keep them in the ledger, in place of what an earlier try of the batch has left there.

        Args:
            connection: A connection; inside the publish transaction where the batch is published.
            batch: The batch.
        """
        connection.execute(_FORGET, (batch.batch_id,))
        self._copy(connection, batch)

    def _copy(self, connection: Connection, batch: Batch) -> None:
        self._flush()
        if not self._batches:
            return
        feed, batch_id = (
            pa.scalar(batch.feed),
            pa.scalar(uuid.UUID(batch.batch_id).bytes, pa.binary(16)),
        )
        schema = pa.schema([*_SCHEMA, ("feed", pa.string()), ("batch_id", pa.binary(16))])
        encoder = pgpq.ArrowToPostgresBinaryEncoder(schema)
        with connection.cursor() as cursor, cursor.copy(_COPY) as copy:
            copy.write(encoder.write_header())
            for rows in self._written():
                own = [pa.repeat(feed, rows.num_rows), pa.repeat(batch_id, rows.num_rows)]
                copy.write(
                    encoder.write_batch(pa.record_batch([*rows.columns, *own], schema=schema))
                )
            copy.write(encoder.finish())

    def record_replay(self, connection: Connection, batch: Batch, run_id: str) -> None:
        """Keep which records a replay has loaded; of those it could not, the reasons of today.

        Args:
            connection: A connection inside the publish transaction.
            batch: The batch.
            run_id: The run that replayed.
        """
        self._flush()
        connection.execute(_STILL)
        for rows in self._written():
            names, numbers = rows["file_name"].to_pylist(), rows["record_number"].to_pylist()
            connection.execute(_ADD_STILL, (names, numbers))
        connection.execute(_REPLAYED, {"run_id": run_id, "batch_id": batch.batch_id})
        connection.execute(_FORGET + " AND NOT skipped", (batch.batch_id,))
        self._copy(connection, batch)

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_batch(pa.RecordBatch.from_pylist(self._waiting, _SCHEMA))
            self._waiting.clear()
            self._batches += 1

    def _written(self) -> Iterator[pa.RecordBatch]:
        """Read back what has been written; the stream itself has no end yet."""
        if not self._batches:
            return
        self._file.flush()
        with self._path.open("rb") as file, pa.ipc.open_stream(file) as reader:
            for _ in range(self._batches):
                yield reader.read_next_batch()


def _place(reject: Reject) -> tuple[str, int]:
    return reject.file_name, reject.record


def _row(table: str, reject: Reject, *, skipped: bool) -> dict[str, object]:
    first = reject.breaches[0]
    return {
        "target_table": table,
        "file_name": reject.file_name,
        "record_number": reject.record,
        "line_number": reject.line,
        "byte_offset": reject.offset,
        "raw": reject.raw,
        "column_name": first.column,
        "sqlstate": first.sqlstate,
        "constraint_name": first.constraint,
        "message": first.message,
        "breaches": json.dumps([asdict(breach) for breach in reject.breaches]),
        "skipped": skipped,
    }


def _reject(row: dict[str, Any]) -> Reject:
    return Reject(
        row["file_name"], row["record_number"], row["line_number"], row["byte_offset"], row["raw"],
        tuple(Breach(**breach) for breach in json.loads(row["breaches"])),
    )  # fmt: skip


@dataclass(frozen=True)
class RejectRecord:
    """A reject as the ledger keeps it, without the record itself; see docs/ledger.md."""

    target_table: str
    file_name: str
    record_number: int
    line_number: int | None
    byte_offset: int | None
    column_name: str | None
    sqlstate: str
    constraint_name: str | None
    message: str
    breaches: list[dict[str, str | None]]
    replayed_at: dt.datetime | None


@dataclass(frozen=True)
class RejectCount:
    """How many records of a batch one reason holds back."""

    target_table: str
    sqlstate: str
    column_name: str | None
    constraint_name: str | None
    message: str
    records: int


def of_batch(connection: Connection, batch_id: str, limit: int | None = None) -> list[RejectRecord]:
    """Read the rejects of a batch in the order of its files.

    Args:
        connection: A connection.
        batch_id: The batch.
        limit: At most so many; None for all.

    Returns:
        The rejects, those that a replay has loaded since among them.
    """
    with connection.cursor(row_factory=class_row(RejectRecord)) as cursor:
        return cursor.execute(_OF_BATCH, {"batch_id": batch_id, "limit": limit}).fetchall()


def raw_of_batch(connection: Connection, batch_id: str, limit: int | None = None) -> list[bytes]:
    """Read the records themselves that were set aside of a batch, in the order of `of_batch`.

    Args:
        connection: A connection that has `values.opened` the batch.
        batch_id: The batch.
        limit: At most so many; None for all.

    Returns:
        Their bytes as delivered.
    """
    rows = connection.execute(_RAW_OF_BATCH, {"batch_id": batch_id, "limit": limit})
    return [bytes(raw) for (raw,) in rows]


def summary(connection: Connection, batch_id: str) -> list[RejectCount]:
    """Count the rejects of a batch by their reasons, the most frequent first.

    A record with two reasons is counted under both.
    """
    with connection.cursor(row_factory=class_row(RejectCount)) as cursor:
        cursor.execute(_SUMMARY, (batch_id,))
        return cursor.fetchall()


def count(connection: Connection, batch_id: str) -> dict[str, int]:
    """Count the rejects of a batch that are not loaded since, by target table."""
    return dict(connection.execute(_COUNT, (batch_id,)).fetchall())


def has_any(connection: Connection, batch_id: str) -> bool:
    """Say whether records of a batch were set aside, be they loaded since or not."""
    row = connection.execute(_HAS_ANY, (batch_id,)).fetchone()
    return bool(row and row[0])


def stream(connection: Connection, batch_id: str) -> Iterator[pa.RecordBatch]:
    """Read all rejects of a batch in the order of its files, a bounded part of them at a time.

    Args:
        connection: A connection that has `values.opened` the batch, if it has rejects; it is occupied
            until the last part is read.
        batch_id: The batch.

    Yields:
        Record batches of `STORED`, none of them empty.
    """
    if not has_any(connection, batch_id):
        return
    query = _STORED.format(sql.Literal(batch_id))
    with connection.cursor() as cursor, cursor.copy(query) as copy:
        copy.set_types(_TYPES)
        rows: list[tuple[object, ...]] = []
        size = 0
        for row in copy.rows():
            rows.append(row)
            size += len(row[_RAW])
            if len(rows) >= _PART_ROWS or size >= _PART_BYTES:
                yield _stored(rows)
                rows, size = [], 0
        if rows:
            yield _stored(rows)


def _stored(rows: Sequence[tuple[object, ...]]) -> pa.RecordBatch:
    columns = zip(*rows, strict=True)
    arrays = [pa.array(c, f.type) for c, f in zip(columns, STORED, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=STORED)


@dataclass(frozen=True)
class LeftOut:
    """The records of a file that were set aside.

    Attributes:
        records: (n,) their numbers, rising.
        offsets: (n,) where each begins in the file, in bytes; -1 where the format has no such places.
        sizes: (n,) their length in bytes.
    """

    records: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]


def left_out(
    connection: Connection,
    batch_id: str,
    file_name: str,
    table: str | None = None,
    *,
    skipped: bool = True,
) -> LeftOut:
    """Read where the records of a file stand that were set aside and not loaded since.

    Args:
        connection: A connection.
        batch_id: The batch.
        file_name: The file.
        table: The table whose records are asked for; None for those of all.
        skipped: Whether those count that the feed has passed over.

    Returns:
        Their numbers and places.
    """
    with connection.cursor(binary=True) as cursor:
        rows = cursor.execute(_LEFT_OUT, (batch_id, file_name, skipped, table, table)).fetchall()
    places = np.array(rows, dtype=np.int64).reshape(-1, 3)
    return LeftOut(places[:, 0], places[:, 1], places[:, 2])


def replays(connection: Connection, batch_id: str) -> list[str]:
    """List the runs that have loaded records of a batch which had been set aside."""
    return [str(run) for (run,) in connection.execute(_REPLAYS, (batch_id,)).fetchall()]


def were_refused(connection: Connection, feed: str) -> bool:
    """Say whether the batch of a feed that was published last had records that its tables refused."""
    row = connection.execute(_WERE_REFUSED, (feed,)).fetchone()
    return bool(row and row[0])
