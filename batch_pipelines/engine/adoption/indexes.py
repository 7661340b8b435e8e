"""Indexes on one column, built while others write; what an earlier failure left of one is removed.

An index that was built concurrently and failed stays behind as an invalid one: it is never read, and is
kept up all the same. Of a partitioned table the index is made in three steps: an empty frame on the
parent, an index on each partition concurrently, and each attached to the frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from batch_pipelines.engine.adoption.short_locks import in_short_lock, patiently, refused
from batch_pipelines.engine.errors import AdoptionError, BusyError
from batch_pipelines.engine.failpoints import failpoint

if TYPE_CHECKING:
    from batch_pipelines.engine.adoption.relations import Relation
    from batch_pipelines.engine.adoption.short_locks import Pace
    from batch_pipelines.engine.postgres.database import Connection

# Those that find the rows of a value. An index over the rows that have one is as good as over all.
_INDEXES = """
SELECT i.indexrelid::bigint AS oid, n.nspname AS schema, c.relname AS name,
       i.indisvalid AND i.indisready AS valid, i.indisunique AS is_unique,
       i.indnatts = 1 AND i.indpred IS NULL AND am.amname = 'btree' AS plain,
       i.indnkeyatts = 1 AS alone,
       (SELECT inhparent::bigint FROM pg_inherits WHERE inhrelid = i.indexrelid) AS parent,
       EXISTS (SELECT FROM pg_constraint WHERE conindid = i.indexrelid) AS constraint
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_am am ON am.oid = c.relam
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attname = %(column)s
WHERE i.indrelid = %(table)s AND i.indkey[0] = a.attnum AND i.indexprs IS NULL
  AND am.amname IN ('btree', 'hash', 'brin')
  AND (i.indpred IS NULL
       OR pg_get_expr(i.indpred, i.indrelid) = format('(%%I IS NOT NULL)', a.attname))
ORDER BY i.indexrelid
"""
_TREE = """
SELECT relid::bigint, parentrelid::bigint, isleaf, n.nspname, c.relname
FROM pg_partition_tree(%s::oid) t
JOIN pg_class c ON c.oid = t.relid JOIN pg_namespace n ON n.oid = c.relnamespace
ORDER BY level, relid
"""
# Whoever builds an index concurrently holds this lock on the table from end to end; so does vacuum.
_BUILT_NOW = """
SELECT FROM pg_locks
WHERE locktype = 'relation' AND relation = %s AND mode = 'ShareUpdateExclusiveLock' AND granted
  AND pid <> pg_backend_pid()
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_CREATE = sql.SQL("CREATE {unique} INDEX CONCURRENTLY ON {table} ({column})")
_FRAME = sql.SQL("CREATE INDEX ON ONLY {table} ({column})")
_ATTACH = sql.SQL("ALTER INDEX {parent} ATTACH PARTITION {index}")
_DROP = sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {index}")
_REBUILD = sql.SQL("REINDEX INDEX CONCURRENTLY {index}")
# A partition that is made meanwhile brings its index with it; one that is attached may not.
_ROUNDS = 3
BUILDING = "build the index"


@dataclass(frozen=True)
class Index:
    """An index whose first column is the one in question.

    Attributes:
        oid: Its OID.
        schema, name: Its name.
        valid: Whether queries can use it.
        is_unique: Whether it holds the column unique.
        plain: Whether it is a btree over this column and all rows.
        alone: Whether no other column is in its key.
        parent: OID of the index of the parent table that it is a part of, or None.
        constraint: Whether a constraint rests on it.
    """

    oid: int
    schema: str
    name: str
    valid: bool
    is_unique: bool
    plain: bool
    alone: bool
    parent: int | None
    constraint: bool

    @property
    def identifier(self) -> sql.Identifier:
        """The quoted name for use in SQL."""
        return sql.Identifier(self.schema, self.name)


@dataclass(frozen=True)
class _Node:
    """A table of a partition tree; `parent` is None at its top."""

    oid: int
    parent: int | None
    leaf: bool
    identifier: sql.Identifier


def indexes_of(connection: Connection, table_oid: int, column: str) -> list[Index]:
    """List a table's indexes that begin with a column, valid or not.

    Args:
        connection: A connection.
        table_oid: The table's OID.
        column: The column.

    Returns:
        The indexes, oldest first.
    """
    with connection.cursor(row_factory=class_row(Index)) as cursor:
        return cursor.execute(_INDEXES, {"table": table_oid, "column": column}).fetchall()


def is_indexed(connection: Connection, relation: Relation, column: str) -> bool:
    """Say whether the rows with a value of a column can be found by an index, in all partitions."""
    return any(index.valid for index in indexes_of(connection, relation.oid, column))


def unique_index(connection: Connection, relation: Relation, column: str) -> Index | None:
    """Find the valid index that holds a column unique by itself, a constraint's first."""
    found = [
        index
        for index in indexes_of(connection, relation.oid, column)
        if index.valid and index.is_unique and index.plain
    ]
    return max(found, key=lambda index: index.constraint, default=None)


def ensure_index(connection: Connection, relation: Relation, column: str, pace: Pace) -> None:
    """Give a column an index while others read and write; nothing is done where there is one.

    Args:
        connection: A connection in autocommit mode, the only one that works on the table.
        relation: The table.
        column: The column.
        pace: How often to try, and how long to wait.

    Raises:
        AdoptionError: PostgreSQL did not build it.
        BusyError: A lock could not be had.
    """
    for _ in range(_ROUNDS):
        if is_indexed(connection, relation, column):
            return
        if relation.partitioned:
            _build_tree(connection, relation, column, pace)
        else:
            _build(connection, relation, relation.oid, relation.identifier, column, pace)
    if not is_indexed(connection, relation, column):
        message = (
            f"{relation.full_name}: its partitions change faster than their indexes can be attached. "
            "Type the same command again when they do not."
        )
        raise BusyError(message)


def ensure_unique_index(
    connection: Connection, relation: Relation, column: str, pace: Pace
) -> Index:
    """Give a column of a table without partitions a unique index while others read and write.

    Args:
        connection: A connection in autocommit mode, the only one that works on the table.
        relation: The table.
        column: The column.
        pace: How long to wait.

    Returns:
        The index.

    Raises:
        psycopg.errors.UniqueViolation: A value stands twice; the index is removed again.
        AdoptionError: PostgreSQL did not build it.
    """
    found = unique_index(connection, relation, column)
    if found is None:
        _build(connection, relation, relation.oid, relation.identifier, column, pace, unique=True)
        found = unique_index(connection, relation, column)
    if found is None:
        message = f"{relation.full_name}: the unique index on {column} is gone again. Try again."
        raise AdoptionError(message)
    return found


def drop_indexes(connection: Connection, relation: Relation, column: str, pace: Pace) -> None:
    """Remove the indexes over nothing but a column.

    Args:
        connection: A connection in autocommit mode.
        relation: The table.
        column: The column.
        pace: How often to try.
    """
    for index in indexes_of(connection, relation.oid, column):
        if not index.plain or index.is_unique:
            continue
        if relation.partitioned:
            # PostgreSQL does not drop an index of a partitioned table concurrently.
            drop = sql.SQL("DROP INDEX {}").format(index.identifier)
            in_short_lock(connection, relation, [drop], what="drop the index", pace=pace)
        else:
            _remove(connection, relation, index)


def _build(
    connection: Connection,
    relation: Relation,
    oid: int,
    name: sql.Identifier,
    column: str,
    pace: Pace,
    *,
    unique: bool = False,
) -> None:
    """Build the index of one table that holds rows."""
    _clean(connection, relation, oid, column, pace)
    statement = _CREATE.format(
        unique=sql.SQL("UNIQUE" if unique else ""), table=name, column=sql.Identifier(column)
    )
    failpoint("adoption.index", None)
    try:
        with patiently(connection), refused(relation, BUILDING):
            connection.execute(failpoint("adoption.create_index", statement))
    except psycopg.errors.LockNotAvailable:
        message = (
            f"{relation.full_name}: the index waited an hour for transactions that were open before it. "
            "End those (pg_stat_activity shows them by xact_start), and type the same command again."
        )
        raise BusyError(message) from None
    except (psycopg.errors.QueryCanceled, psycopg.errors.DeadlockDetected) as error:
        message = (
            f"{relation.full_name}: building the index was interrupted (SQLSTATE {error.sqlstate}). "
            "Type the same command again: what is left of it is removed."
        )
        raise BusyError(message) from None


def _clean(connection: Connection, relation: Relation, oid: int, column: str, pace: Pace) -> None:
    """Remove what earlier failures left; an index that somebody builds just now is waited for."""
    if all(index.valid for index in indexes_of(connection, oid, column)):
        return
    for last in pace.attempts():
        if connection.execute(_BUILT_NOW, (oid,)).fetchone() is None:
            break
        if last:
            message = (
                f"{relation.full_name}: somebody else builds an index or vacuums there, for longer than "
                f"{pace.give_up_after:g} s. Wait for it, and type the same command again."
            )
            raise BusyError(message)
    for index in indexes_of(connection, oid, column):
        if not index.valid and index.alone:
            _remove(connection, relation, index)


def _remove(connection: Connection, relation: Relation, index: Index) -> None:
    # One that is part of a parent's index cannot be dropped by itself.
    statement = (_DROP if index.parent is None else _REBUILD).format(index=index.identifier)
    with patiently(connection), refused(relation, "remove the index that an earlier failure left"):
        connection.execute(statement)
    failpoint("adoption.index_removed", None)


def _build_tree(connection: Connection, relation: Relation, column: str, pace: Pace) -> None:
    """Build the index of a partitioned table: frames, indexes of the partitions, then attach them."""
    nodes = [
        _Node(oid, parent, leaf, sql.Identifier(schema, name))
        for oid, parent, leaf, schema, name in connection.execute(_TREE, (relation.oid,)).fetchall()
    ]
    for node in nodes:
        if _attachable(connection, node, column) is not None:
            continue
        if node.leaf and node.oid != relation.oid:
            _build(connection, relation, node.oid, node.identifier, column, pace)
        else:
            frame = _FRAME.format(table=node.identifier, column=sql.Identifier(column))
            in_short_lock(connection, relation, [frame], what=BUILDING, pace=pace)
        failpoint("adoption.partition_indexed", None)
    found = {node.oid: _attachable(connection, node, column) for node in nodes}
    # From the leaves up: the index of a parent is valid once those of all its partitions are attached.
    for node in reversed(nodes):
        index, parent = found[node.oid], found.get(node.parent or 0)
        if index is None or parent is None or index.parent is not None:
            continue
        attach = _ATTACH.format(parent=parent.identifier, index=index.identifier)
        in_short_lock(connection, relation, [attach], what="attach the index", pace=pace)
        failpoint("adoption.index_attached", None)


def _attachable(connection: Connection, node: _Node, column: str) -> Index | None:
    """Find the index of a table that is, or can become, part of its parent's index."""
    for index in indexes_of(connection, node.oid, column):
        # The frame of a table with partitions is valid only when it is complete.
        if index.plain and not index.is_unique and (index.valid or not node.leaf):
            return index
    return None
