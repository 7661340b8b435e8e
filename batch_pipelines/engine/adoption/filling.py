"""Giving rows a batch id, a few blocks at a time, so that nobody waits long for a row that is locked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from batch_pipelines.engine.adoption.short_locks import in_short_lock, refused
from batch_pipelines.engine.errors import BusyError
from batch_pipelines.engine.failpoints import failpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from batch_pipelines.engine.adoption.relations import Relation
    from batch_pipelines.engine.adoption.short_locks import Pace
    from batch_pipelines.engine.postgres.database import Connection

# A chunk takes about this many seconds, and so long does a writer wait whose row is in it; it grows and
# shrinks to that. PostgreSQL then has as long to itself.
_CHUNK_SECONDS = 0.2
_FIRST_BLOCKS, _MOST_BLOCKS = 2, 4096
_BLOCKS = "SELECT pg_relation_size(%s::oid) / current_setting('block_size')::bigint"
_LEAVES = """
SELECT n.nspname, c.relname, c.oid::bigint
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r'
  AND (c.oid = %(oid)s OR c.oid IN (SELECT relid FROM pg_partition_tree(%(oid)s::oid)))
ORDER BY c.oid
"""
_LEFT = sql.SQL("EXISTS (SELECT FROM {table} WHERE {target} IS NULL AND {source}::text <> '')")
_CREATE_TRIGGER = sql.SQL("""
CREATE TRIGGER {name} BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW {when}
EXECUTE FUNCTION batch_audit.fill_batch_id({source}, {target})
""")
_WHEN_NULL = sql.SQL("WHEN (NEW.{target} IS NULL)")
_DROP_TRIGGER = sql.SQL("DROP TRIGGER IF EXISTS {name} ON {table}")
# By physical place and not by key: it needs no key, no index and no sorting, and the trigger sees to
# rows that move meanwhile.
_FILL = sql.SQL("""
UPDATE {table} SET {target} = batch_audit.batch_id_of({source}::text)
WHERE ctid >= {first}::tid AND ctid < {end}::tid AND {target} IS NULL AND {source}::text <> ''
""")


def keep_filled(
    connection: Connection,
    relation: Relation,
    *,
    source: str,
    target: str,
    always: bool,
    pace: Pace,
) -> None:
    """Have a trigger give new rows a batch id for their id, from applications that know nothing of it.

    Args:
        connection: A connection in autocommit mode.
        relation: The table.
        source: Column of the id.
        target: Column of the batch id.
        always: Whether the batch id follows the id whenever it changes, or only fills a null.
        pace: How often to try.
    """
    names = {"name": sql.Identifier(trigger_name(target)), "table": relation.identifier}
    when = sql.SQL("") if always else _WHEN_NULL.format(target=sql.Identifier(target))
    create = _CREATE_TRIGGER.format(
        **names, when=when, source=sql.Literal(source), target=sql.Literal(target)
    )
    in_short_lock(connection, relation, [create], what="create the trigger", pace=pace)


def trigger_name(target: str) -> str:
    """Name the trigger that fills a column; a table's run by their names, and this one last."""
    return f"zz_batch_pipelines_{target}"


def drop_trigger(relation: Relation, target: str) -> sql.Composed:
    """Write the statement that removes the trigger that fills a column."""
    name = sql.Identifier(trigger_name(target))
    return _DROP_TRIGGER.format(name=name, table=relation.identifier)


def is_filled(connection: Connection, relation: Relation, *, source: str, target: str) -> bool:
    """Say whether every row that has an id has a batch id."""
    left = _LEFT.format(
        table=relation.identifier, source=sql.Identifier(source), target=sql.Identifier(target)
    )
    return connection.execute(sql.SQL("SELECT {}").format(left)).fetchone() == (False,)


def fill(
    connection: Connection,
    relation: Relation,
    *,
    source: str,
    target: str,
    pace: Pace,
    tell: Callable[[str], None],
) -> int:
    """Give every row that has an id the batch id for it; the trigger of `keep_filled` is there.

    Args:
        connection: A connection in autocommit mode.
        relation: The table.
        source: Column of the id.
        target: Column of the batch id.
        pace: How often to try a chunk.
        tell: Told how far it is.

    Returns:
        How many rows it filled.

    Raises:
        BusyError: Rows stayed locked.
    """
    filled = 0
    while not is_filled(connection, relation, source=source, target=target):
        for schema, name, oid in connection.execute(_LEAVES, {"oid": relation.oid}).fetchall():
            parts = {
                "table": sql.Identifier(schema, name),
                "source": sql.Identifier(source),
                "target": sql.Identifier(target),
            }
            filled += _fill_leaf(connection, relation, int(oid), parts, pace)
        tell(f"{relation.full_name}: {filled:,} rows have got their {target}.")
    return filled


def _fill_leaf(
    connection: Connection,
    relation: Relation,
    oid: int,
    parts: Mapping[str, sql.Identifier],
    pace: Pace,
) -> int:
    ((blocks,),) = connection.execute(_BLOCKS, (oid,)).fetchall()
    first, size, filled = 0, _FIRST_BLOCKS, 0
    while first < blocks:
        begun = pace.clock()
        place = {
            "first": sql.Literal(f"({first},0)"),
            "end": sql.Literal(f"({first + size},0)"),
        }
        filled += _fill_chunk(connection, relation, _FILL.format(**parts, **place), pace)
        failpoint("adoption.filled", None)
        first += size
        took = pace.clock() - begun
        if took > _CHUNK_SECONDS:
            size = max(size // 2, 1)
        elif took < _CHUNK_SECONDS / 2:
            size = min(size * 2, _MOST_BLOCKS)
        pace.sleep(min(took, _CHUNK_SECONDS))
    return filled


def _fill_chunk(
    connection: Connection,
    relation: Relation,
    statement: sql.Composed,
    pace: Pace,
) -> int:
    for last in pace.attempts():
        try:
            with connection.transaction(), refused(relation, "fill the batch id"):
                connection.execute("SELECT set_config('lock_timeout', '100ms', true)")
                return connection.execute(statement).rowcount
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            if last:
                break
    message = (
        f"{relation.full_name}: rows stayed locked for {pace.give_up_after:g} s. Type the same command "
        "again when they are free: it goes on where it stopped."
    )
    raise BusyError(message)
