"""Rows of a table held against the staged rows of its source, one by one.

Rows are told apart by their key, or, where the source does not bring it, by all of their values. Equal
rows are paired first, so that in both ways they count as often as they occur. Only hashes of rows are
kept, in temporary tables that are gone with the transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import sql

from batch_pipelines.engine.ledger.proofs import RowReport
from batch_pipelines.engine.ledger.verifications import Difference
from batch_pipelines.engine.writing.copying import PLACE, file_and_record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batch_pipelines.engine.catalog import Column
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.writing.source import TableSource

MOST_NAMED = 1_000
"""Rows of a table that are named; counts have no limit."""
_ROOM = "SELECT set_config('work_mem', '64MB', true)"
_PLACE = sql.Identifier(PLACE)
# A NULL hashes like any other value, so that rows without a value in the key are told apart, too.
_HASH = sql.SQL("sha256(record_send(ROW({values})))")
_EXPECTED = sql.SQL("""
CREATE TEMPORARY TABLE batch_pipelines_expected ON COMMIT DROP AS
SELECT x.{place} AS place, {identity} AS identity, {image} AS image FROM {staged} x
""")
_ACTUAL = sql.SQL("""
CREATE TEMPORARY TABLE batch_pipelines_actual ON COMMIT DROP AS
SELECT row_number() OVER () AS n, x.tableoid AS tbl, x.ctid AS ctid_then, {identity} AS identity,
       {image} AS image
FROM {table} x WHERE {where}
""")
_ODD = """
CREATE TEMPORARY TABLE batch_pipelines_odd ON COMMIT DROP AS
SELECT e.place, a.n, coalesce(e.identity, a.identity) AS identity
FROM (SELECT *, row_number() OVER (PARTITION BY identity, image ORDER BY place) AS rank
      FROM batch_pipelines_expected) e
FULL JOIN (SELECT *, row_number() OVER (PARTITION BY identity, image ORDER BY n) AS rank
           FROM batch_pipelines_actual) a
ON e.identity = a.identity AND e.image = a.image AND e.rank = a.rank
WHERE e.place IS NULL OR a.n IS NULL
"""
_DIFFERING = """
CREATE TEMPORARY TABLE batch_pipelines_differing ON COMMIT DROP AS
SELECT CASE WHEN e.place IS NULL THEN CASE WHEN f.place IS NULL THEN 'added' ELSE 'duplicated' END
            WHEN a.n IS NULL THEN 'missing' ELSE 'changed' END AS kind,
       coalesce(e.place, f.place) AS place, w.tbl, w.ctid_then
FROM (SELECT *, row_number() OVER (PARTITION BY identity ORDER BY place) AS rank
      FROM batch_pipelines_odd WHERE n IS NULL) e
FULL JOIN (SELECT *, row_number() OVER (PARTITION BY identity ORDER BY n) AS rank
           FROM batch_pipelines_odd WHERE n IS NOT NULL) a
ON e.identity = a.identity AND e.rank = a.rank
LEFT JOIN batch_pipelines_actual w ON w.n = a.n
LEFT JOIN (SELECT identity, min(place) AS place FROM batch_pipelines_expected GROUP BY identity) f
ON f.identity = a.identity
"""
_COUNT = """
SELECT (SELECT count(*) FROM batch_pipelines_expected),
       count(*) FILTER (WHERE kind = 'missing'),
       count(*) FILTER (WHERE kind IN ('added', 'duplicated')),
       count(*) FILTER (WHERE kind = 'changed')
FROM batch_pipelines_differing
"""
_NAMED = sql.SQL("""
SELECT d.kind, d.place, d.ctid_then::text, {key}, CASE WHEN d.kind = 'changed' THEN {columns} END
FROM (SELECT *, array_position('{{changed,missing,added,duplicated}}'::text[], kind) AS part
      FROM batch_pipelines_differing ORDER BY part, place, ctid_then LIMIT {most}) d
LEFT JOIN {staged} s ON s.{place} = d.place
LEFT JOIN {table} t ON t.tableoid = d.tbl AND t.ctid = d.ctid_then
ORDER BY d.part, d.place, d.ctid_then
""")
_DIFFERS = sql.SQL("CASE WHEN {} IS DISTINCT FROM {} THEN {} END")


def differing_rows(
    connection: Connection,
    source: TableSource,
    staged: sql.Identifier,
    where: sql.Composable,
    key: Sequence[str],
) -> RowReport:
    """Compare rows of a table with the staged rows of its source.

    Args:
        connection: A connection inside a transaction that sees one moment.
        source: The source.
        staged: The temporary table with its rows, each with its place, in the types of the table.
        where: The condition that tells the rows of the table.
        key: Columns of the key; used where the source tells all of them.

    Returns:
        How many rows differ in which way; and some of them by name, with the columns in which they do.
    """
    told = {column.name: column for column in source.told}
    keys = [told[name] for name in key] if set(key) <= set(told) else []
    hashes = {
        "identity": _hash("x", keys or source.told),
        "image": _hash("x", source.told),
    }
    connection.execute(_ROOM)
    connection.execute(_EXPECTED.format(place=_PLACE, staged=staged, **hashes))
    connection.execute(_ACTUAL.format(table=source.table.identifier, where=where, **hashes))
    connection.execute("ANALYZE batch_pipelines_expected")
    connection.execute("ANALYZE batch_pipelines_actual")
    connection.execute(_ODD)
    connection.execute(_DIFFERING)
    ((expected, missing, extra, changed),) = connection.execute(_COUNT).fetchall()
    details = _named(connection, source, staged, keys)
    return RowReport(missing, extra, changed, expected - missing - changed, details)


def _named(
    connection: Connection, source: TableSource, staged: sql.Identifier, keys: Sequence[Column]
) -> list[Difference]:
    key = sql.SQL(", ").join(
        sql.SQL("coalesce(s.{0}::text, t.{0}::text)").format(sql.Identifier(c.name)) for c in keys
    )
    columns = sql.SQL(", ").join(
        _DIFFERS.format(_hash("s", [column]), _hash("t", [column]), sql.Literal(column.name))
        for column in source.told
    )
    query = _NAMED.format(
        key=sql.SQL("ARRAY[{}]").format(key) if keys else sql.SQL("NULL::text[]"),
        columns=sql.SQL("array_remove(ARRAY[{}]::text[], NULL)").format(columns),
        most=sql.Literal(MOST_NAMED),
        staged=staged,
        place=_PLACE,
        table=source.table.identifier,
    )
    return [_difference(source, keys, *row) for row in connection.execute(query).fetchall()]


def _difference(
    source: TableSource,
    keys: Sequence[Column],
    kind: str,
    place: int | None,
    ctid: str | None,
    key: list[str] | None,
    columns: list[str] | None,
) -> Difference:
    number, record = (None, None) if place is None else file_and_record(place)
    return Difference(
        kind,
        None if key is None else dict(zip((c.name for c in keys), key, strict=True)),
        None if number is None else source.files[number].file_name,
        record,
        ctid if key is None else None,
        columns,
    )


def _hash(alias: str, columns: Sequence[Column]) -> sql.Composed:
    values = (_value(sql.SQL(alias), column) for column in columns)
    return _HASH.format(values=sql.SQL(", ").join(values))


def _value(alias: sql.SQL, column: Column) -> sql.Composed:
    """Write a value as it is compared: types outside the closed list as text, numbers by their value."""
    value = sql.SQL("{}.{}").format(alias, sql.Identifier(column.name))
    if column.wire is not None:
        return value
    return sql.SQL("trim_scale({})::text" if column.base_type == "numeric" else "{}::text").format(
        value
    )
