"""Conversion of staged text to the types outside the closed list, by PostgreSQL's own input functions.

A text is refused where it is no value of the type, and where storing it would shorten or round it.
PostgreSQL before 16 cannot be asked whether a text is valid, only made to try: there, and where an
expression of a table raises for some rows, each row is tried by itself, in a function.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from batch_pipelines.engine.rejects import TOO_LONG
from batch_pipelines.engine.writing.bisecting import NOT_ROWS, is_about_rows
from batch_pipelines.engine.writing.copying import PLACE
from batch_pipelines.engine.writing.staging import BREACHES, take_out

if TYPE_CHECKING:
    from batch_pipelines.engine.catalog import Column
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.writing.staging import Staged

_CUT_SHORT = frozenset({'"char"', "name"})
_HAS_INPUT_IS_VALID = _KNOWS_DOUBLE_KEYS = 160_000
_PLACE = sql.Identifier(PLACE)

_TYPE = """
SELECT format_type(atttypid, atttypmod) FROM pg_attribute
WHERE attrelid = %s::regclass AND attname = %s
"""
_NOTE = sql.SQL("""
INSERT INTO {breaches} (source, place, sqlstate, message, "column", "constraint")
SELECT {source}, {place}, {sqlstate}, {message}, {column}, {constraint} FROM {broken}
""")
_STATE = sql.SQL("(pg_input_error_info(s.{column}, {type})).sql_error_code")
_INVALID = sql.SQL("{staged} s WHERE NOT pg_input_is_valid(s.{column}, {type})")
_MISSING = sql.SQL("{staged} s WHERE s.{column} IS NULL")
# Never true, and converted all the same.
_CONVERTED = sql.SQL("num_nulls({value}) < 0")
# What is invalid was noted and is not converted: OFFSET 0 keeps the planner from putting it first.
_LOSSY = sql.SQL("""
(SELECT * FROM {staged} v WHERE v.{column} IS NOT NULL AND NOT EXISTS (
    SELECT FROM {breaches} b
    WHERE b.source = {source} AND b.place = v.{place} AND b."column" = {name}) OFFSET 0) s
WHERE {lossy}
""")
_TRY = sql.SQL("CREATE FUNCTION {name}({rows}) RETURNS text LANGUAGE plpgsql AS {body}")
_TRY_NAME = sql.Identifier("pg_temp", "batch_pipelines_try")
# No transaction id is spent on the subtransaction of a row, since it writes nothing.
_TRY_BODY = sql.SQL("""
#variable_conflict use_column
BEGIN
    RETURN (SELECT CASE WHEN {wrong} THEN {sqlstate} END FROM (SELECT ($1).*) s);
EXCEPTION WHEN OTHERS THEN
    IF left(SQLSTATE, 2) = ANY ({not_rows}) THEN
        RAISE;
    END IF;
    RETURN SQLSTATE;
END
""")
_TRIED = sql.SQL("""
(SELECT {place}, {function}(s) AS state FROM {staged} s OFFSET 0) t WHERE state IS NOT NULL
""")


def note(
    connection: Connection,
    staged: Staged,
    broken: sql.Composable,
    sqlstate: sql.Composable | str,
    message: str,
    *,
    column: str | None = None,
    constraint: str | None = None,
) -> int:
    """Note a reason for some rows.

    Args:
        connection: A connection with the staged table.
        staged: The staged source.
        broken: What follows FROM: the staged rows, as `s` or otherwise, with their place.
        sqlstate: PostgreSQL's code, or an expression for it.
        message: What is wrong, in our words.
        column: The column to blame.
        constraint: The constraint that is broken.

    Returns:
        How many rows.
    """
    query = _NOTE.format(
        breaches=BREACHES,
        source=sql.Literal(staged.number),
        place=_PLACE,
        sqlstate=sql.Literal(sqlstate) if isinstance(sqlstate, str) else sqlstate,
        message=sql.Literal(message),
        column=sql.Literal(column),
        constraint=sql.Literal(constraint),
        broken=broken,
    )
    return connection.execute(query).rowcount


def note_wrong(
    connection: Connection,
    staged: Staged,
    wrong: sql.Composable,
    sqlstate: str,
    message: str,
    *,
    column: str | None = None,
    constraint: str | None = None,
) -> int:
    """Note the rows for which a condition is true or cannot be computed.

    Args:
        connection: A connection in autocommit mode, with the staged table.
        staged: The staged source.
        wrong: The condition on a staged row `s`.
        sqlstate: PostgreSQL's code where it is true; where it raises, that is noted.
        message: What is wrong, in our words.
        column: The column to blame.
        constraint: The constraint that is broken.

    Returns:
        How many rows.

    Raises:
        psycopg.Error: The condition is to blame, and no row.
    """
    all_at_once = sql.SQL("{} s WHERE {}").format(staged.name, wrong)
    try:
        return note(
            connection, staged, all_at_once, sqlstate, message, column=column, constraint=constraint
        )
    except psycopg.Error as error:
        if not is_about_rows(error):
            raise
    with connection.transaction():
        body = _TRY_BODY.format(
            wrong=wrong, sqlstate=sql.Literal(sqlstate), not_rows=sql.Literal(sorted(NOT_ROWS))
        )
        create = _TRY.format(
            name=_TRY_NAME, rows=staged.name, body=sql.Literal(body.as_string(connection))
        )
        connection.execute(create)
        tried = _TRIED.format(place=_PLACE, function=_TRY_NAME, staged=staged.name)
        found = note(
            connection, staged, tried, sql.Identifier("state"), message,
            column=column, constraint=constraint,
        )  # fmt: skip
        connection.execute(sql.SQL("DROP FUNCTION {}").format(_TRY_NAME))
    return found


def convert(connection: Connection, staged: Staged) -> int:
    """Give columns that arrived as text their types; rows that do not convert are taken out.

    Args:
        connection: A connection in autocommit mode, with the staged table.
        staged: The staged source.

    Returns:
        How many rows were taken out.
    """
    columns = staged.source.as_text
    if not columns or not _is_text(connection, staged, columns[0]):
        return 0
    for column in columns:
        _note_invalid(connection, staged, column)
        message = f"does not fit into {column.type_name} whole"
        lossy = _LOSSY.format(
            **_parts(staged, column),
            breaches=BREACHES,
            source=sql.Literal(staged.number),
            place=_PLACE,
            name=sql.Literal(column.name),
            lossy=_loses(column, connection.info.server_version),
        )
        note(connection, staged, lossy, TOO_LONG, message, column=column.name)
    gone = take_out(connection, staged)
    types = sql.SQL(", ").join(
        # A type's name comes from PostgreSQL's own format_type, which quotes it.
        sql.SQL("ALTER {0} TYPE {1} USING {0}::{1}").format(
            sql.Identifier(column.name), sql.SQL(column.type_name)
        )
        for column in columns
    )
    connection.execute(sql.SQL("ALTER TABLE {} {}").format(staged.name, types))
    connection.execute(sql.SQL("ANALYZE {}").format(staged.name))
    return gone


def _is_text(connection: Connection, staged: Staged, column: Column) -> bool:
    """Say whether the conversion is still to be done; judging may come by again."""
    name = staged.name.as_string(connection)
    row = connection.execute(_TYPE, (name, column.name)).fetchone()
    return row is not None and row[0] == "text"


def _parts(staged: Staged, column: Column) -> dict[str, sql.Composable]:
    return {
        "staged": staged.name,
        "column": sql.Identifier(column.name),
        "type": sql.Literal(column.type_name),
    }


def _note_invalid(connection: Connection, staged: Staged, column: Column) -> None:
    parts, message = _parts(staged, column), f"is not a valid {column.type_name}"
    if connection.info.server_version >= _HAS_INPUT_IS_VALID:
        try:
            note(
                connection, staged, _INVALID.format(**parts), _STATE.format(**parts), message,
                column=column.name,
            )  # fmt: skip
        except psycopg.Error as error:
            # A type of an extension, or a domain, that does not know how to answer softly.
            if not is_about_rows(error):
                raise
        else:
            _note_missing(connection, staged, column)
            return
    value = sql.SQL("s.{}::{}").format(parts["column"], sql.SQL(column.type_name))
    wrong = _CONVERTED.format(value=value)
    note_wrong(connection, staged, wrong, "", message, column=column.name)


def _note_missing(connection: Connection, staged: Staged, column: Column) -> None:
    """Note nulls where the type takes none, as a domain over another one may."""
    null = sql.SQL("SELECT NULL::text::{}").format(sql.SQL(column.type_name))
    try:
        connection.execute(null)
    except psycopg.Error as error:
        if not is_about_rows(error):
            raise
        message = f"has no value, and {column.type_name} needs one"
        missing = _MISSING.format(**_parts(staged, column))
        note(connection, staged, missing, error.sqlstate or "", message, column=column.name)


def _loses(column: Column, server_version: int) -> sql.Composed:
    """Say, as a condition on a staged row `s`, when a valid text would not be kept whole."""
    if column.base_type == "jsonb" and server_version >= _KNOWS_DOUBLE_KEYS:
        # Of two values under one key it keeps the last.
        return sql.SQL("s.{} IS NOT JSON WITH UNIQUE KEYS").format(sql.Identifier(column.name))
    before = sql.SQL("s.{}::{}").format(sql.Identifier(column.name), sql.SQL(column.base_type))
    after = sql.SQL("s.{}::{}").format(sql.Identifier(column.name), sql.SQL(column.type_name))
    if column.base_type in _CUT_SHORT:
        # These two drop what is too long while they read it.
        return sql.SQL("s.{} IS DISTINCT FROM ({})::text").format(
            sql.Identifier(column.name), after
        )
    if column.base_type.startswith("numeric"):
        return sql.SQL("({}) IS DISTINCT FROM ({})").format(before, after)
    return sql.SQL("({})::text IS DISTINCT FROM ({})::text").format(before, after)
