"""Rows of a batch as they are today, held against what was recorded of each when they were published.

What lives here: the digest of a batch's rows of today, and the comparison row by row with the Parquet
files of row digests that bulk-write leaves. What does not: where these files are and whether they can be
believed (`verification.evidence`), and what a difference means.

A batch's rows are those with its stamp and, of rows that later batches in force have updated, the
images that were kept. Rows are told apart by the primary key, or, where it was not delivered, by their
digest; in both ways equal rows count as often as they occur.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from psycopg import sql
from psycopg.rows import class_row

from batch_pipelines.engine.catalog import STAMP
from batch_pipelines.engine.digests.row_digest import RowDigest
from batch_pipelines.engine.digests.sides import BatchRows, load_recorded, load_stored
from batch_pipelines.engine.digests.sql import table_digest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from batch_pipelines.engine.postgres.database import Connection

DIFFERING: Final = sql.Identifier("pg_temp", "batch_pipelines_differing")
"""Temporary table of the rows that differ: kind, file_name, record, place in the table (tbl, ctid_then,
image), restamped, key columns k0, k1 ..."""
_STAMP: Final = sql.Identifier(STAMP)
_DROP: Final = """
DROP TABLE IF EXISTS pg_temp.batch_pipelines_recorded, pg_temp.batch_pipelines_stored,
    pg_temp.batch_pipelines_odd, pg_temp.batch_pipelines_differing
"""
# For the sorts and joins; temporary tables have buffers of their own.
_ROOM: Final = "SELECT set_config('work_mem', '64MB', true)"
# Equal rows are numbered on both sides, so that each finds one of its own.
_ODD: Final = sql.SQL("""
CREATE TEMPORARY TABLE batch_pipelines_odd ON COMMIT DROP AS
SELECT r.file_name, r.record, s.n, {either}
FROM (SELECT *, row_number() OVER (PARTITION BY {identity}, crc ORDER BY file_name, record) AS rank
      FROM pg_temp.batch_pipelines_recorded) r
FULL JOIN (SELECT *, row_number() OVER (PARTITION BY {identity}, crc ORDER BY n) AS rank
           FROM pg_temp.batch_pipelines_stored) s
ON {same} AND r.crc = s.crc AND r.rank = s.rank
WHERE r.record IS NULL OR s.n IS NULL
""")
_PAIR: Final = sql.SQL("""
CREATE TEMPORARY TABLE batch_pipelines_differing ON COMMIT DROP AS
SELECT CASE WHEN r.record IS NULL THEN CASE WHEN f.record IS NULL THEN 'added' ELSE 'duplicated' END
            WHEN s.n IS NULL THEN 'missing' ELSE 'changed' END AS kind,
       coalesce(r.file_name, f.file_name) AS file_name, coalesce(r.record, f.record) AS record,
       w.tbl, w.ctid_then, w.image, false AS restamped, {either}
FROM (SELECT *, row_number() OVER (PARTITION BY {identity} ORDER BY file_name, record) AS rank
      FROM pg_temp.batch_pipelines_odd WHERE n IS NULL) r
FULL JOIN (SELECT *, row_number() OVER (PARTITION BY {identity} ORDER BY n) AS rank
           FROM pg_temp.batch_pipelines_odd WHERE n IS NOT NULL) s
ON {same} AND r.rank = s.rank
LEFT JOIN pg_temp.batch_pipelines_stored w ON w.n = s.n
LEFT JOIN (SELECT DISTINCT ON ({identity}) * FROM pg_temp.batch_pipelines_recorded
           ORDER BY {identity}, file_name, record) f ON {of_first}
""")
_UNNAMED: Final = sql.SQL("UPDATE {differing} SET file_name = NULL, record = NULL")
# A row that is there under another stamp, without a later batch having kept its image.
_RESTAMPED: Final = sql.SQL("""
UPDATE {differing} d SET kind = 'changed', restamped = true, tbl = t.tableoid, ctid_then = t.ctid
FROM {table} t WHERE d.kind = 'missing' AND {same} AND (t.{stamp} = {batch}) IS NOT TRUE
""")
_COUNT_ROWS: Final = sql.SQL("SELECT count(*) FROM {table} WHERE {where}")
_COUNT: Final = sql.SQL("""
SELECT (SELECT count(*) FROM pg_temp.batch_pipelines_recorded) AS recorded,
       (SELECT count(*) FROM pg_temp.batch_pipelines_stored) AS stored,
       (SELECT count(*) FROM pg_temp.batch_pipelines_stored WHERE image IS NOT NULL) AS replaced,
       count(*) FILTER (WHERE kind = 'changed') AS changed,
       count(*) FILTER (WHERE kind = 'missing') AS missing,
       count(*) FILTER (WHERE kind = 'added') AS added,
       count(*) FILTER (WHERE kind = 'duplicated') AS duplicated
FROM {differing}
""")


@dataclass(frozen=True)
class Comparison:
    """How the rows of today differ from those recorded; all numbers are rows and exact.

    `recorded` = rows equal + `changed` + `missing`; `stored` = rows equal + `changed`, those that have
    another stamp apart, + `added` + `duplicated`. Of those stored, `replaced` are images of rows that
    later batches in force have updated. `DIFFERING` holds the differing rows until the transaction ends.

    Attributes:
        recorded: Rows when the batch was published.
        stored: Its rows of today.
        replaced: How many of these later batches have updated.
        changed: Rows with other values, or with another stamp.
        missing: Rows that are gone.
        added: Rows with the stamp that the batch never wrote.
        duplicated: Rows that stand once more than they were written.
        key: The columns rows are told apart by; none where that is their digest.
    """

    recorded: int
    stored: int
    replaced: int
    changed: int
    missing: int
    added: int
    duplicated: int
    key: tuple[str, ...] = ()

    @property
    def matches(self) -> int:
        """Rows that are as they were recorded."""
        return self.recorded - self.changed - self.missing

    @property
    def differs(self) -> bool:
        """Whether any row differs."""
        return bool(self.changed or self.missing or self.added or self.duplicated)


def digest_today(connection: Connection, rows: BatchRows) -> tuple[RowDigest, RowDigest]:
    """Digest the rows of a batch as they are today.

    Args:
        connection: A connection; inside a transaction where both are to be of one moment.
        rows: The rows.

    Returns:
        The digest of the rows with its stamp, and of the images of those that were updated since. A row
        with a value that its column could not have had counts for nothing; without columns rows are
        only counted.

    Raises:
        psycopg.DataError: Such a row cannot be told from others (PostgreSQL 15).
    """
    sides = asked(rows)
    if not rows.columns.names:
        own, images = (_count(connection, table, where) for table, _, where in sides)
    else:
        own, images = (table_digest(connection, *side) for side in sides)
    return own, images


def asked(
    rows: BatchRows,
) -> tuple[tuple[sql.Composable, tuple[sql.Composable, ...], sql.Composable], ...]:
    """Say what is digested of rows with the stamp, and of images: where from, columns, condition."""
    columns, valid = rows.columns.row("x")
    own = (
        sql.SQL("{} AS x").format(rows.table),
        columns,
        sql.SQL("{} AND {}").format(rows.stamped, valid),
    )
    columns, valid = rows.columns.image("x")
    return own, (sql.SQL("{} AS x").format(rows.images), columns, valid)


def _count(connection: Connection, table: sql.Composable, where: sql.Composable) -> RowDigest:
    query = _COUNT_ROWS.format(table=table, where=where)
    row = connection.execute(query).fetchone()
    return RowDigest(int(row[0]) if row else 0, 0, 0)


def compare_rows(connection: Connection, rows: BatchRows, recorded: Sequence[Path]) -> Comparison:
    """Compare the rows of a batch with their recorded digests, one by one.

    Args:
        connection: A connection inside a transaction that sees one moment (REPEATABLE READ, or with the
            table locked). Temporary tables are made in it; `DIFFERING` is there until it ends.
        rows: The rows.
        recorded: The Parquet files of their digests; none where no row should be left.

    Returns:
        The counts.

    Raises:
        ColumnGoneError: The table has lost a column of the key.
        psycopg.DataError: Values cannot be brought back to the types they were sent in.
    """
    connection.execute(_DROP)
    connection.execute(_ROOM)
    key = load_recorded(connection, rows, recorded)
    load_stored(connection, rows, key)
    for name in ("batch_pipelines_recorded", "batch_pipelines_stored"):
        connection.execute(sql.SQL("ANALYZE pg_temp.{}").format(sql.Identifier(name)))
    names = [sql.Identifier(f"k{place}") for place in range(len(key))] or [sql.Identifier("crc")]

    def joined(text: str, separator: str = ", ") -> sql.Composed:
        return sql.SQL(separator).join(sql.SQL(text).format(k=name) for name in names)

    parts = {
        "identity": joined("{k}"),
        "either": joined("coalesce(r.{k}, s.{k}) AS {k}"),
        "same": joined("r.{k} = s.{k}", " AND "),
        "of_first": joined("f.{k} = s.{k}", " AND "),
    }
    connection.execute(_ODD.format(**parts))
    connection.execute(_PAIR.format(**parts))
    if key:
        same = sql.SQL(" AND ").join(
            sql.SQL("t.{} = d.{}").format(sql.Identifier(name), k)
            for name, k in zip(key, names, strict=True)
        )
        restamped = _RESTAMPED.format(
            differing=DIFFERING, table=rows.table, same=same, stamp=_STAMP,
            batch=sql.Literal(rows.batch_id),
        )  # fmt: skip
        connection.execute(restamped)
    elif not rows.columns.names:
        connection.execute(_UNNAMED.format(differing=DIFFERING))
    row = connection.execute(_COUNT.format(differing=DIFFERING)).fetchone()
    assert row is not None  # noqa: S101  # an aggregate without GROUP BY has one row
    recorded_rows, stored, replaced, changed, missing, added, duplicated = map(int, row)
    return Comparison(recorded_rows, stored, replaced, changed, missing, added, duplicated, key)


@dataclass(frozen=True)
class DifferingRow:
    """A row that differs, by name and without values.

    Attributes:
        kind: `changed`, `missing`, `added` or `duplicated`.
        key: Its key's values as text, in the order of `Comparison.key`; None where it has none.
        file_name, record: Where it came from; None where the batch never wrote it. Of equal rows without
            a key the first one is named.
        place: `ctid` of the row in the table of the moment, for those without a key; else None.
        restamped: Whether it has another stamp.
    """

    kind: str
    key: list[str] | None
    file_name: str | None
    record: int | None
    place: str | None
    restamped: bool


_ROWS: Final = sql.SQL("""
SELECT kind, {key} AS key, file_name, record, {place} AS place, restamped
FROM {differing} ORDER BY array_position('{{changed,missing,added,duplicated}}'::text[], kind),
    file_name, record, key, ctid_then LIMIT {limit}
""")


def differing_rows(
    connection: Connection, comparison: Comparison, limit: int
) -> list[DifferingRow]:
    """Read rows that were found to differ.

    Args:
        connection: The connection that compared, in the same transaction.
        comparison: What it found.
        limit: At most so many.

    Returns:
        The rows: changed, missing, added, duplicated, each kind in the order of the source.
    """
    keys = [sql.SQL("k{}::text").format(sql.SQL(str(n))) for n in range(len(comparison.key))]
    query = _ROWS.format(
        key=sql.SQL("ARRAY[{}]").format(sql.SQL(", ").join(keys))
        if keys
        else sql.SQL("NULL::text[]"),
        place=sql.SQL("NULL" if keys else "ctid_then::text"),
        differing=DIFFERING,
        limit=sql.Literal(limit),
    )
    with connection.cursor(row_factory=class_row(DifferingRow)) as cursor:
        return cursor.execute(query).fetchall()
