"""Putting rows into a target table, in place of those of the batch that is superseded, if any.

Three ways, by what the table and the delivery are:

- COPY straight into the table: nothing refers to it and every column has a wire type. Rows of the
  superseded batch are deleted first.
- through a temporary table: some columns load as text and PostgreSQL converts them.
- as a keyed diff: other rows may refer to this table's, so a row that stays must not go for a moment.
  Changed rows are updated, new ones inserted, equal ones get the new stamp, and what the delivery no
  longer has is deleted at the end, unless rows elsewhere would be deleted or blanked by that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg import sql

from batch_pipelines.engine.catalog import STAMP
from batch_pipelines.engine.digests.sql import table_digest
from batch_pipelines.engine.errors import LossyValueError, PublishError
from batch_pipelines.engine.writing.copying import copy_stamped, staging_columns

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batch_pipelines.engine.catalog import Column, ForeignKey, TableInfo
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.reading.readers import Chunk
    from batch_pipelines.engine.writing.copying import Proof, TableSource

# Values stand in these statements as literals and not as parameters: with parameters, psycopg would
# take a percent sign in a quoted name for a placeholder.
_STAMP = sql.Identifier(STAMP)
_STAGED = sql.Identifier("pg_temp", "batch_pipelines_staged")
_CUT_SHORT = frozenset({'"char"', "name"})
_UPDATES = {"c": "changed too (CASCADE)", "n": "blanked (SET NULL)", "d": "reset (SET DEFAULT)"}
_ACTIONS = {"c": "deleted (CASCADE)", "n": "blanked (SET NULL)", "d": "reset (SET DEFAULT)"}

_CREATE = sql.SQL("CREATE TEMPORARY TABLE {name} ({columns}, {stamp} uuid) ON COMMIT DROP")
_DROP = sql.SQL("DROP TABLE IF EXISTS {name}")
_DELETE = sql.SQL("DELETE FROM {table} WHERE {stamp} = {old}")
_INSERT = sql.SQL(
    "INSERT INTO {table} ({names}, {stamp}) SELECT {values}, s.{stamp} FROM {staged} s"
)
_COUNT_KEPT = sql.SQL("""
SELECT count(*), count(*) FILTER (WHERE {changed})
FROM {table} t JOIN {staged} s ON {same_key} WHERE t.{stamp} = {old}
""")
_UPDATE = sql.SQL("""
UPDATE {table} t SET {assignments}
FROM {staged} s WHERE {same_key} AND t.{stamp} = {old}
""")
_INSERT_NEW = sql.SQL("""
INSERT INTO {table} ({names}, {stamp})
SELECT {values}, s.{stamp} FROM {staged} s
WHERE NOT EXISTS (SELECT FROM {table} t WHERE {same_key} AND t.{stamp} = s.{stamp})
""")
_TWICE = sql.SQL("SELECT EXISTS (SELECT FROM {staged} s GROUP BY {key} HAVING count(*) > 1)")
# Rows that keep neither their key nor what else must be unique.
_MOVING = sql.SQL("""
t.{stamp} = {old} AND NOT EXISTS (SELECT FROM {staged} s WHERE {same_key} AND NOT ({moved}))
""")
_LOCK_MOVING = sql.SQL("SELECT FROM {table} t WHERE {moving} FOR UPDATE")
_TAKE_AWAY = sql.SQL("""
WITH gone AS (
    DELETE FROM {table} t WHERE {moving} AND NOT ({referred})
    RETURNING NOT EXISTS (SELECT FROM {staged} s WHERE {same_key}) AS missing)
SELECT count(*) FILTER (WHERE missing) FROM gone
""")
_REFERRED = sql.SQL("EXISTS (SELECT FROM {child} c WHERE {same})")
# Locked first: a row that somebody is just about to refer to is waited for, and then counted.
_LOCK_OLD = sql.SQL("SELECT FROM {table} t WHERE t.{stamp} = {old} FOR UPDATE")
_COUNT_REFERRING = sql.SQL("""
SELECT count(*) FROM {child} c JOIN {table} t ON {same} WHERE t.{stamp} = {old} AND ({affected})
""")
_WILL_CHANGE = sql.SQL("EXISTS (SELECT FROM {staged} s WHERE {same_key} AND ({changed}))")
_LOSES = sql.SQL("SELECT EXISTS (SELECT FROM {staged} s WHERE {lossy})")


@dataclass(frozen=True)
class Put:
    """What happened to the rows of one table.

    Attributes:
        sent: Rows sent by COPY.
        updated: Rows of the superseded batch that got other values.
        unchanged: Rows of it that got only the new stamp.
        removed: Rows of it that are gone already; `remove_missing` takes the others away.
    """

    sent: int
    updated: int = 0
    unchanged: int = 0
    removed: int = 0


def needs_diff(table: TableInfo) -> bool:
    """Say whether rows elsewhere may refer to the table's, its own rows included."""
    return bool(table.children)


def put(
    connection: Connection,
    proof: Proof,
    chunks: Iterable[Chunk],
    batch_id: str,
    superseded: str | None,
    dropped: Iterable[str] = (),
) -> Put:
    """Bring a source's rows into its table; called inside the publish transaction.

    Args:
        connection: The publishing connection.
        proof: Watches the source; its digests are complete when the chunks are used up.
        chunks: The source's chunks.
        batch_id: The stamp.
        superseded: Id of the batch whose rows are replaced, or None.
        dropped: Columns the superseded batch brought and this one does not.

    Returns:
        What happened.

    Raises:
        PublishError: A diff is needed and the table has no primary key that the delivery brings; or
            what arrived as text is not what was sent.
    """
    source, table = proof.source, proof.source.table
    if superseded is not None and not needs_diff(table):
        connection.execute(_delete(table, superseded))
        superseded = None
    if superseded is None and not source.as_text:
        return Put(copy_stamped(connection, table.identifier, source, chunks, batch_id))
    connection.execute(_DROP.format(name=_STAGED))
    columns = staging_columns(source.columns)
    # A temporary table goes to pg_temp by itself; its creation does not take the schema's name.
    bare = sql.Identifier("batch_pipelines_staged")
    connection.execute(_CREATE.format(name=bare, columns=columns, stamp=_STAMP))
    sent = copy_stamped(connection, _STAGED, source, chunks, batch_id)
    connection.execute(sql.SQL("ANALYZE {}").format(_STAGED))
    if source.as_text:
        _prove_received(connection, proof)
        _refuse_loss(connection, source)
    if superseded is None:
        connection.execute(_INSERT.format(**_parts(source)))
        return Put(sent)
    return _diff(connection, source, sent, superseded, dropped)


def remove_missing(connection: Connection, table: TableInfo, superseded: str) -> int:
    """Delete what the superseded batch had and the new one does not.

    Args:
        connection: The publishing connection; every row that stays has the new stamp by now.
        table: The target table.
        superseded: Id of the superseded batch.

    Returns:
        Rows deleted.

    Raises:
        PublishError: Rows elsewhere would be deleted or blanked by a foreign key.
    """
    old = sql.Literal(superseded)
    connection.execute(_LOCK_OLD.format(table=table.identifier, stamp=_STAMP, old=old))
    for key in table.children:
        if key.on_delete in _ACTIONS:
            # Rows of the table itself that go too are nobody's loss.
            staying = sql.SQL("c.{} IS DISTINCT FROM {}").format(_STAMP, old)
            affected = staying if key.child_oid == table.oid else sql.SQL("true")
            what = (
                f"no longer has rows to which {{}} refer; they would be {_ACTIONS[key.on_delete]}"
            )
            _refuse_side_effect(connection, table, key, old, affected, what)
    return connection.execute(_delete(table, superseded)).rowcount


def _delete(table: TableInfo, superseded: str) -> sql.Composed:
    return _DELETE.format(table=table.identifier, stamp=_STAMP, old=sql.Literal(superseded))


def _prove_received(connection: Connection, proof: Proof) -> None:
    """Compare text columns before PostgreSQL converts them: what it stores may be written otherwise."""
    columns = [column.name for column in proof.source.columns]
    if table_digest(connection, _STAGED, columns, sql.SQL("true")) != proof.received:
        message = (
            f"{proof.source.table.full_name}: what arrived differs from the source; nothing was "
            "written. Run again; if it happens again, the machine's memory may be faulty."
        )
        raise PublishError(message)


def _diff(
    connection: Connection,
    source: TableSource,
    sent: int,
    superseded: str,
    dropped: Iterable[str],
) -> Put:
    key = source.table.primary_key
    if not key or not set(key) <= {column.name for column in source.columns}:
        message = (
            f"{source.table.full_name}: other rows may refer to its rows, so a corrected delivery "
            "is compared with them by primary key, and "
            + ("the delivery does not bring it." if key else "the table has none.")
            + " Add the key to the table or to the delivery."
        )
        raise PublishError(message)
    parts = _parts(source) | {"old": sql.Literal(superseded)}
    if _tell(connection, _TWICE.format(**parts)):
        # One of the two would win without a word; the table's own key refuses them, and is named.
        connection.execute(_INSERT.format(**parts))
    row = connection.execute(_COUNT_KEPT.format(**parts)).fetchone()
    kept, updated = (int(value) for value in row or (0, 0))
    reset = [sql.SQL("{} = DEFAULT").format(sql.Identifier(name)) for name in dropped]
    _refuse_update_effects(connection, source, superseded, parts)
    stamp = sql.SQL("{0} = s.{0}").format(_STAMP)
    parts["assignments"] = sql.SQL(", ").join([*_assignments(source), *reset, stamp])
    removed = _take_away(connection, source, parts)
    connection.execute(_UPDATE.format(**parts))
    connection.execute(_INSERT_NEW.format(**parts))
    return Put(sent, updated, kept - updated, removed)


def _take_away(
    connection: Connection, source: TableSource, parts: dict[str, sql.Composable]
) -> int:
    """Delete rows whose unique values others may get, unless something refers to them.

    Without this a value could not move from one row to another: PostgreSQL looks at unique keys row
    by row. Those that stay under their primary key are inserted again with the new ones.

    Returns:
        How many of them the delivery does not have.
    """
    unique = {name for key in source.table.unique_keys if not key.primary for name in key.columns}
    moved = [_changes(column) for column in source.columns if column.name in unique]
    if not moved:
        return 0
    parts["moving"] = _MOVING.format(**parts, moved=sql.SQL(" OR ").join(moved))
    parts["referred"] = sql.SQL(" OR ").join(
        _REFERRED.format(child=sql.Identifier(*key.child), same=_same(key))
        for key in source.table.children
    )
    connection.execute(_LOCK_MOVING.format(**parts))
    return int(_tell(connection, _TAKE_AWAY.format(**parts)))


def _refuse_loss(connection: Connection, source: TableSource) -> None:
    """Refuse what PostgreSQL would cut short or round when it converts a text."""
    lossy = [loses(column) for column in source.as_text]
    query = _LOSES.format(staged=_STAGED, lossy=sql.SQL(" OR ").join(lossy))
    if _tell(connection, query):
        names = ", ".join(column.name for column in source.as_text)
        message = (
            f"{source.table.full_name}: a value of {names} does not fit its type without being "
            "shortened or rounded. Correct the file and deliver it again."
        )
        raise LossyValueError(message)


def _refuse_update_effects(
    connection: Connection, source: TableSource, superseded: str, parts: dict[str, sql.Composable]
) -> None:
    """Refuse changes of referenced columns that a foreign key would carry on to other rows."""
    assigned = {column.name: column for column in source.columns}
    for key in source.table.children:
        moved = [assigned[name] for name in key.parent_columns if name in assigned]
        moved = [column for column in moved if column.name not in source.table.primary_key]
        if key.on_update not in _ACTIONS or not moved:
            continue
        changed = sql.SQL(" OR ").join(_changes(column) for column in moved)
        affected = _WILL_CHANGE.format(staged=_STAGED, same_key=parts["same_key"], changed=changed)
        what = f"changes values to which {{}} refer; they would be {_UPDATES[key.on_update]}"
        _refuse_side_effect(connection, source.table, key, sql.Literal(superseded), affected, what)


def _refuse_side_effect(
    connection: Connection,
    table: TableInfo,
    key: ForeignKey,
    old: sql.Literal,
    affected: sql.Composable,
    what: str,
) -> None:
    query = _COUNT_REFERRING.format(
        child=sql.Identifier(*key.child),
        table=table.identifier,
        same=_same(key),
        stamp=_STAMP,
        old=old,
        affected=affected,
    )
    if count := _tell(connection, query):
        referring = f"{count} rows of {'.'.join(key.child)}"
        message = (
            f"{table.full_name}: the delivery {what.format(referring)} by {key.name}. "
            "Deliver those rows as they were, or take the referring ones away first."
        )
        raise PublishError(message)


def _same(key: ForeignKey) -> sql.Composed:
    return sql.SQL(" AND ").join(
        sql.SQL("c.{} = t.{}").format(sql.Identifier(c), sql.Identifier(p))
        for c, p in zip(key.child_columns, key.parent_columns, strict=True)
    )


def _tell(connection: Connection, query: sql.Composed) -> Any:
    row = connection.execute(query).fetchone()
    return None if row is None else row[0]


def _parts(source: TableSource) -> dict[str, sql.Composable]:
    table, columns = source.table, source.columns
    same = [sql.SQL("t.{0} = {1}").format(sql.Identifier(n), _value(table.column(n)))
            for n in table.primary_key]  # fmt: skip
    return {
        "table": table.identifier,
        "staged": _STAGED,
        "stamp": _STAMP,
        "names": sql.SQL(", ").join(sql.Identifier(c.name) for c in columns),
        "values": sql.SQL(", ").join(_value(c) for c in columns),
        "same_key": sql.SQL(" AND ").join(same),
        "key": sql.SQL(", ").join(_value(table.column(name)) for name in table.primary_key),
        "changed": sql.SQL(" OR ").join(_changes(c) for c in columns),
    }


def _assignments(source: TableSource) -> list[sql.Composed]:
    key = set(source.table.primary_key)
    return [
        sql.SQL("{} = {}").format(sql.Identifier(c.name), _value(c))
        for c in source.columns
        if c.name not in key
    ]


def _changes(column: Column) -> sql.Composed:
    name = sql.Identifier(column.name)
    if column.wire is not None:
        return sql.SQL("t.{} IS DISTINCT FROM s.{}").format(name, name)
    # Not every type has equality (json has none); its text has.
    return sql.SQL("t.{}::text IS DISTINCT FROM ({})::text").format(name, _stored(column))


def loses(column: Column) -> sql.Composed:
    """Say, as a condition on a staged row `s`, when a text column's value would not be kept whole.

    Args:
        column: A column that is loaded as text.

    Returns:
        A condition; evaluating it raises where the text is no value of the type at all.
    """
    before, after = _value(column), _stored(column)
    if column.base_type in _CUT_SHORT:
        # These two drop what is too long while they read it.
        return sql.SQL("s.{} IS DISTINCT FROM ({})::text").format(
            sql.Identifier(column.name), after
        )
    if column.base_type.startswith("numeric"):
        return sql.SQL("({}) IS DISTINCT FROM ({})").format(before, after)
    return sql.SQL("({})::text IS DISTINCT FROM ({})::text").format(before, after)


def _stored(column: Column) -> sql.Composed:
    # A type's name comes from PostgreSQL's own format_type, which quotes it.
    return sql.SQL("{}::{}").format(_value(column), sql.SQL(column.type_name))


def _value(column: Column) -> sql.Composed:
    """Give the value to store; its length is left to the assignment, which does not cut short."""
    cast = "" if column.wire is not None else f"::{column.base_type}"
    return sql.SQL("s.{}{}").format(sql.Identifier(column.name), sql.SQL(cast))
