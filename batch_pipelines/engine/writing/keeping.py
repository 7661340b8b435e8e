"""What a publish keeps, in its own transaction, so that it can be taken back exactly.

- The rows of the batch that it supersedes, as they are just before: they come back with it.
- A digest over all columns, where it brought only some: without it a later change by hand of the
  others would be lost with the batch.
- Until when it can be rolled back.

What an upsert overwrites is kept where it is overwritten, in `upserting`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import sql

from batch_pipelines.engine.catalog import STAMP
from batch_pipelines.engine.digests.sql import table_digest
from batch_pipelines.engine.images import as_json
from batch_pipelines.engine.ledger import proofs, rollbacks
from batch_pipelines.engine.retention import holds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batch_pipelines.engine.catalog import TableInfo
    from batch_pipelines.engine.digests import RowDigest
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.writing.publication import Publication

_STAMP = sql.Identifier(STAMP)
_KEEP = sql.SQL("""
INSERT INTO batch_audit.superseded_row (batch_id, target_table, row_key, image, previous_batch_id,
    row_xmin)
SELECT {new}, {name}, {key}, {image}, {old}, t.xmin FROM {table} t WHERE t.{stamp} = {old}
""")
_NEW_ROWS = sql.SQL("{stamp} = {batch} AND xmin = pg_current_xact_id()::xid")


def keep_superseded(connection: Connection, publication: Publication) -> None:
    """Keep the rows of the batch that is about to be superseded, if the feed wants so many kept.

    Args:
        connection: The publishing connection, inside its transaction, before the first row.
        publication: What is to be published.
    """
    old = publication.superseded
    if old is None or not publication.is_real:
        return
    written = sum(t.inserted + t.updated + t.unchanged for t in proofs.tables(connection, old))
    # What is held stays on record, however much it is.
    held = bool(holds.over(connection, old))
    kept = held or written <= publication.work.feed.rollback.superseded_rows
    if kept:
        for source in publication.sources:
            key = publication.upsert_key(source) or source.table.primary_key
            _keep(connection, publication, old, source.table, key)
        for table in publication.retired:
            _keep(connection, publication, old, table, table.primary_key)
    rollbacks.record_kept(connection, publication.batch.batch_id, kept=kept)


def record_whole(connection: Connection, publication: Publication) -> None:
    """Digest what the batch's rows hold beside what it brought, and say until when it can go.

    Args:
        connection: The publishing connection, before the end of its transaction.
        publication: What is published.
    """
    batch = publication.batch.batch_id
    new = _NEW_ROWS.format(stamp=_STAMP, batch=sql.Literal(batch))
    for source in publication.sources:
        columns = _stored(source.table)
        if columns != [column.name for column in source.exact]:
            digest = whole_digest(connection, source.table, columns, source.table.identifier, new)
            rollbacks.add_whole(connection, batch, source.table.full_name, columns, digest)
    rollbacks.record_until(connection, batch, publication.work.feed.rollback.days)


def whole_digest(
    connection: Connection,
    table: TableInfo,
    names: Sequence[str],
    rows: sql.Composable,
    where: sql.Composable,
) -> RowDigest:
    """Digest rows over any columns; those outside the closed list of types as text.

    Args:
        connection: A connection.
        table: The table whose columns they are.
        names: The columns, at least one.
        rows: What to read: the table, or a query in brackets with an alias.
        where: Which of its rows.
    """
    columns = [
        each.name
        if each.wire is not None
        else sql.SQL("{}::text").format(sql.Identifier(each.name))
        for each in map(table.column, names)
    ]
    return table_digest(connection, rows, columns, where)


def _keep(
    connection: Connection,
    publication: Publication,
    old: str,
    table: TableInfo,
    key: Sequence[str],
) -> None:
    stored = [column.name for column in table.columns if not column.generated]
    query = _KEEP.format(
        new=sql.SQL("{}::uuid").format(sql.Literal(publication.batch.batch_id)),
        old=sql.SQL("{}::uuid").format(sql.Literal(old)),
        name=sql.Literal(table.full_name),
        key=as_json("t", key) if key else sql.SQL("NULL"),
        image=as_json("t", stored),
        table=table.identifier,
        stamp=_STAMP,
    )
    connection.execute(query)


def _stored(table: TableInfo) -> list[str]:
    return [column.name for column in table.columns if not column.generated]
