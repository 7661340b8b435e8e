"""Undoing one batch whose way is free: rows go, come back as they were, or come back altogether.

The order keeps foreign keys and unique values whole at each step: rows that go and are referred to by
nobody first, children before parents; then what comes back, parents before children; at last the rows
that go and were still referred to. Tables that refer to each other in a circle lose theirs by one
statement, at the end of which PostgreSQL looks at foreign keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg import sql

from batch_pipelines.engine.catalog import has_cycle
from batch_pipelines.engine.errors import RollbackError
from batch_pipelines.engine.ledger.rollbacks import TableRollback
from batch_pipelines.engine.rollback.chains import relink, settle, take_over_superseded
from batch_pipelines.engine.rollback.targets import joined

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.rollback.targets import Target

_DELETE = sql.SQL("DELETE FROM {table} t WHERE {going}")
_DELETE_FREE = sql.SQL("DELETE FROM {table} t WHERE {going} AND NOT ({referred})")
_DELETE_OWNED = sql.SQL("DELETE FROM {child} c WHERE {owned}")
_REFERRED = sql.SQL("EXISTS (SELECT FROM {child} c WHERE {same})")
_AT_ONCE = sql.SQL("WITH {parts} SELECT {counts}")
_ONE = sql.SQL("{name} AS (DELETE FROM {table} t WHERE {going} RETURNING 1)")
# Rows that this batch left out and that went back, when it superseded, to what they had been before:
# they become the superseded batch's again. That nobody has touched them was checked.
_RETURN = sql.SQL("""
WITH back AS (
    UPDATE {table} t SET {assignments}, {stamp} = i.previous_batch_id
    FROM batch_audit.superseded_row i
    WHERE i.batch_id = {batch} AND i.target_table = {name} AND i.row_key = {key}
      AND t.{stamp} IS DISTINCT FROM {batch} AND {good}
      AND NOT EXISTS (SELECT FROM batch_audit.row_before_image l
          WHERE l.previous_batch_id = {batch} AND l.target_table = {name}
            AND {key_in_later} = i.row_key)
    RETURNING i.id)
DELETE FROM batch_audit.superseded_row s USING back WHERE s.id = back.id
""")
_IS_GOOD = sql.SQL("""
(i.previous_batch_id IS NULL OR EXISTS (SELECT FROM batch_audit.import_history h
    WHERE h.batch_id = i.previous_batch_id AND i.row_xmin = ANY(h.published_xids::xid[])))
""")
_IS_STRANGE = sql.SQL("NOT {good}")
_ANY_STRANGE = sql.SQL("""
SELECT EXISTS (SELECT FROM {kept} i
               WHERE i.batch_id = {batch} AND i.target_table = {name} AND NOT {good})
""")
_RESTORE = sql.SQL("""
UPDATE {table} t SET {assignments}, {stamp} = i.previous_batch_id
FROM batch_audit.row_before_image i
WHERE i.batch_id = {batch} AND i.target_table = {name} AND i.row_key = {key} AND t.{stamp} = {batch}
  AND {good}
""")
_TAKE_AWAY = sql.SQL("""
DELETE FROM {table} t USING batch_audit.row_before_image i
WHERE i.batch_id = {batch} AND i.target_table = {name} AND i.row_key = {key} AND t.{stamp} = {batch}
  AND ({moved}) AND NOT ({referred})
""")
_INSERT = sql.SQL("""
INSERT INTO {table} ({columns}, {stamp}) {overriding}
SELECT {values}, i.previous_batch_id FROM {kept} i
WHERE i.batch_id = {batch} AND i.target_table = {name} AND {good}
  AND NOT EXISTS (SELECT FROM {table} t WHERE {key} = i.row_key)
""")
# What comes back is as the earlier batch had written it: a look at xmin tells so in future.
_VOUCH = sql.SQL("""
UPDATE batch_audit.import_history SET published_xids = published_xids || pg_current_xact_id()
WHERE batch_id IN (SELECT DISTINCT i.previous_batch_id FROM {kept} i
                   WHERE i.batch_id = {batch} AND i.target_table = {name} AND {good})
  AND NOT pg_current_xact_id() = ANY(published_xids)
""")
_COUNT_IMAGES = sql.SQL("""
SELECT count(*) FILTER (WHERE (previous_batch_id = {old}::uuid) IS NOT TRUE),
       count(*) FILTER (WHERE previous_batch_id = {old}::uuid)
FROM batch_audit.row_before_image WHERE batch_id = {batch} AND target_table = {name}
""")
# A trigger may have had a word when the rows came back.
_DIFFERING = sql.SQL("""
SELECT count(*) FROM batch_audit.row_before_image i LEFT JOIN {table} t ON {key} = i.row_key
WHERE i.batch_id = {batch} AND i.target_table = {name} AND {row_image} IS DISTINCT FROM {image_part}
""")
_LEFT = sql.SQL("SELECT count(*) FROM {table} t WHERE t.{stamp} = {batch}")
_FORGET_IMAGES = sql.SQL("""
DELETE FROM batch_audit.row_before_image WHERE batch_id = {batch} AND target_table = {name}
""")
_FORGET_SUPERSEDED = sql.SQL("""
DELETE FROM batch_audit.superseded_row WHERE batch_id = {batch} AND target_table = {name}
""")
_IMAGES = sql.SQL("batch_audit.row_before_image")
_SUPERSEDED = sql.SQL("batch_audit.superseded_row")


@dataclass
class _Counts:
    deleted: int = 0
    restored: int = 0
    reinstated: int = 0
    owned: int = 0
    differing: int = 0


def undo(
    connection: Connection,
    targets: Sequence[Target],
    kept: Mapping[str, int],
    old: str | None,
) -> tuple[TableRollback, ...]:
    """Take the rows of a batch back.

    Args:
        connection: A connection inside a transaction that holds the tables' locks; a look just taken has
            found nothing in the way.
        targets: The batch's tables, parents first.
        kept: Rows of each table that stay; they have lost the stamp by now.
        old: Id of the batch that it superseded, or None.

    Returns:
        What was done in each table.

    Raises:
        RollbackError: Rows of the batch are left, which is a defect.
        psycopg.Error: PostgreSQL refused something.
    """
    done = {target.name: _Counts() for target in targets}
    for target in targets:
        _prepare(connection, target, done[target.name], old)
    for target in reversed(targets):
        for own in target.owned:
            query = _DELETE_OWNED.format(
                child=sql.Identifier(*own.child), owned=target.owned_rows(own, "c")
            )
            done[target.name].owned += connection.execute(query).rowcount
    if has_cycle(target.table for target in targets):
        # Also where rows come back: those that are referred to then would have to wait.
        _delete_at_once(connection, targets, done)
    else:
        _delete_free(connection, targets, done)
    for target in targets:
        _bring_back(connection, target, done[target.name])
    for target in reversed(targets):
        if not target.is_plain:
            done[target.name].deleted += _delete(connection, target)
    for target in targets:
        _finish(connection, target)
    return tuple(
        TableRollback(
            name, c.deleted, c.restored, c.reinstated, c.owned, kept.get(name, 0), c.differing
        )
        for name, c in done.items()
    )


def _prepare(connection: Connection, target: Target, counts: _Counts, old: str | None) -> None:
    """Settle what the rows go back to, which the batch's images hold afterwards."""
    settle(connection, target)
    if target.has_superseded and target.key:
        counts.reinstated += _twice(connection, _RETURN, target.parts(), _SUPERSEDED)
        take_over_superseded(connection, target)
    relink(connection, target)
    query = _COUNT_IMAGES.format(**target.parts(), old=sql.Literal(old))
    ((restored, reinstated),) = connection.execute(query).fetchall()
    counts.restored += int(restored)
    counts.reinstated += int(reinstated)


def _delete_free(
    connection: Connection, targets: Sequence[Target], done: dict[str, _Counts]
) -> None:
    """Delete the rows that go and that nobody refers to, children first."""
    coming_back = any(not target.is_plain for target in targets)
    for target in reversed(targets):
        parts = target.parts()
        if coming_back and target.table.children:
            query = _DELETE_FREE.format(**parts, referred=_referred(target))
        else:
            query = _DELETE.format(**parts)
        done[target.name].deleted += connection.execute(query).rowcount


def _delete_at_once(
    connection: Connection, targets: Sequence[Target], done: dict[str, _Counts]
) -> None:
    names = [sql.Identifier(f"gone_{number}") for number, _ in enumerate(targets)]
    query = _AT_ONCE.format(
        parts=sql.SQL(", ").join(
            _ONE.format(**target.parts() | {"name": name, "going": target.going("t")})
            for name, target in zip(names, targets, strict=True)
        ),
        counts=sql.SQL(", ").join(sql.SQL("(SELECT count(*) FROM {})").format(n) for n in names),
    )
    (row,) = connection.execute(query).fetchall()
    for target, rows in zip(targets, row, strict=True):
        done[target.name].deleted += int(rows)


def _bring_back(connection: Connection, target: Target, counts: _Counts) -> None:
    if target.is_plain:
        return
    parts = target.parts()
    if not target.key:
        # Nothing tells its rows apart, and nothing refers to them: all are gone by now.
        counts.reinstated += _twice(
            connection, _INSERT, parts | {"key": sql.SQL("NULL::jsonb")}, _SUPERSEDED
        )
        return
    unique = {n for k in target.table.unique_keys for n in k.columns} - set(target.key)
    moved = [c for c in target.kept_columns if c.name in unique and not c.computed]
    if moved:
        # A value that must be unique may go from one row to another.
        changed = sql.SQL(" OR ").join(
            sql.SQL("t.{}::text IS DISTINCT FROM i.image ->> {}").format(
                sql.Identifier(column.name), sql.Literal(column.name)
            )
            for column in moved
        )
        query = _TAKE_AWAY.format(**parts, moved=changed, referred=_referred(target))
        connection.execute(query)
    _twice(connection, _INSERT, parts, _IMAGES)
    _twice(connection, _RESTORE, parts, _IMAGES)
    row = connection.execute(_DIFFERING.format(**parts)).fetchone()
    counts.differing = int(row[0]) if row else 0


def _twice(
    connection: Connection,
    statement: sql.SQL,
    parts: Mapping[str, sql.Composable],
    kept: sql.SQL,
) -> int:
    """Bring rows back: those that somebody had touched in a subtransaction, with an xmin of its own."""
    parts = {**parts, "kept": kept}
    asked = _ANY_STRANGE.format(**parts, good=_IS_GOOD)
    rows = 0
    if connection.execute(asked).fetchone() == (True,):
        with connection.transaction():
            strange = _IS_STRANGE.format(good=_IS_GOOD)
            rows += connection.execute(statement.format(**parts, good=strange)).rowcount
    connection.execute(_VOUCH.format(**parts, good=_IS_GOOD))
    return rows + connection.execute(statement.format(**parts, good=_IS_GOOD)).rowcount


def _finish(connection: Connection, target: Target) -> None:
    parts = target.parts()
    connection.execute(_FORGET_IMAGES.format(**parts))
    connection.execute(_FORGET_SUPERSEDED.format(**parts))
    if target.is_plain:
        return  # one DELETE by the stamp took all
    row = connection.execute(_LEFT.format(**parts)).fetchone()
    if row is not None and row[0]:
        message = (
            f"{target.name}: {row[0]} rows of batch {target.batch_id} would be left; nothing was "
            "changed. Report it as a defect."
        )
        raise RollbackError(message)


def _delete(connection: Connection, target: Target) -> int:
    return connection.execute(_DELETE.format(**target.parts())).rowcount


def _referred(target: Target) -> sql.Composable:
    if not target.table.children:
        return sql.SQL("false")
    return sql.SQL(" OR ").join(
        _REFERRED.format(child=sql.Identifier(*key.child), same=joined(key, "c", "t"))
        for key in target.table.children
    )
