"""Which rows of a batch somebody has changed by hand since, under the batch's stamp.

A row whose xmin is one of the batch's own transactions is as it was written: that is looked at first and
costs nothing. Another xmin proves nothing, for savepoints, ALTER TABLE and restores change it too. Then
the digest of all the batch's rows is compared with the recorded one; and only where that differs, row by
row what the Parquet of row digests says. What cannot be told from touched rows counts as touched.

Rows that a later batch has overwritten are the batch's too: they stand in that one's before-images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg import sql

from batch_pipelines.engine.digests import RowDigest
from batch_pipelines.engine.images import value
from batch_pipelines.engine.ledger import rollbacks
from batch_pipelines.engine.rollback.recorded import recorded_digests
from batch_pipelines.engine.rollback.targets import STAMP_NAME, uuid
from batch_pipelines.engine.writing.keeping import whole_digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batch_pipelines.engine.ledger.proofs import TableBalance
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.rollback.targets import Target
    from batch_pipelines.engine.settings import Settings

TOUCHED = sql.Identifier("pg_temp", "batch_pipelines_touched")
"""Temporary table of rows that somebody has touched: where they stand, in a table or an image."""
_CREATE = """
CREATE TEMPORARY TABLE IF NOT EXISTS batch_pipelines_touched (
    number bigint GENERATED ALWAYS AS IDENTITY, target text, relation oid, place tid, image bigint
) ON COMMIT DROP
"""
_FORGET = sql.SQL("DELETE FROM {touched} WHERE target = {name}")
_COUNT = sql.SQL("""
SELECT count(*), count(*) FILTER (WHERE NOT ({own})) FROM {table} t WHERE t.{stamp} = {batch}
""")
_OWN = sql.SQL("t.xmin = ANY({xids}::xid[])")
_OWN_IMAGE = sql.SQL("coalesce(i.row_xmin = ANY({xids}::xid[]), false)")
# An image of the batch's row under which the row itself is not the batch's any more.
OVERWRITTEN = sql.SQL("""
i.previous_batch_id = {batch} AND i.target_table = {name} AND NOT EXISTS (
    SELECT FROM {table} t WHERE {later_key} = i.row_key AND t.{stamp} = {batch})
""")
_COUNT_IMAGES = sql.SQL("""
SELECT count(*), count(*) FILTER (WHERE NOT ({own}))
FROM batch_audit.row_before_image i WHERE {overwritten}
""")
_SUSPECT_ROWS = sql.SQL("""
INSERT INTO {touched} (target, relation, place)
SELECT {name}, t.tableoid, t.ctid FROM {table} t WHERE t.{stamp} = {batch} AND NOT ({own})
""")
_SUSPECT_IMAGES = sql.SQL("""
INSERT INTO {touched} (target, image)
SELECT {name}, i.id FROM batch_audit.row_before_image i WHERE {overwritten} AND NOT ({own})
""")
_ALL_ROWS = sql.SQL("""
(SELECT {columns} FROM {table} t WHERE t.{stamp} = {batch}
 UNION ALL
 SELECT {values} FROM batch_audit.row_before_image i WHERE {overwritten}) AS written
""")
_READ_ROWS = sql.SQL("""
SELECT x.number, record_send(ROW({sent})) {keys}
FROM {touched} x JOIN {table} t ON t.tableoid = x.relation AND t.ctid = x.place
WHERE x.target = {name} AND x.number > {after} ORDER BY x.number LIMIT {limit}
""")
_READ_IMAGES = sql.SQL("""
SELECT x.number, record_send(ROW({sent})) {keys}
FROM {touched} x JOIN batch_audit.row_before_image i ON i.id = x.image
WHERE x.target = {name} AND x.number > {after} ORDER BY x.number LIMIT {limit}
""")
_CLEAR = sql.SQL("DELETE FROM {touched} WHERE number = ANY({numbers}::bigint[])")
_COUNT_TOUCHED = sql.SQL("""
SELECT count(*) FILTER (WHERE image IS NULL), count(*) FILTER (WHERE image IS NOT NULL)
FROM {touched} WHERE target = {name}
""")
# Rows compared at a time: a row's wire format is a few hundred bytes.
_AT_ONCE = 50_000


@dataclass(frozen=True)
class Found:
    """A batch's rows in one table.

    Attributes:
        rows: Those that stand in the table.
        overwritten: Those that a later batch has overwritten.
        touched: Of the first, those that somebody has changed.
        touched_images: Of the second.
    """

    rows: int
    overwritten: int
    touched: int
    touched_images: int


def find_touched(
    connection: Connection, settings: Settings, target: Target, *, trusted: bool = False
) -> Found:
    """Find the rows that somebody has touched; they stand in `TOUCHED` afterwards.

    Args:
        connection: A connection inside a transaction.
        settings: Says where row digests are.
        target: The batch's table.
        trusted: Whether those that were touched have been let go already; what is left is not looked at
            again, as the digest of all rows would not be the recorded one any more.

    Returns:
        How many there are.
    """
    connection.execute(_CREATE)
    parts = target.parts() | {"touched": TOUCHED}
    connection.execute(_FORGET.format(**parts))
    parts["xids"] = sql.Literal(rollbacks.xids(connection, target.batch_id))
    own, own_image = _OWN.format(**parts), _OWN_IMAGE.format(**parts)
    parts["overwritten"] = OVERWRITTEN.format(**parts)
    rows, strange = _pair(connection, _COUNT.format(**parts, own=own))
    overwritten = strange_images = 0
    if target.later_key:
        counted = _COUNT_IMAGES.format(**parts, own=own_image)
        overwritten, strange_images = _pair(connection, counted)
    if trusted or target.recorded is None or not (strange or strange_images):
        return Found(rows, overwritten, 0, 0)
    whole = rollbacks.whole(connection, target.batch_id, target.name)
    if _is_as_recorded(connection, target, target.recorded, whole, parts):
        return Found(rows, overwritten, 0, 0)
    connection.execute(_SUSPECT_ROWS.format(**parts, own=own))
    if strange_images:
        connection.execute(_SUSPECT_IMAGES.format(**parts, own=own_image))
    if whole is None:
        # All columns came from the source: a row's own digest tells everything.
        _clear_unchanged(connection, settings, target, target.recorded.columns, parts)
    return Found(rows, overwritten, *_pair(connection, _COUNT_TOUCHED.format(**parts)))


def _is_as_recorded(
    connection: Connection,
    target: Target,
    recorded: TableBalance,
    whole: rollbacks.WholeDigest | None,
    parts: dict[str, sql.Composable],
) -> bool:
    if whole is None:
        rows = recorded.inserted + recorded.updated + recorded.unchanged
        names = recorded.columns
        expected = RowDigest(rows, recorded.digest_sum, recorded.digest_moment)
    else:
        names, expected = whole.columns, whole.digest
    present = {column.name for column in target.table.columns}
    if not names or not set(names) <= present:
        return False
    columns = [target.table.column(name) for name in names]
    listed = sql.SQL(", ").join(sql.SQL("t.{}").format(sql.Identifier(n)) for n in names)
    values = sql.SQL(", ").join(value(sql.SQL("i.image"), column) for column in columns)
    if target.later_key:
        written = _ALL_ROWS.format(**parts | {"columns": listed, "values": values})
        where: sql.Composable = sql.SQL("true")
    else:
        written = sql.SQL("{} t").format(target.table.identifier)
        where = sql.SQL("t.{} = {}").format(STAMP_NAME, uuid(target.batch_id))
    found: RowDigest = whole_digest(connection, target.table, names, written, where)
    return found == expected


def _clear_unchanged(
    connection: Connection,
    settings: Settings,
    target: Target,
    names: Sequence[str],
    parts: dict[str, sql.Composable],
) -> None:
    """Take the rows out of `TOUCHED` whose own digest is the recorded one."""
    with recorded_digests(connection, settings, target.batch_id, target.name) as recorded:
        if recorded is None or not set(names) | set(recorded.key) <= {
            column.name for column in target.table.columns
        }:
            return
        for query, write in ((_READ_ROWS, _of_row), (_READ_IMAGES, _of_image)):
            after = 0
            while True:
                asked = query.format(
                    **parts
                    | {
                        "sent": sql.SQL(", ").join(write(target, name) for name in names),
                        "keys": sql.SQL("").join(
                            sql.SQL(", {}").format(write(target, name)) for name in recorded.key
                        ),
                        "after": sql.Literal(after),
                        "limit": sql.Literal(_AT_ONCE),
                    }
                )
                rows: Sequence[tuple[Any, ...]] = connection.execute(asked).fetchall()
                if not rows:
                    break
                after = rows[-1][0]
                good = recorded.unchanged([row[2:] for row in rows], [row[1] for row in rows])
                numbers = [rows[place][0] for place in good]
                connection.execute(_CLEAR.format(touched=TOUCHED, numbers=sql.Literal(numbers)))


def _of_row(target: Target, name: str) -> sql.Composed:
    return sql.SQL("t.{}").format(sql.Identifier(target.table.column(name).name))


def _of_image(target: Target, name: str) -> sql.Composed:
    return value(sql.SQL("i.image"), target.table.column(name))


def _pair(connection: Connection, query: sql.Composed) -> tuple[int, int]:
    ((first, second),) = connection.execute(query).fetchall()
    return int(first), int(second)
