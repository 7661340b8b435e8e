"""After PostgreSQL refused a publish: which record of which file broke which constraint.

The delivery is loaded into a temporary table, with the place of each record, in a transaction that is
always rolled back; the constraint that failed is read from the catalog and asked as a query over all
rows at once. The driver's text is not used: it is translated, holds values, and names no record.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from batch_pipelines.engine.catalog import STAMP
from batch_pipelines.engine.writing.copying import copy_placed, staging_columns
from batch_pipelines.engine.writing.superseding import loses

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batch_pipelines.engine.catalog import Column, ForeignKey, TableInfo, UniqueKey
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.writing.copying import TableSource

_FOREIGN_KEY = psycopg.errors.ForeignKeyViolation.sqlstate
_FILE, _RECORD = "batch_pipelines_file", "batch_pipelines_record"
_PLACE = sql.SQL("s.{}, s.{}").format(sql.Identifier(_FILE), sql.Identifier(_RECORD))

_CREATE = sql.SQL("CREATE TEMPORARY TABLE {name} ({columns}, {file} integer, {record} bigint)")
_FIRST = sql.SQL("SELECT {place} FROM {staged} s WHERE {broken} ORDER BY {place} LIMIT 1")
_FIRST_TWICE = sql.SQL("""
SELECT {file}, {record} FROM (
    SELECT {place}, row_number() OVER (PARTITION BY {key} ORDER BY {place}) AS time
    FROM {staged} s WHERE {complete}) AS numbered
WHERE time > 1 ORDER BY {file}, {record} LIMIT 1
""")
_FIRST_TAKEN = sql.SQL("""
SELECT {place} FROM {staged} s JOIN {table} t ON {same}
WHERE {superseded}::uuid IS NULL OR t.{stamp} IS DISTINCT FROM {superseded}::uuid
ORDER BY {place} LIMIT 1
""")
_LOSSY = sql.SQL("""
SELECT count(*) FROM {staged} s
WHERE s.{file} = {number} AND s.{record} BETWEEN {first} AND {last} AND ({lossy})
""")
# Looking for the culprit must not take longer than a person would wait to hear about it.
_PATIENCE = "SET LOCAL statement_timeout = '5min'"
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
        return first_unconvertible(connection, sources)
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(_PATIENCE)
            staged = {s.table.oid: _stage(connection, s, n) for n, s in enumerate(sources)}
            for each in sources:
                _convert(connection, each, staged[each.table.oid])
            queries = _queries(source.table, constraint, staged, superseded)
            found = [place for query in queries for place in connection.execute(query).fetchall()]
    except psycopg.Error:
        return None
    if not found:
        return None
    number, record = min(found)
    remedy = (
        "Deliver the row it refers to first, or correct the file and deliver it again."
        if error.sqlstate == _FOREIGN_KEY
        else "Correct the file and deliver it again."
    )
    return (
        f"{source.files[number].file_name}, record {record}: breaks {constraint} of {name} "
        f"(SQLSTATE {error.sqlstate}). {remedy}"
    )


def first_unconvertible(connection: Connection, sources: Sequence[TableSource]) -> str | None:
    """Name the first record whose text PostgreSQL does not take for its column's type.

    Args:
        connection: A connection in autocommit mode, outside any transaction.
        sources: What was to be published.

    Returns:
        A sentence with file, record and column, or None where every text is taken.
    """
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(_PATIENCE)
            for number, source in enumerate(s for s in sources if s.as_text):
                staged = _stage(connection, source, number)
                for place, column in itertools.product(range(len(source.files)), source.as_text):
                    record = _first_refused(connection, source, staged, place, column)
                    if record is not None:
                        return (
                            f"{source.files[place].file_name}, record {record}, column "
                            f"{column.name}: is not a valid {column.type_name}. "
                            "Correct the file and deliver it again."
                        )
    except psycopg.Error:
        return None
    return None


def _first_refused(
    connection: Connection,
    source: TableSource,
    staged: sql.Identifier,
    place: int,
    column: Column,
) -> int | None:
    """Find the first record of a file that does not convert, by halving; its number, from 1."""

    def converts(first: int, last: int) -> bool:
        query = _LOSSY.format(
            staged=staged,
            file=sql.Identifier(_FILE),
            record=sql.Identifier(_RECORD),
            number=sql.Literal(place),
            first=sql.Literal(first),
            last=sql.Literal(last),
            lossy=loses(column),
        )
        try:
            with connection.transaction():
                row = connection.execute(query).fetchone()
        except (psycopg.DataError, psycopg.IntegrityError):
            return False
        return row is not None and row[0] == 0

    first, last = 1, source.files[place].records or 0
    if converts(first, last):
        return None
    while first < last:
        middle = (first + last) // 2
        if converts(first, middle):
            first = middle + 1
        else:
            last = middle
    return first


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


def _convert(connection: Connection, source: TableSource, staged: sql.Identifier) -> None:
    """Give columns that arrived as text their types, so that they compare as the table's do."""
    if source.as_text:
        types = sql.SQL(", ").join(
            # A type's name comes from PostgreSQL's own format_type, which quotes it.
            sql.SQL("ALTER {0} TYPE {1} USING {0}::{1}").format(
                sql.Identifier(column.name), sql.SQL(column.type_name)
            )
            for column in source.as_text
        )
        connection.execute(sql.SQL("ALTER TABLE {} {}").format(staged, types))


def _queries(
    table: TableInfo,
    constraint: str,
    staged: dict[int, sql.Identifier],
    superseded: str | None,
) -> list[sql.Composed]:
    """Write the queries for the place of the first record that breaks a constraint."""
    own = staged[table.oid]

    def first(broken: sql.Composable) -> list[sql.Composed]:
        return [_FIRST.format(place=_PLACE, staged=own, broken=broken)]

    for check, expression in table.checks:
        if check == constraint:
            # The expression is PostgreSQL's own rendering, over columns of the same names.
            return first(sql.SQL("NOT ({})").format(sql.SQL(expression)))
    for key in table.unique_keys:
        if key.name == constraint:
            return _taken(table, key, own, superseded)
    for foreign in table.parents:
        if foreign.name == constraint:
            # A parent delivered together with its children is found among the staged rows.
            parents = [sql.Identifier(*foreign.parent)]
            parents += [staged[foreign.parent_oid]] if foreign.parent_oid in staged else []
            return first(sql.SQL(" AND ").join(_orphan(foreign, parent) for parent in parents))
    return []


def _taken(
    table: TableInfo, key: UniqueKey, staged: sql.Identifier, superseded: str | None
) -> list[sql.Composed]:
    names = [sql.Identifier(name) for name in key.columns]
    equal = sql.SQL("t.{0} IS NOT DISTINCT FROM s.{0}" if key.nulls_equal else "t.{0} = s.{0}")
    complete = sql.SQL("true" if key.nulls_equal else "s.{} IS NOT NULL")
    parts = {
        "staged": staged,
        "table": table.identifier,
        "place": _PLACE,
        "file": sql.Identifier(_FILE),
        "record": sql.Identifier(_RECORD),
        "key": sql.SQL(", ").join(sql.SQL("s.{}").format(name) for name in names),
        "complete": sql.SQL(" AND ").join(complete.format(name) for name in names),
        "same": sql.SQL(" AND ").join(equal.format(name) for name in names),
        "stamp": sql.Identifier(STAMP),
        "superseded": sql.Literal(superseded),
    }
    return [_FIRST_TWICE.format(**parts), _FIRST_TAKEN.format(**parts)]


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
