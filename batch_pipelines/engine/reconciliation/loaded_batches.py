"""Which batches another system has loaded: asked of the target's own column, by its index."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from psycopg import sql

from batch_pipelines.engine.catalog import read_table, read_tables
from batch_pipelines.engine.errors import FeedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batch_pipelines.engine.catalog import TableInfo
    from batch_pipelines.engine.feed_parts.table import Table
    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.postgres.database import Connection

MOST_AT_ONCE = 10_000
"""New batches of a table that one run takes up; the next run takes the rest."""
_INDEXED = """
SELECT EXISTS (
    SELECT FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
    WHERE i.indrelid = %s AND i.indisvalid AND i.indpred IS NULL AND m.amname = 'btree'
      AND a.attname = %s)
"""
# From each batch to the next one by the index: as many look-ups as there are batches, however many rows
# they have. PostgreSQL's own DISTINCT would read every row.
_NEW = sql.SQL("""
WITH RECURSIVE loaded AS (
    (SELECT {column} AS id FROM {table} WHERE {column} IS NOT NULL ORDER BY {column} LIMIT 1)
    UNION ALL
    SELECT (SELECT t.{column} FROM {table} t WHERE t.{column} > loaded.id ORDER BY t.{column} LIMIT 1)
    FROM loaded WHERE loaded.id IS NOT NULL)
SELECT loaded.id::text FROM loaded WHERE loaded.id IS NOT NULL AND ({every} OR coalesce((
    SELECT l.status IN ('IN_PROGRESS', 'UNVERIFIED') FROM batch_audit.reconciled_batch b
    JOIN batch_audit.validation_log l ON l.id = b.log_id
    WHERE b.feed = {feed} AND b.target_table = {name} AND b.batch_load_id = loaded.id::text
    ORDER BY b.log_id DESC LIMIT 1), true))
LIMIT {most}
""")


def check_loaded(connection: Connection, feed: Feed) -> None:
    """Check what a reconciled feed says of its tables.

    Args:
        connection: A connection to the target database.
        feed: The feed.

    Raises:
        FeedError: A table, its column of batch ids, an index on it, or a column of the key is missing;
            or the table in which the loader says which files a batch is from.
    """
    for table in feed.tables:
        _check_table(connection, feed, table)
    batches = feed.source.batches
    if batches is not None:
        query = "SELECT to_regclass(format('%%I.%%I', %s::text, %s::text))::oid::bigint"
        ((oid,),) = connection.execute(query, tuple(batches.table.split("."))).fetchall()
        query = "SELECT attname FROM pg_attribute WHERE attrelid = %s AND attnum > 0"
        there = {str(name) for (name,) in connection.execute(query, (oid or 0,)).fetchall()}
        absent = {batches.batch, batches.path} - there
        if absent:
            found = f"no column {', '.join(sorted(absent))}" if oid else "no such table"
            message = (
                f"Feed {feed.feed}: {batches.table} has to say which files a batch is from, but there "
                f"is {found}. Correct `source.batches` in the feed."
            )
            raise FeedError(message)


def _check_table(connection: Connection, feed: Feed, table: Table) -> None:
    info = read_table(connection, feed, table.table)
    if feed.is_compared_whole:
        return
    names = [column.name for column in info.columns]
    for name in (table.batch_column, *table.key):
        if name not in names:
            message = (
                f"Feed {feed.feed}: table {table.table} has no column {name!r}. Correct "
                "`batch_column` or `key` in the feed."
            )
            raise FeedError(message)
    ((indexed,),) = connection.execute(_INDEXED, (info.oid, table.batch_column)).fetchall()
    if not indexed:
        column = sql.Identifier(table.batch_column)
        create = sql.SQL("CREATE INDEX CONCURRENTLY ON {} ({})").format(info.identifier, column)
        message = (
            f"Feed {feed.feed}: table {table.table} has no btree index that begins with "
            f"{table.batch_column}, so every look for its batches would read all of it. Create one: "
            f"{create.as_string(connection)};"
        )
        raise FeedError(message)


def comparable_tables(connection: Connection, feed: Feed) -> tuple[TableInfo, ...]:
    """Read the catalog of a reconciled feed's tables; see `catalog.read_tables`.

    What their loader adds to a row, or PostgreSQL computes, is their own affair: a source may bring any
    columns, and need not bring all that must have a value.
    """
    return tuple(
        replace(
            table,
            columns=tuple(replace(c, not_null=False, computed=False) for c in table.columns),
        )
        for table in read_tables(connection, feed)
    )


def loaded_batches(connection: Connection, feed: Feed, *, every: bool = False) -> list[str]:
    """List the batches that another system has loaded and nobody has reconciled yet.

    Args:
        connection: A connection to the target database.
        feed: A feed that is reconciled; `check_loaded` has passed it.
        every: Also those that have been.

    Returns:
        Their ids as text, those of each table in its order and at most `MOST_AT_ONCE`. Those that could
        not be verified, or whose run died, count as not reconciled.
    """
    found = dict[str, None]()
    for table in feed.tables:
        query = _NEW.format(
            column=sql.Identifier(table.batch_column),
            table=sql.Identifier(table.schema_name, table.name),
            every=sql.Literal(every),
            feed=sql.Literal(feed.feed),
            name=sql.Literal(table.table),
            most=sql.Literal(MOST_AT_ONCE),
        )
        found |= dict.fromkeys(str(name) for (name,) in connection.execute(query).fetchall())
    return [*found]


def loaded_in(table: Table, batches: Sequence[str]) -> sql.Composed:
    """Write the condition that a row was loaded in one of some batches.

    Args:
        table: The table.
        batches: One or more ids.
    """
    # PostgreSQL gives literals without a type that of the column.
    ids = sql.SQL(", ").join(map(sql.Literal, batches))
    return sql.SQL("{} IN ({})").format(sql.Identifier(table.batch_column), ids)
