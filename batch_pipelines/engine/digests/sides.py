"""Both sides of a comparison of a batch's rows, in temporary tables: as recorded, and as of today.

What lives here: `BatchRows`, and how rows and their digests get into the two tables. What does not: what
they are compared for (`recorded`).
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import crc32c
import pgpq
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from psycopg import sql

from batch_pipelines.engine.catalog import STAMP
from batch_pipelines.engine.digests.as_sent import ColumnGoneError
from batch_pipelines.engine.digests.sql import HAS_CRC32C
from batch_pipelines.engine.ledger.batches import IN_FORCE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from batch_pipelines.engine.digests.as_sent import AsSent
    from batch_pipelines.engine.postgres.database import Connection

_OWN: Final = (pa.field("file_name", pa.string()), pa.field("record", pa.int64()))
_STAMP: Final = sql.Identifier(STAMP)
_READ_ROWS: Final = 1 << 14

# A batch in force that updated the row, or that updated what one out of force has since made of it.
_IMAGES: Final = sql.SQL("""
(WITH RECURSIVE held AS (
    SELECT i.id, i.row_key, i.batch_id FROM batch_audit.row_before_image i
    WHERE {counted} AND i.previous_batch_id = {batch} AND i.target_table = {name}
    UNION
    SELECT held.id, held.row_key, later.batch_id FROM held
    JOIN batch_audit.import_history h ON h.batch_id = held.batch_id AND NOT h.status = ANY ({in_force})
    JOIN batch_audit.row_before_image later ON later.previous_batch_id = held.batch_id
        AND later.target_table = {name} AND later.row_key = held.row_key)
 SELECT i.* FROM batch_audit.row_before_image i WHERE i.id IN (
    SELECT held.id FROM held JOIN batch_audit.import_history h
    ON h.batch_id = held.batch_id AND h.status = ANY ({in_force})))
""")
_IN_FORCE: Final = sql.Literal([*sorted(IN_FORCE), "ARCHIVED"])
_KEY_TYPES: Final = """
SELECT a.attname, format_type(a.atttypid, a.atttypmod) FROM pg_attribute a
WHERE a.attrelid = %s::regclass AND a.attname = ANY(%s) AND NOT a.attisdropped
"""
_CREATE_RECORDED: Final = sql.SQL("""
CREATE TEMPORARY TABLE batch_pipelines_recorded (file_name text, record bigint, crc bigint{keys})
ON COMMIT DROP
""")
_COPY_RECORDED: Final = sql.SQL(
    "COPY pg_temp.batch_pipelines_recorded (file_name, record{keys}, crc) FROM STDIN (FORMAT binary)"
)
_RETYPE: Final = sql.SQL(
    "ALTER TABLE pg_temp.batch_pipelines_recorded ALTER {key} TYPE {kind} USING {key}::{kind}"
)
_CREATE_STORED: Final = sql.SQL("""
CREATE TEMPORARY TABLE batch_pipelines_stored (
    n bigint GENERATED ALWAYS AS IDENTITY, tbl oid, ctid_then tid, image bigint, wire bytea,
    crc bigint{keys})
ON COMMIT DROP
""")
_FILL: Final = sql.SQL("""
INSERT INTO pg_temp.batch_pipelines_stored (tbl, ctid_then, image, wire, crc{keys})
SELECT {place}, {digested}{values} FROM {rows} x WHERE {where}
""")
_WIRE: Final = sql.SQL("CASE WHEN {valid} THEN pg_catalog.record_send(ROW({columns})) END")
_WITHOUT_DIGEST: Final = "UPDATE pg_temp.batch_pipelines_recorded SET crc = 0"
_CRCS: Final = """
CREATE TEMPORARY TABLE batch_pipelines_crcs (n bigint, crc bigint) ON COMMIT DROP
"""
_SET_CRCS: Final = """
UPDATE pg_temp.batch_pipelines_stored s SET crc = c.crc, wire = NULL
FROM pg_temp.batch_pipelines_crcs c WHERE c.n = s.n
"""
_SEND_WIRE: Final = """
COPY (SELECT n, wire FROM pg_temp.batch_pipelines_stored WHERE wire IS NOT NULL)
TO STDOUT (FORMAT binary)
"""


@dataclass(frozen=True)
class BatchRows:
    """The rows of a batch in one table.

    Attributes:
        batch_id: The batch.
        full_name: The table, as in `public.flights`.
        columns: The columns of their digest, as they were sent; without any, rows are told apart by
            their key alone.
        key: Columns to name rows by where nothing is recorded of them.
        replaced_count: Whether images of rows that batches in force have updated since count as rows.
        waiting: Where the rows are that wait for validation, and are in no table yet.
    """

    batch_id: str
    full_name: str
    columns: AsSent
    key: tuple[str, ...] = ()
    replaced_count: bool = True
    waiting: sql.Identifier | None = None

    @property
    def table(self) -> sql.Identifier:
        """The quoted name of the table that has the rows."""
        if self.waiting is not None:
            return self.waiting
        return sql.Identifier(*self.full_name.split("."))

    @property
    def stamped(self) -> sql.Composed:
        """The condition on a row `x` of the table that the batch has written it."""
        return sql.SQL("x.{} = {}").format(_STAMP, sql.Literal(self.batch_id))

    @property
    def images(self) -> sql.Composed:
        """A subquery of the images of its rows that batches in force have updated since."""
        return _IMAGES.format(
            batch=sql.Literal(self.batch_id),
            name=sql.Literal(self.full_name),
            counted=sql.Literal(self.replaced_count),
            in_force=_IN_FORCE,
        )


def load_recorded(
    connection: Connection, rows: BatchRows, recorded: Sequence[Path]
) -> tuple[str, ...]:
    """Bring recorded digests into the temporary table `batch_pipelines_recorded`.

    Args:
        connection: A connection inside a transaction.
        rows: The rows.
        recorded: The Parquet files of their digests.

    Returns:
        The columns of the key, which are there as k0, k1 ...; none where it was not delivered.

    Raises:
        ColumnGoneError: The table has lost a column of the key.
        psycopg.DataError: The table's key has another type that does not have some value.
    """
    # By place, since a column of the key may have any name.
    fields = [*pq.read_schema(recorded[0])][len(_OWN) : -1] if recorded else []
    key = tuple(field.name for field in fields) if recorded else rows.key
    now = _key_types(connection, rows, key)
    kinds = [_sql_type(field.type) for field in fields] or [now[name] for name in key]
    definitions = [
        sql.SQL(", k{} {}").format(sql.SQL(str(n)), sql.SQL(kind)) for n, kind in enumerate(kinds)
    ]
    connection.execute(_CREATE_RECORDED.format(keys=sql.SQL("").join(definitions)))
    if recorded:
        _copy_recorded(connection, fields, recorded)
    if not rows.columns.names:
        connection.execute(_WITHOUT_DIGEST)
    for n, name in enumerate(key):
        retype = _RETYPE.format(key=sql.Identifier(f"k{n}"), kind=sql.SQL(now[name]))
        connection.execute(retype)
    return key


def _copy_recorded(
    connection: Connection, key: Sequence[pa.Field], recorded: Sequence[Path]
) -> None:
    sent = pa.schema(
        [
            *_OWN,
            *(pa.field(f"k{n}", field.type) for n, field in enumerate(key)),
            ("crc", pa.int64()),
        ]
    )
    copy_in = _COPY_RECORDED.format(keys=sql.SQL("").join(_names(key)))
    encoder = pgpq.ArrowToPostgresBinaryEncoder(sent)
    with connection.cursor() as cursor, cursor.copy(copy_in) as copy:
        copy.write(encoder.write_header())
        for path in recorded:
            for batch in _batches(path, sent):
                copy.write(encoder.write_batch(batch))
        copy.write(encoder.finish())


def _batches(path: Path, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_READ_ROWS):
            *columns, crcs = batch.columns
            columns.append(pc.cast(crcs, pa.int64()))
            yield pa.RecordBatch.from_arrays(columns, schema=schema)


def _key_types(connection: Connection, rows: BatchRows, key: Sequence[str]) -> dict[str, str]:
    if not key:
        return {}
    table = rows.table.as_string(connection)
    types = connection.execute(_KEY_TYPES, (table, [*key])).fetchall()
    found = {str(name): str(kind) for name, kind in types}
    for name in key:
        if name not in found:
            raise ColumnGoneError(name)
    return found


def load_stored(connection: Connection, rows: BatchRows, key: Sequence[str]) -> None:
    """Bring the digests of the rows of today into the temporary table `batch_pipelines_stored`.

    Args:
        connection: A connection inside a transaction.
        rows: The rows.
        key: The columns of the key, to stand there as k0, k1 ...

    Raises:
        psycopg.DataError: Values cannot be brought back to the types they were sent in.
    """
    types = _key_types(connection, rows, key)
    definitions = [
        sql.SQL(", k{} {}").format(sql.SQL(str(n)), sql.SQL(types[name]))
        for n, name in enumerate(key)
    ]
    connection.execute(_CREATE_STORED.format(keys=sql.SQL("").join(definitions)))
    names, here = sql.SQL("").join(_names(key)), connection.info.server_version < HAS_CRC32C
    own = [sql.SQL(", x.{}").format(sql.Identifier(name)) for name in key]
    fill = _FILL.format(
        keys=names, place=sql.SQL("x.tableoid, x.ctid, NULL"),
        digested=_digested(*rows.columns.row("x"), here=here), values=sql.SQL("").join(own),
        rows=rows.table, where=rows.stamped,
    )  # fmt: skip
    connection.execute(fill)
    own = [
        sql.SQL(", (x.image ->> {})::{}").format(sql.Literal(name), sql.SQL(types[name]))
        for name in key
    ]
    fill = _FILL.format(
        keys=names, place=sql.SQL("NULL, NULL, x.id"),
        digested=_digested(*rows.columns.image("x"), here=here), values=sql.SQL("").join(own),
        rows=rows.images, where=sql.SQL("true"),
    )  # fmt: skip
    connection.execute(fill)
    if here:
        _digest_here(connection)


def _digested(
    columns: Sequence[sql.Composable], valid: sql.Composable, *, here: bool
) -> sql.Composed:
    """Write what goes into `wire` and `crc`: the one or the other."""
    if not columns:
        return sql.SQL("{}, {}").format(sql.NULL, sql.Literal(0))
    wire = _WIRE.format(columns=sql.SQL(", ").join(columns), valid=valid)
    return sql.SQL("{}, NULL" if here else "NULL, pg_catalog.crc32c({})").format(wire)


def _digest_here(connection: Connection) -> None:
    """Compute the digests that the server cannot.

    They wait in a file, because a connection copies one way at a time.
    """
    connection.execute("DROP TABLE IF EXISTS pg_temp.batch_pipelines_crcs")
    connection.execute(_CRCS)
    with tempfile.TemporaryFile() as file, connection.cursor() as cursor:
        with cursor.copy(_SEND_WIRE) as copy:
            copy.set_types(["int8", "bytea"])
            for n, wire in copy.rows():
                file.write(b"%d\t%d\n" % (n, crc32c.crc32c(wire)))
        file.seek(0)
        with cursor.copy("COPY pg_temp.batch_pipelines_crcs FROM STDIN") as copy:
            while piece := file.read(1 << 16):
                copy.write(piece)
    connection.execute(_SET_CRCS)


def _names(key: Sequence[str]) -> list[sql.Composable]:
    return [sql.SQL(", k{}").format(sql.SQL(str(n))) for n in range(len(key))]


_SQL_TYPES: Final = {
    pa.bool_(): "boolean", pa.int16(): "smallint", pa.int32(): "integer", pa.int64(): "bigint",
    pa.float32(): "real", pa.float64(): "double precision", pa.string(): "text", pa.binary(): "bytea",
    pa.binary(16): "uuid", pa.date32(): "date", pa.time64("us"): "time", pa.timestamp("us"): "timestamp",
    pa.timestamp("us", tz="UTC"): "timestamptz",
}  # fmt: skip


def _sql_type(kind: pa.DataType) -> str:
    """Say which of PostgreSQL's types takes an Arrow column's values in binary."""
    return _SQL_TYPES.get(kind, "numeric")
