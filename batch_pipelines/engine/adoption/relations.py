"""The tables that may be tracked or adopted, and what the catalog says of one of their columns."""

from __future__ import annotations

import difflib
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from batch_pipelines.engine.errors import AdoptionError, BusyError
from batch_pipelines.engine.postgres.database import (
    ADOPTION_LOCK_CLASS,
    DAGSTER_SCHEMA,
    require_sessions,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batch_pipelines.engine.adoption.short_locks import Pace
    from batch_pipelines.engine.postgres.database import Connection, Database

_FIND = """
SELECT c.oid::bigint, c.relkind::text, c.relpersistence::text,
       (SELECT format('%%s.%%s', pn.nspname, p.relname) FROM pg_inherits i
        JOIN pg_class p ON p.oid = i.inhparent JOIN pg_namespace pn ON pn.oid = p.relnamespace
        WHERE i.inhrelid = c.oid AND c.relispartition),
       EXISTS (SELECT FROM pg_partition_tree(c.oid) t JOIN pg_class p ON p.oid = t.relid
               WHERE p.relkind = 'f')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = %s
"""
_ALL = """
SELECT format('%s.%s', n.nspname, c.relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
"""
_COLUMN = """
SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.atttypid::bigint, a.attnotnull,
       a.atthasdef OR a.attidentity <> '' OR a.attgenerated <> ''
FROM pg_attribute a WHERE a.attrelid = %s AND a.attname = %s AND NOT a.attisdropped
"""
_TRIGGER = "SELECT FROM pg_trigger WHERE tgrelid = %s AND tgname = %s"
_TRY_LOCK = "SELECT pg_try_advisory_lock(%s, %s)"
_KINDS = {
    "v": "a view",
    "m": "a materialized view",
    "f": "a foreign table",
    "S": "a sequence",
    "i": "an index",
    "I": "an index",
    "c": "a composite type",
}
_OURS = frozenset({"batch_audit", DAGSTER_SCHEMA})
_UUID = 2950
_TEXTS = frozenset({25, 1042, 1043})  # text, char, varchar


@dataclass(frozen=True)
class Relation:
    """A table that was there before us.

    Attributes:
        oid: Its OID.
        schema, name: Its name.
        partitioned: Whether its rows are in partitions.
    """

    oid: int
    schema: str
    name: str
    partitioned: bool

    @property
    def full_name(self) -> str:
        """Schema and name, as a feed writes them."""
        return f"{self.schema}.{self.name}"

    @property
    def identifier(self) -> sql.Identifier:
        """The quoted name for use in SQL."""
        return sql.Identifier(self.schema, self.name)


@dataclass(frozen=True)
class Existing:
    """A column as the catalog has it.

    Attributes:
        name: Its name.
        type_name: Its type as SQL writes it.
        kind: `uuid`, `text` (varchar and char too) or `other`.
        not_null: Whether it refuses nulls.
        filled: Whether a row gets a value there by itself: default, identity, generated.
    """

    name: str
    type_name: str
    kind: str
    not_null: bool
    filled: bool


def find_relation(connection: Connection, full_name: str) -> Relation:
    """Find a table that can be changed.

    Args:
        connection: A connection in autocommit mode.
        full_name: Its name with schema, unquoted.

    Returns:
        The table.

    Raises:
        AdoptionError: There is none, or it is none that rows can be tracked in.
    """
    schema, dot, name = full_name.partition(".")
    if not dot or not name or "." in name:
        message = f"{full_name!r} is no table: expected SCHEMA.TABLE, as in public.orders."
        raise AdoptionError(message)
    if schema in _OURS or schema == "information_schema" or schema.startswith("pg_"):
        whose = "the ledger's or Dagster's" if schema in _OURS else "PostgreSQL's own"
        message = f"{full_name} is in a schema of {whose}; expected a table that imports fill."
        raise AdoptionError(message)
    row = connection.execute(_FIND, (schema, name)).fetchone()
    if row is None:
        tables = [table for (table,) in connection.execute(_ALL).fetchall()]
        near = difflib.get_close_matches(full_name, tables, n=1)
        hint = f" Is it {near[0]}?" if near else ""
        message = (
            f"There is no table {full_name}.{hint} Names are written as they are, without quotes."
        )
        raise AdoptionError(message)
    oid, kind, persistence, parent, foreign = row
    if kind not in {"r", "p"}:
        what = _KINDS.get(kind, "no table")
        message = f"{full_name} is {what}; expected a table. Name the table that holds the rows."
        raise AdoptionError(message)
    if parent is not None:
        message = f"{full_name} is a partition, whose columns are those of {parent}. Name that one."
        raise AdoptionError(message)
    if persistence == "t":
        message = f"{full_name} is a temporary table, which other sessions do not see."
        raise AdoptionError(message)
    if foreign:
        message = (
            f"{full_name} has partitions that are foreign tables, which take neither column nor index "
            "from here. Detach them, or name a table without."
        )
        raise AdoptionError(message)
    return Relation(int(oid), schema, name, partitioned=kind == "p")


def find_column(connection: Connection, relation: Relation, name: str) -> Existing | None:
    """Read a column.

    Args:
        connection: A connection.
        relation: The table.
        name: The column's name.

    Returns:
        The column, or None where there is none.
    """
    row = connection.execute(_COLUMN, (relation.oid, name)).fetchone()
    if row is None:
        return None
    attname, type_name, type_oid, not_null, filled = row
    kind = "uuid" if type_oid == _UUID else "text" if type_oid in _TEXTS else "other"
    return Existing(attname, type_name, kind, not_null, filled)


def has_trigger(connection: Connection, relation: Relation, name: str) -> bool:
    """Say whether the table has a trigger of that name."""
    return connection.execute(_TRIGGER, (relation.oid, name)).fetchone() is not None


@contextmanager
def alone(database: Database, full_name: str, pace: Pace) -> Iterator[tuple[Connection, Relation]]:
    """Work on a table that no other command of ours works on, for the length of a block.

    Args:
        database: The target database.
        full_name: The table's name.
        pace: How long to wait for another command.

    Yields:
        A connection in autocommit mode, and the table.

    Raises:
        AdoptionError: There is no such table.
        BusyError: Another command works on it.
    """
    with database.connect("adoption") as connection:
        with database.connect("adoption") as other:
            require_sessions(connection, other)
        relation = find_relation(connection, full_name)
        key = relation.oid - (1 << 32) if relation.oid >= 1 << 31 else relation.oid
        # Asked again and again and not waited for: an index that is built concurrently waits for every
        # statement that is under way. The server may still be at work for a command that was killed.
        for last in pace.attempts():
            row = connection.execute(_TRY_LOCK, (ADOPTION_LOCK_CLASS, key)).fetchone()
            if row is not None and row[0]:
                break
            if last:
                message = (
                    f"{full_name}: another `db track`, `db adopt` or `db untrack` works on it, or the "
                    "server still does for one that was ended. Wait for it, and try again."
                )
                raise BusyError(message)
        try:
            yield connection, relation
        except psycopg.Error as error:
            state = error.sqlstate or "none: the connection was lost"
            message = (
                f"{full_name}: PostgreSQL ended the work on it (SQLSTATE {state}). Type the same "
                "command again: it goes on where it stopped."
            )
            raise AdoptionError(message) from None
