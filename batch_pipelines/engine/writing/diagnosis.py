"""After PostgreSQL refused a publish: which record of which file broke which constraint.

The delivery is loaded into a temporary table, with the place of each record, in a transaction that is
always rolled back; the constraint that failed is read from the catalog and asked as a query over all
rows at once. The driver's text is not used: it is translated, holds values, and names no record.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from batch_pipelines.engine.catalog import STAMP
from batch_pipelines.engine.writing.copying import copy_placed, staging_columns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batch_pipelines.engine.catalog import ForeignKey, TableInfo, UniqueKey
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.writing.copying import TableSource

_FILE, _RECORD = "batch_pipelines_file", "batch_pipelines_record"
_PLACE = sql.SQL("s.{}, s.{}").format(sql.Identifier(_FILE), sql.Identifier(_RECORD))

_CREATE = sql.SQL("CREATE TEMPORARY TABLE {name} ({columns}, {file} integer, {record} bigint)")
_FIRST = sql.SQL("SELECT {place} FROM {staged} s WHERE {broken} ORDER BY {place} LIMIT 1")
_TWICE = sql.SQL("""
EXISTS (SELECT FROM {staged} o WHERE {same_staged} AND (o.{file}, o.{record}) < ({place}))
OR EXISTS (SELECT FROM {table} t WHERE {same_table} AND t.{stamp} IS DISTINCT FROM %(superseded)s)
""")
_ORPHAN = sql.SQL("({present}) AND NOT EXISTS (SELECT FROM {parent} t WHERE {same})")


def first_breach(
    connection: Connection,
    sources: Sequence[TableSource],
    error: psycopg.Error,
    superseded: str | None,
) -> str | None:
    """Name the first record that breaks the constraint PostgreSQL refused.

    Args:
        connection: A connection in autocommit mode, outside any transaction.
        sources: What was to be published, parents first.
        error: PostgreSQL's refusal.
        superseded: Id of the batch that was to be replaced: its rows do not count as taken.

    Returns:
        A sentence with file, record and constraint, or None where it cannot be told (a trigger, an
        exclusion constraint, a conversion on the server).
    """
    diag = error.diag
    name = f"{diag.schema_name}.{diag.table_name}"
    source = next((s for s in sources if s.table.full_name == name), None)
    constraint = diag.constraint_name
    if source is None or constraint is None:
        return None
    try:
        with connection.transaction(force_rollback=True):
            staged = {s.table.oid: _stage(connection, s, n) for n, s in enumerate(sources)}
            broken = _broken(source.table, constraint, staged)
            if broken is None:
                return None
            query = _FIRST.format(place=_PLACE, staged=staged[source.table.oid], broken=broken)
            row = connection.execute(query, {"superseded": superseded}).fetchone()
    except psycopg.Error:
        return None
    if row is None:
        return None
    file, record = source.files[int(row[0])].file_name, row[1]
    return (
        f"{file}, record {record}: breaks {constraint} of {name} (SQLSTATE {error.sqlstate}). "
        "Correct the file and deliver it again."
    )


def _stage(connection: Connection, source: TableSource, number: int) -> sql.Identifier:
    bare = f"batch_pipelines_diagnosis_{number}"
    create = _CREATE.format(
        name=sql.Identifier(bare),
        columns=staging_columns(source.columns),
        file=sql.Identifier(_FILE),
        record=sql.Identifier(_RECORD),
    )
    connection.execute(create)
    staged = sql.Identifier("pg_temp", bare)
    copy_placed(connection, staged, source, (_FILE, _RECORD))
    connection.execute(sql.SQL("ANALYZE {}").format(staged))
    return staged


def _broken(
    table: TableInfo, constraint: str, staged: dict[int, sql.Identifier]
) -> sql.Composable | None:
    """Say, as a condition on a staged row `s`, what it is to break a constraint."""
    for check, expression in table.checks:
        if check == constraint:
            # The expression is PostgreSQL's own rendering, over columns of the same names.
            return sql.SQL("NOT ({})").format(sql.SQL(expression))
    for key in table.unique_keys:
        if key.name == constraint:
            return _twice(table, key, staged[table.oid])
    for foreign in table.parents:
        if foreign.name == constraint:
            # A parent delivered together with its children is found among the staged rows.
            parents = [sql.Identifier(*foreign.parent)]
            parents += [staged[foreign.parent_oid]] if foreign.parent_oid in staged else []
            return sql.SQL(" AND ").join(_orphan(foreign, parent) for parent in parents)
    return None


def _twice(table: TableInfo, key: UniqueKey, staged: sql.Identifier) -> sql.Composed:
    equal = "{}.{} IS NOT DISTINCT FROM s.{}" if key.nulls_equal else "{}.{} = s.{}"

    def same(other: str) -> sql.Composed:
        return sql.SQL(" AND ").join(
            sql.SQL(equal).format(sql.SQL(other), sql.Identifier(n), sql.Identifier(n))
            for n in key.columns
        )

    return _TWICE.format(
        staged=staged,
        table=table.identifier,
        same_staged=same("o"),
        same_table=same("t"),
        stamp=sql.Identifier(STAMP),
        place=_PLACE,
        file=sql.Identifier(_FILE),
        record=sql.Identifier(_RECORD),
    )


def _orphan(key: ForeignKey, parent: sql.Identifier) -> sql.Composed:
    return _ORPHAN.format(
        parent=parent,
        present=sql.SQL(" AND ").join(
            sql.SQL("s.{} IS NOT NULL").format(sql.Identifier(n)) for n in key.child_columns
        ),
        same=sql.SQL(" AND ").join(
            sql.SQL("t.{} = s.{}").format(sql.Identifier(p), sql.Identifier(c))
            for p, c in zip(key.parent_columns, key.child_columns, strict=True)
        ),
    )
