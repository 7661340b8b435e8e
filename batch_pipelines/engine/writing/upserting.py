"""Upsert: staged rows update the rows with their key, or are inserted; what was there is kept first.

Of each row that is overwritten the ledger keeps an image, taken under the lock that holds it until the
end of the transaction. A row that is inserted meanwhile by somebody else meets the key's own index, and
the whole transaction begins anew. Only the columns that a row brings are updated: one statement a column
signature.

A correction takes the place of the batch it supersedes: a row that the earlier one had and this one has
not goes back to its image, or goes if it had none; the images of the others pass on to this batch. Of a
row that both have, the columns that only the earlier one brought go back too.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from psycopg import sql

from batch_pipelines.engine.catalog import STAMP
from batch_pipelines.engine.images import as_json
from batch_pipelines.engine.writing.completing import complete, same_key, signature_of
from batch_pipelines.engine.writing.inserting import signature
from batch_pipelines.engine.writing.superseding import Put, changes, remove_missing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batch_pipelines.engine.catalog import Column
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.writing.staging import Staged

_STAMP = sql.Identifier(STAMP)
_LOCK = sql.SQL("""
SELECT FROM {table} t WHERE EXISTS (SELECT FROM {staged} s WHERE {same_key}) FOR UPDATE
""")
_GROUPS = sql.SQL("SELECT {signature}, count(*) FROM {staged} s GROUP BY 1 ORDER BY 1")
_COUNT = sql.SQL("""
SELECT count(*), count(*) FILTER (WHERE NOT ({any_change})),
       count(*) FILTER (WHERE t.{stamp} = {old} AND i.id IS NULL),
       count(*) FILTER (WHERE t.{stamp} = {old} AND i.id IS NULL AND NOT ({any_change}))
FROM {table} t JOIN {staged} s ON {same_key}
LEFT JOIN batch_audit.row_before_image i
    ON i.batch_id = {old} AND i.target_table = {name} AND i.row_key = {row_key}
""")
# A row that the superseded batch wrote has no image of its own time: its image, if any, is the earlier
# one's, and that is inherited below. One that another batch has overwritten since stays that batch's
# to take back, through the superseded one's image.
_KEEP_IMAGES = sql.SQL("""
INSERT INTO batch_audit.row_before_image (batch_id, target_table, row_key, image, previous_batch_id,
    row_xmin)
SELECT {new}, {name}, {row_key}, {image}, t.{stamp}, t.xmin
FROM {table} t JOIN {staged} s ON {same_key} WHERE (t.{stamp} = {old}) IS NOT TRUE
""")
_INHERIT_IMAGES = sql.SQL("""
UPDATE batch_audit.row_before_image i SET batch_id = {new}
FROM {staged} s JOIN {table} t ON {same_key}
WHERE i.batch_id = {old} AND i.target_table = {name} AND i.row_key = {row_key_s} AND t.{stamp} = {old}
""")
_RESTORE = sql.SQL("""
UPDATE {table} t SET {restored}, {stamp} = i.previous_batch_id
FROM batch_audit.row_before_image i
WHERE i.batch_id = {old} AND i.target_table = {name} AND i.row_key = {row_key} AND t.{stamp} = {old}
""")
_UPDATE = sql.SQL("""
UPDATE {table} t SET {assignments}{stamp} = {new} FROM {staged} s WHERE {same_key} AND {chosen}
""")
_ANOTHERS = sql.SQL("{signature} = {number} AND (t.{stamp} = {old}) IS NOT TRUE")
_ITS_OWN = sql.SQL("t.{stamp} = {old}")
_INSERT = sql.SQL("""
INSERT INTO {table} ({names}, {stamp})
SELECT {values}, {new} FROM {staged} s {after}
WHERE NOT EXISTS (SELECT FROM {table} t WHERE {same_key})
""")
# Rows of a table that refers to itself may be updated to refer to rows that are inserted; PostgreSQL
# looks at foreign keys at the end of a statement. The updates come first, because they are counted: a
# row that is inserted may have a unique value that they give up.
_AT_ONCE = sql.SQL("WITH {updates} {insert}")
_ONE = sql.SQL("{name} AS ({update} RETURNING 1)")
_AFTER = sql.SQL("CROSS JOIN (SELECT {counts}) AS updated")
_COUNT_ONE = sql.SQL("(SELECT count(*) FROM {}) AS {}")


def put_upserted(
    connection: Connection,
    staged: Staged,
    key: Sequence[str],
    batch_id: str,
    superseded: str | None,
    replaced: frozenset[str],
) -> Put:
    """Bring staged rows into their table by key; called inside the publish transaction.

    Args:
        connection: The publishing connection.
        staged: The staged rows, judged; no two of them have the same key.
        key: Columns of the key.
        batch_id: The stamp.
        superseded: Id of the batch that is replaced, or None.
        replaced: The columns that batch brought.

    Returns:
        What happened.

    Raises:
        PublishError: Rows of the superseded batch that have to go are referred to from elsewhere.
    """
    back = [column for column in staged.extra if column.name in replaced]
    parts = _parts(staged, key, batch_id, superseded, back)
    connection.execute(_LOCK.format(**parts))
    # Once more, now that the rows stay what they are.
    complete(connection, staged, key, superseded, replaced)
    row = connection.execute(_COUNT.format(**parts)).fetchone() or (0, 0, 0, 0)
    matched, equal, own, own_equal = (int(value) for value in row)
    connection.execute(_KEEP_IMAGES.format(**parts))
    removed = 0
    if superseded is not None:
        connection.execute(_INHERIT_IMAGES.format(**parts))
    groups = connection.execute(_GROUPS.format(**parts)).fetchall()
    updates = [_update(staged, key, parts, number) for number, _ in groups]
    if superseded is not None:
        # What the superseded batch wrote is written anew as a whole.
        every = [c.name for c in (*staged.source.columns, *back) if c.name not in key]
        chosen = _ITS_OWN.format(**parts)
        updates.append(_UPDATE.format(**parts, assignments=_assignments(every), chosen=chosen))
    inserted, seconds = _write(connection, staged, updates, parts)
    # The statements for all of them together are told of the first.
    together = len(updates) - len(groups) + 1
    signatures = tuple(
        signature(
            staged.source, 2 * number, rows, bulk=True,
            statements=1 if place else 1 + together, seconds=seconds[place],
        )
        for place, (number, rows) in enumerate(groups)
    )  # fmt: skip
    if superseded is not None:
        connection.execute(_RESTORE.format(**parts))
        removed = remove_missing(connection, staged.source.table, superseded)
    # Rows that the superseded batch had inserted count as inserted by this one.
    kept = matched - own
    unchanged = equal - own_equal
    return Put(matched + inserted, kept - unchanged, unchanged, removed, signatures)


def _update(staged: Staged, key: Sequence[str], parts: dict[str, Any], number: int) -> sql.Composed:
    """Write the update of rows of one column signature, in the columns that theirs bring."""
    source = staged.source
    absent = source.signatures[number]
    brought = [c.name for c in source.columns if c.name not in absent and c.name not in key]
    chosen = _ANOTHERS.format(**parts, number=sql.Literal(number))
    return _UPDATE.format(**parts, assignments=_assignments(brought), chosen=chosen)


def _write(
    connection: Connection, staged: Staged, updates: Sequence[sql.Composed], parts: dict[str, Any]
) -> tuple[int, list[float]]:
    """Update, then insert; return how many rows were inserted, and the seconds of each update."""
    table, seconds = staged.source.table, []
    if updates and any(foreign.parent_oid == table.oid for foreign in table.parents):
        began = time.perf_counter()
        inserted = connection.execute(_at_once(updates, parts)).rowcount
        return inserted, [time.perf_counter() - began, *([0.0] * len(updates))]
    for update in updates:
        began = time.perf_counter()
        connection.execute(update)
        seconds.append(time.perf_counter() - began)
    return connection.execute(_INSERT.format(**parts, after=sql.SQL(""))).rowcount, seconds


def _at_once(updates: Sequence[sql.Composed], parts: dict[str, Any]) -> sql.Composed:
    names = [sql.Identifier(f"updated_{number}") for number, _ in enumerate(updates)]
    counts = sql.SQL(", ").join(_COUNT_ONE.format(name, name) for name in names)
    ones = (_ONE.format(name=n, update=u) for n, u in zip(names, updates, strict=True))
    insert = _INSERT.format(**parts, after=_AFTER.format(counts=counts))
    return _AT_ONCE.format(updates=sql.SQL(", ").join(ones), insert=insert)


def _assignments(names: Sequence[str]) -> sql.Composable:
    assigned = [sql.SQL("{0} = s.{0}, ").format(sql.Identifier(name)) for name in names]
    return sql.SQL("").join(assigned)


def _parts(
    staged: Staged,
    key: Sequence[str],
    batch_id: str,
    superseded: str | None,
    back: Sequence[Column],
) -> dict[str, Any]:
    table, columns = staged.source.table, staged.source.columns
    names = [sql.Identifier(column.name) for column in columns]
    stored = [column for column in table.columns if not column.computed]
    return {
        "table": table.identifier,
        "name": sql.Literal(table.full_name),
        "staged": staged.name,
        "stamp": _STAMP,
        "new": sql.Literal(batch_id),
        "old": sql.SQL("{}::uuid").format(sql.Literal(superseded)),
        "same_key": same_key(key),
        "signature": signature_of(staged),
        "row_key": as_json("t", key),
        "row_key_s": as_json("s", key),
        "image": as_json("t", [column.name for column in stored]),
        "restored": sql.SQL(", ").join(
            sql.SQL("{0} = (i.image ->> {1})::{2}").format(
                sql.Identifier(c.name), sql.Literal(c.name), sql.SQL(c.type_name)
            )
            for c in stored
        ),
        "names": sql.SQL(", ").join(names),
        "values": sql.SQL(", ").join(sql.SQL("s.{}").format(name) for name in names),
        "any_change": sql.SQL(" OR ").join(changes(c) for c in (*columns, *back)),
    }
