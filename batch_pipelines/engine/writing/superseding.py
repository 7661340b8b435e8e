"""Putting staged rows into a target table, in place of those of the batch that is superseded, if any.

- Where nothing refers to the table, rows of the superseded batch are deleted and the new inserted.
- Else as a keyed diff: other rows may refer to this table's, so a row that stays must not go for a
  moment. Changed rows are updated, new ones inserted, equal ones get the new stamp, and what the
  delivery no longer has is deleted at the end, unless rows elsewhere would be deleted or blanked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg import sql

from batch_pipelines.engine.catalog import STAMP
from batch_pipelines.engine.errors import PublishError
from batch_pipelines.engine.writing.inserting import Policy, insert_staged

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batch_pipelines.engine.catalog import Column, ForeignKey, TableInfo
    from batch_pipelines.engine.ledger.proofs import Signature
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.writing.staging import Staged

# Values stand in these statements as literals and not as parameters: with parameters, psycopg would
# take a percent sign in a quoted name for a placeholder.
_STAMP = sql.Identifier(STAMP)
_UPDATES = {"c": "changed too (CASCADE)", "n": "blanked (SET NULL)", "d": "reset (SET DEFAULT)"}
_ACTIONS = {"c": "deleted (CASCADE)", "n": "blanked (SET NULL)", "d": "reset (SET DEFAULT)"}

_BULK = Policy()
_DELETE = sql.SQL("DELETE FROM {table} WHERE {stamp} = {old}")
_COUNT_STAGED = sql.SQL("SELECT count(*) FROM {staged}")
_COUNT_KEPT = sql.SQL("""
SELECT count(*), count(*) FILTER (WHERE {any_change})
FROM {table} t JOIN {staged} s ON {same_key} WHERE t.{stamp} = {old}
""")
_UPDATE = sql.SQL("""
UPDATE {table} t SET {assignments}
FROM {staged} s WHERE {same_key} AND t.{stamp} = {old}
""")
_INSERT_NEW = sql.SQL("""
INSERT INTO {table} ({names}, {stamp})
SELECT {values}, {new} FROM {staged} s
WHERE NOT EXISTS (SELECT FROM {table} t WHERE {same_key} AND t.{stamp} = {new})
""")
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


@dataclass(frozen=True)
class Put:
    """What happened to the rows of one table.

    Attributes:
        sent: Rows of the delivery that are in the table now.
        updated: Rows of the superseded batch that got other values.
        unchanged: Rows of it that got only the new stamp.
        removed: Rows of it that are gone already, also where equal ones were sent in their place;
            `remove_missing` takes the others away.
        signatures: What was inserted, by column signature and way; none where it was put otherwise.
    """

    sent: int
    updated: int = 0
    unchanged: int = 0
    removed: int = 0
    signatures: tuple[Signature, ...] = ()


def needs_diff(table: TableInfo) -> bool:
    """Say whether rows elsewhere may refer to the table's, its own rows included."""
    return bool(table.children)


def put_staged(
    connection: Connection,
    staged: Staged,
    batch_id: str,
    superseded: str | None,
    dropped: Iterable[str] = (),
    policy: Policy = _BULK,
) -> Put:
    """Bring staged rows into their table; called inside the publish transaction.

    Args:
        connection: The publishing connection.
        staged: The staged rows, judged.
        batch_id: The stamp.
        superseded: Id of the batch whose rows are replaced, or None.
        dropped: Columns the superseded batch brought and this one does not; the table may have lost
            them since.
        policy: Which rows are inserted singly, where no diff is needed.

    Returns:
        What happened.

    Raises:
        PublishError: A diff is needed and the table has no primary key that the delivery brings, or
            the diff would change rows elsewhere.
    """
    table = staged.source.table
    if superseded is None or not needs_diff(table):
        removed = 0 if superseded is None else delete_batch(connection, table, superseded)
        written = insert_staged(connection, staged, batch_id, policy)
        sent = sum(each.entries for each in written)
        return Put(sent, removed=removed, signatures=written)
    parts = _parts(staged, batch_id)
    present = {column.name for column in table.columns}
    kept = [name for name in dropped if name in present]
    return _diff(connection, staged, parts, superseded, kept)


def delete_batch(connection: Connection, table: TableInfo, batch_id: str) -> int:
    """Delete the rows of a batch.

    Args:
        connection: The publishing connection.
        table: A table to whose rows no others refer.
        batch_id: The batch.

    Returns:
        Rows deleted.
    """
    return connection.execute(_delete(table, batch_id)).rowcount


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
    return delete_batch(connection, table, superseded)


def _delete(table: TableInfo, superseded: str) -> sql.Composed:
    return _DELETE.format(table=table.identifier, stamp=_STAMP, old=sql.Literal(superseded))


def _diff(
    connection: Connection,
    staged: Staged,
    parts: dict[str, sql.Composable],
    superseded: str,
    dropped: Iterable[str],
) -> Put:
    table, columns = staged.source.table, staged.source.columns
    key = table.primary_key
    if not key or not set(key) <= {column.name for column in columns}:
        message = (
            f"{table.full_name}: other rows may refer to its rows, so a corrected delivery "
            "is compared with them by primary key, and "
            + ("the delivery does not bring it." if key else "the table has none.")
            + " Add the key to the table or to the delivery."
        )
        raise PublishError(message)
    parts |= {"old": sql.Literal(superseded)}
    row = connection.execute(_COUNT_KEPT.format(**parts)).fetchone()
    kept, updated = (int(value) for value in row or (0, 0))
    _refuse_update_effects(connection, staged, superseded, parts)
    assigned = [
        sql.SQL("{0} = s.{0}").format(sql.Identifier(c.name)) for c in columns if c.name not in key
    ]
    assigned += [sql.SQL("{} = DEFAULT").format(sql.Identifier(name)) for name in dropped]
    assigned += [sql.SQL("{} = {}").format(_STAMP, parts["new"])]
    parts["assignments"] = sql.SQL(", ").join(assigned)
    removed = _take_away(connection, staged, parts)
    connection.execute(_UPDATE.format(**parts))
    connection.execute(_INSERT_NEW.format(**parts))
    return Put(_tell(connection, _COUNT_STAGED.format(**parts)), updated, kept - updated, removed)


def _take_away(connection: Connection, staged: Staged, parts: dict[str, sql.Composable]) -> int:
    """Delete rows whose unique values others may get, unless something refers to them.

    Without this a value could not move from one row to another: PostgreSQL looks at unique keys row
    by row. Those that stay under their primary key are inserted again with the new ones.

    Returns:
        How many of them the delivery does not have.
    """
    table = staged.source.table
    unique = {name for key in table.unique_keys if not key.primary for name in key.columns}
    moved = [changes(column) for column in staged.source.columns if column.name in unique]
    if not moved:
        return 0
    parts["moving"] = _MOVING.format(**parts, moved=sql.SQL(" OR ").join(moved))
    parts["referred"] = sql.SQL(" OR ").join(
        _REFERRED.format(child=sql.Identifier(*key.child), same=_same(key))
        for key in table.children
    )
    connection.execute(_LOCK_MOVING.format(**parts))
    return int(_tell(connection, _TAKE_AWAY.format(**parts)))


def _refuse_update_effects(
    connection: Connection, staged: Staged, superseded: str, parts: dict[str, sql.Composable]
) -> None:
    """Refuse changes of referenced columns that a foreign key would carry on to other rows."""
    table = staged.source.table
    assigned = {column.name: column for column in staged.source.columns}
    for key in table.children:
        moved = [assigned[name] for name in key.parent_columns if name in assigned]
        moved = [column for column in moved if column.name not in table.primary_key]
        if key.on_update not in _ACTIONS or not moved:
            continue
        changed = sql.SQL(" OR ").join(changes(column) for column in moved)
        affected = _WILL_CHANGE.format(**parts, changed=changed)
        what = f"changes values to which {{}} refer; they would be {_UPDATES[key.on_update]}"
        _refuse_side_effect(connection, table, key, sql.Literal(superseded), affected, what)


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


def _parts(staged: Staged, batch_id: str) -> dict[str, sql.Composable]:
    table, columns = staged.source.table, staged.source.columns
    same = [sql.SQL("t.{0} = s.{0}").format(sql.Identifier(name)) for name in table.primary_key]
    return {
        "table": table.identifier,
        "staged": staged.name,
        "stamp": _STAMP,
        "new": sql.Literal(batch_id),
        "names": sql.SQL(", ").join(sql.Identifier(c.name) for c in columns),
        "values": sql.SQL(", ").join(
            sql.SQL("s.{}").format(sql.Identifier(c.name)) for c in columns
        ),
        "same_key": sql.SQL(" AND ").join(same),
        "any_change": sql.SQL(" OR ").join(changes(c) for c in columns),
    }


def changes(column: Column) -> sql.Composed:
    """Say, as a condition on a row `t` and a staged row `s`, that a column would get another value."""
    name = sql.Identifier(column.name)
    if column.wire is not None:
        return sql.SQL("t.{} IS DISTINCT FROM s.{}").format(name, name)
    # Not every type has equality (json has none); its text has.
    return sql.SQL("t.{}::text IS DISTINCT FROM s.{}::text").format(name, name)
