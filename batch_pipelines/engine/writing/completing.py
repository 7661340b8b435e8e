"""Completing: staged rows get the values that they will have in the columns that they do not bring.

So that they are judged as they will be stored. A row that is to update one of its table leaves there
what it does not bring, so it takes that over; where it takes the place of what a superseded batch had
written, what stood there before that batch. Every other row takes the default.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import sql

from batch_pipelines.engine.catalog import STAMP
from batch_pipelines.engine.images import as_json
from batch_pipelines.engine.writing.copying import GROUP, PLACE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from batch_pipelines.engine.catalog import Column
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.writing.staging import Staged

_STAMP, _PLACE = sql.Identifier(STAMP), sql.Identifier(PLACE)
_COMPLETE = sql.SQL("""
UPDATE {staged} u SET {assignments} FROM (
    SELECT s.{place}, {values}
    FROM {staged} s LEFT JOIN {table} t ON {same_key}
    LEFT JOIN batch_audit.row_before_image i
        ON t.{stamp} = {old} AND i.batch_id = {old} AND i.target_table = {name} AND i.row_key = {row_key}
    WHERE {signature} = {number}) c
WHERE c.{place} = u.{place}
""")
_VALUE = sql.SQL("""
CASE WHEN t.tableoid IS NULL THEN {default} {replaced} ELSE t.{column} END AS {column}
""")
_REPLACED = sql.SQL("""
WHEN t.{stamp} = {old} THEN
    CASE WHEN i.id IS NULL THEN {default} ELSE (i.image ->> {name})::{type} END
""")


def complete(
    connection: Connection,
    staged: Staged,
    key: Sequence[str],
    superseded: str | None,
    replaced: frozenset[str],
) -> None:
    """Give staged rows of a table that is upserted what they do not bring.

    Args:
        connection: A connection with the staged table, its columns converted to their types.
        staged: The staged source.
        key: Columns of the key by which rows are updated; a row that does not bring those keeps their
            defaults, which it got when it was staged.
        superseded: Id of the batch that is replaced, or None.
        replaced: The columns that batch brought.
    """
    for number, columns in incomplete(staged, key):
        names = [sql.Identifier(column.name) for column in columns]
        query = _COMPLETE.format(
            staged=staged.name,
            place=_PLACE,
            table=staged.source.table.identifier,
            stamp=_STAMP,
            old=sql.SQL("{}::uuid").format(sql.Literal(superseded)),
            name=sql.Literal(staged.source.table.full_name),
            row_key=as_json("t", key),
            same_key=same_key(key),
            signature=signature_of(staged),
            number=sql.Literal(number),
            assignments=sql.SQL(", ").join(sql.SQL("{0} = c.{0}").format(name) for name in names),
            values=sql.SQL(", ").join(
                _value(column, superseded if column.name in replaced else None)
                for column in columns
            ),
        )
        connection.execute(query)


def incomplete(staged: Staged, key: Sequence[str]) -> Iterator[tuple[int, list[Column]]]:
    """List the column signatures whose rows do not bring all that is staged, and what they lack."""
    source = staged.source
    for number, absent in enumerate(source.signatures):
        columns = [c for c in source.columns if c.name in absent]
        lacking = [c for c in (*columns, *staged.extra) if c.name not in key]
        if lacking:
            yield number, lacking


def signature_of(staged: Staged) -> sql.Composable:
    """Give the number of a staged row's column signature."""
    if not staged.source.is_grouped:
        return sql.SQL("0::integer")
    return sql.SQL("s.{} / 2").format(sql.Identifier(GROUP))


def same_key(key: Iterable[str]) -> sql.Composed:
    """Say of a row `t` of the table and a staged row `s` that they have the same key."""
    return sql.SQL(" AND ").join(sql.SQL("t.{0} = s.{0}").format(sql.Identifier(n)) for n in key)


def _value(column: Column, superseded: str | None) -> sql.Composed:
    # Default and type are PostgreSQL's own renderings.
    kind = sql.SQL(column.type_name)
    default = sql.SQL("({})::{}").format(sql.SQL(column.default_sql or "NULL"), kind)
    replaced: sql.Composable = sql.SQL("")
    if superseded is not None:
        replaced = _REPLACED.format(
            stamp=_STAMP,
            old=sql.Literal(superseded),
            default=default,
            name=sql.Literal(column.name),
            type=kind,
        )
    return _VALUE.format(default=default, replaced=replaced, column=sql.Identifier(column.name))
