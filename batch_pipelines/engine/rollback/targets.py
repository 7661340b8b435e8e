"""A batch's tables, what the ledger keeps of their rows, and the conditions that rollback's SQL shares.

In all statements `t` is a row of the target table, `i` a before-image and `s` a superseded row.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from psycopg import sql

from batch_pipelines.engine.catalog import STAMP, is_stamped, parents_first, read_table
from batch_pipelines.engine.images import as_json, part, value
from batch_pipelines.engine.ledger import proofs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batch_pipelines.engine.catalog import Column, ForeignKey, TableInfo
    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.ledger.proofs import TableBalance
    from batch_pipelines.engine.postgres.database import Connection

STAMP_NAME = sql.Identifier(STAMP)

_KEY = """
SELECT array(SELECT jsonb_object_keys(row_key)) FROM (
    (SELECT row_key FROM batch_audit.row_before_image
     WHERE batch_id = %(batch)s AND target_table = %(table)s LIMIT 1)
    UNION ALL
    (SELECT row_key FROM batch_audit.superseded_row
     WHERE batch_id = %(batch)s AND target_table = %(table)s AND row_key IS NOT NULL LIMIT 1)
) AS kept LIMIT 1
"""
_LATER_KEY = """
SELECT array(SELECT jsonb_object_keys(row_key)) FROM batch_audit.row_before_image
WHERE previous_batch_id = %(batch)s AND target_table = %(table)s LIMIT 1
"""
_HAS = """
SELECT EXISTS (SELECT FROM batch_audit.row_before_image
               WHERE batch_id = %(batch)s AND target_table = %(table)s),
       EXISTS (SELECT FROM batch_audit.superseded_row
               WHERE batch_id = %(batch)s AND target_table = %(table)s)
"""
_IMAGE_COLUMNS = """
SELECT array(SELECT jsonb_object_keys(image)) FROM (
    (SELECT image, 1 AS place FROM batch_audit.superseded_row
     WHERE batch_id = %(batch)s AND target_table = %(table)s LIMIT 1)
    UNION ALL
    (SELECT image, 2 FROM batch_audit.row_before_image
     WHERE batch_id = %(batch)s AND target_table = %(table)s LIMIT 1)
) AS kept ORDER BY place LIMIT 1
"""
# A batch that was adopted from another system's history has its rows, and no word of ours about them.
_STAMPED_TABLES = """
SELECT n.nspname || '.' || c.relname
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND NOT a.attisdropped
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND a.attname = %s
  AND a.atttypid = 'uuid'::regtype AND n.nspname NOT LIKE 'pg\\_%%' ORDER BY 1
"""
_ANY_STAMPED = sql.SQL("SELECT EXISTS (SELECT FROM {table} WHERE {stamp} = {batch})")
# Whether the row is one that the batch made: it goes. One with an image comes back as that.
_GOING = sql.SQL("""
{row}.{stamp} = {batch} AND NOT EXISTS (
    SELECT FROM batch_audit.row_before_image i
    WHERE i.batch_id = {batch} AND i.target_table = {name} AND i.row_key = {key})
AND NOT EXISTS (
    SELECT FROM batch_audit.superseded_row s
    WHERE s.batch_id = {batch} AND s.target_table = {name} AND s.row_key = {key})
""")
_ALL_GOING = sql.SQL("{row}.{stamp} = {batch}")
_OWNED = sql.SQL("EXISTS (SELECT FROM {parent} {alias} WHERE ({going}) AND {same})")


@dataclass(frozen=True)
class Target:
    """A table that a batch has filled.

    Attributes:
        table: What the catalog says of it now.
        batch_id: The batch.
        recorded: What the ledger says that the batch did there; None of one that was adopted.
        key: Columns by which images and superseded rows are found; none where there are none, or the
            table has no key.
        later_key: The same of the images that later batches have of this one's rows.
        kept_columns: Columns that images and superseded rows hold, and the table has still.
        lost_columns: Those that they hold, and the table has no more.
        has_images: Whether rows had been there before.
        has_superseded: Whether rows of the superseded batch are to come back.
        owned: Foreign keys by which rows of other tables are its rows' own.
        server_changed: Columns that the server changes, also in rows that come back.
    """

    table: TableInfo
    batch_id: str
    recorded: TableBalance | None
    key: tuple[str, ...]
    later_key: tuple[str, ...]
    kept_columns: tuple[Column, ...]
    lost_columns: tuple[str, ...]
    has_images: bool
    has_superseded: bool
    owned: tuple[ForeignKey, ...] = field(default=())
    server_changed: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """Schema and name."""
        return self.table.full_name

    @property
    def is_plain(self) -> bool:
        """Whether all of the batch's rows go, and nothing comes back."""
        return not self.has_images and not self.has_superseded

    def parts(self) -> dict[str, sql.Composable]:
        """Give what statements are filled with."""
        image = sql.SQL("i.image")
        compared = [
            column.name
            for column in self.kept_columns
            if not column.computed and column.name not in self.server_changed
        ]
        key = as_json("t", self.key) if self.key else sql.SQL("NULL::jsonb")
        return {
            "table": self.table.identifier,
            "name": sql.Literal(self.name),
            "stamp": STAMP_NAME,
            "batch": uuid(self.batch_id),
            "key": key,
            "later_key": as_json("t", self.later_key) if self.later_key else sql.SQL("NULL::jsonb"),
            "key_of_image": part(image, self.key) if self.key else sql.SQL("NULL::jsonb"),
            "key_in_later": part(sql.SQL("l.image"), self.key)
            if self.key
            else sql.SQL("NULL::jsonb"),
            "going": self.going("t"),
            "columns": sql.SQL(", ").join(sql.Identifier(c.name) for c in self.kept_columns),
            "values": sql.SQL(", ").join(value(image, c) for c in self.kept_columns),
            "assignments": sql.SQL(", ").join(
                sql.SQL("{} = {}").format(sql.Identifier(c.name), value(image, c))
                for c in self.kept_columns
                if not c.computed
            ),
            "overriding": sql.SQL(
                "OVERRIDING SYSTEM VALUE" if any(c.computed for c in self.kept_columns) else ""
            ),
            "row_image": as_json("t", compared),
            "image_part": part(image, compared),
        }

    def going(self, row: str) -> sql.Composed:
        """Say, as a condition on a row, that it goes.

        Args:
            row: The row's alias.
        """
        condition = _ALL_GOING if self.is_plain or not self.key else _GOING
        return condition.format(
            row=sql.SQL(row),
            stamp=STAMP_NAME,
            batch=uuid(self.batch_id),
            name=sql.Literal(self.name),
            key=as_json(row, self.key) if self.key else sql.SQL("NULL::jsonb"),
        )

    def owned_rows(self, own: ForeignKey, row: str) -> sql.Composed:
        """Say, as a condition on a row of an owned table, that its parent goes."""
        return _OWNED.format(
            parent=self.table.identifier, alias=sql.SQL("owner"), going=self.going("owner"),
            same=joined(own, row, "owner"),
        )  # fmt: skip


def tables_of(connection: Connection, batch_id: str) -> dict[str, TableBalance | None]:
    """List the tables that a batch has filled, by name, and what the ledger says of each.

    Args:
        connection: A connection.
        batch_id: The batch; of one that was adopted all tables with a stamp are looked at.
    """
    recorded: dict[str, TableBalance | None] = {
        balance.target_table: balance for balance in proofs.tables(connection, batch_id)
    }
    if recorded:
        return recorded
    return {
        name: None
        for (name,) in connection.execute(_STAMPED_TABLES, (STAMP,)).fetchall()
        if _has_rows(connection, name, batch_id)
    }


def _has_rows(connection: Connection, name: str, batch_id: str) -> bool:
    query = _ANY_STAMPED.format(
        table=sql.Identifier(*name.split(".")), stamp=STAMP_NAME, batch=uuid(batch_id)
    )
    return connection.execute(query).fetchone() == (True,)


def targets_of(
    connection: Connection, batch_id: str, feed: Feed | None
) -> tuple[tuple[Target, ...], tuple[str, ...]]:
    """Read the tables that a batch has filled.

    Args:
        connection: A connection.
        batch_id: The batch.
        feed: Its feed, which declares what is owned; None where its file is gone.

    Returns:
        The targets, parents first, and the names of tables that are no longer there.
    """
    found: dict[str, Target] = {}
    gone = []
    for name, recorded in tables_of(connection, batch_id).items():
        if not is_stamped(connection, name):
            gone.append(name)
            continue
        table = read_table(connection, None, name)
        found[table.full_name] = _target(connection, batch_id, table, recorded, feed)
    ordered = parents_first([target.table for target in found.values()])
    return tuple(found[table.full_name] for table in ordered), tuple(gone)


def joined(key: ForeignKey, child: str, parent: str) -> sql.Composed:
    """Say, as a condition, that a row refers to another.

    Args:
        key: The foreign key.
        child: Alias of the one.
        parent: Alias of the other.
    """
    return sql.SQL(" AND ").join(
        sql.SQL("{}.{} = {}.{}").format(
            sql.SQL(child), sql.Identifier(c), sql.SQL(parent), sql.Identifier(p)
        )
        for c, p in zip(key.child_columns, key.parent_columns, strict=True)
    )


def uuid(batch_id: str) -> sql.Composed:
    """Write a batch id as SQL."""
    return sql.SQL("{}::uuid").format(sql.Literal(batch_id))


def _target(
    connection: Connection,
    batch_id: str,
    table: TableInfo,
    recorded: TableBalance | None,
    feed: Feed | None,
) -> Target:
    wanted = {"batch": batch_id, "table": table.full_name}
    ((has_images, has_superseded),) = connection.execute(_HAS, wanted).fetchall()
    kept = set(_names(connection, _IMAGE_COLUMNS, wanted))
    owned = _owned_names(feed, table.full_name)
    return Target(
        table=table,
        batch_id=batch_id,
        recorded=recorded,
        key=_names(connection, _KEY, wanted),
        later_key=_names(connection, _LATER_KEY, wanted),
        kept_columns=tuple(c for c in table.columns if c.name in kept and not c.generated),
        lost_columns=tuple(sorted(kept - {STAMP} - {c.name for c in table.columns})),
        has_images=has_images,
        has_superseded=has_superseded,
        owned=tuple(key for key in table.children if ".".join(key.child) in owned),
        server_changed=_server_changed(feed, table.full_name).union(
            () if recorded is None else recorded.server_changed
        ),
    )


def _server_changed(feed: Feed | None, full_name: str) -> frozenset[str]:
    tables = () if feed is None else feed.tables
    return frozenset(n for t in tables if t.table == full_name for n in t.server_changed)


def _owned_names(feed: Feed | None, full_name: str) -> frozenset[str]:
    tables = () if feed is None else feed.tables
    return frozenset(
        child for table in tables if table.table == full_name for child in table.owned_children
    )


def _names(connection: Connection, query: str, wanted: Mapping[str, str]) -> tuple[str, ...]:
    row = connection.execute(query, wanted).fetchone()
    return () if row is None else tuple(row[0])
