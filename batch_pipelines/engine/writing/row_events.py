"""Entries of records: for feeds that must have one each, in the audit trail's detail `row_event`.

Written by one statement a table, from the rows that PostgreSQL has stored, in the transaction that makes
them visible. The chain gets one entry for all of them, with a root over them. No value is kept but who
made a record, as it was delivered: nobody has proven that, and no entry claims it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import sql
from psycopg.rows import scalar_row

from batch_pipelines.engine.catalog import STAMP
from batch_pipelines.engine.errors import FeedError, PublishError
from batch_pipelines.engine.ledger.batch_events import tell

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batch_pipelines.engine.ledger.proofs import TableBalance
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.writing.publication import Publication
    from batch_pipelines.engine.writing.source import TableSource

_RECORD = sql.SQL("""
INSERT INTO batch_audit.row_event (batch_id, target_table, action, principal, key_sha256)
SELECT {batch}, {name}, {action}, {principal}, {key} FROM {table} AS t WHERE t.{stamp} = {batch} {new}
""")
_KEY = sql.SQL("sha256(uuid_send({batch}) || record_send(ROW({columns})))")
_NEW = sql.SQL("AND t.xmin = pg_current_xact_id()::xid")
_ROOT = "SELECT batch_audit.row_event_root(%s)"
# Not by count(DISTINCT), which would sort them all.
_PRINCIPALS = """
SELECT count(*) FROM (
    SELECT FROM batch_audit.row_event WHERE batch_id = %s AND principal IS NOT NULL GROUP BY principal
) AS p
"""


def require_principals(publication: Publication) -> None:
    """See that a delivery brings the columns that say who made its records.

    Args:
        publication: What is to be published, or rehearsed.

    Raises:
        FeedError: One of them it does not; nothing was written.
    """
    for source in publication.sources:
        name = source.table.full_name
        wanted = publication.work.feed.table_named(name).principal
        if wanted is not None and wanted not in {column.name for column in source.columns}:
            message = (
                f"{publication.batch.name}: `principal: {wanted}` of {name} is no column that the "
                "delivery brings, so nobody would stand in the entries of its records; nothing was "
                "written. Correct the feed, or have the sender deliver it."
            )
            raise FeedError(message)


def record_row_events(
    connection: Connection, publication: Publication, balances: Sequence[TableBalance]
) -> None:
    """Write an entry for each record that a batch has written, where its feed wants that.

    Args:
        connection: The publishing connection, with the rows in their tables.
        publication: What is published.
        balances: Of each table, against which entries are counted.

    Raises:
        PublishError: There are others than records.
    """
    if publication.work.feed.audit_event != "row":
        return
    batch_id = publication.batch.batch_id
    expected = {b.target_table: b.inserted + b.updated + b.unchanged for b in balances}
    counts = {}
    for source in publication.sources:
        name = source.table.full_name
        counts[name] = connection.execute(_statement(publication, source)).rowcount
        if counts[name] != expected[name]:
            message = (
                f"{name}: {expected[name]} records were written and {counts[name]} have an entry in the "
                "audit trail; nothing was written. A trigger of the table may have changed the stamp of "
                "rows."
            )
            raise PublishError(message)
    with connection.cursor(row_factory=scalar_row) as cursor:
        root = cursor.execute(_ROOT, (batch_id,)).fetchone()
        principals = cursor.execute(_PRINCIPALS, (batch_id,)).fetchone()
    tell(
        connection, batch_id, "rows.recorded", "SUCCESS",
        tables=counts, row_event=root, principals=principals, principals_are="as delivered",
    )  # fmt: skip


def _statement(publication: Publication, source: TableSource) -> sql.Composed:
    table, feed = source.table, publication.work.feed
    batch = sql.SQL("{}::uuid").format(sql.Literal(publication.batch.batch_id))
    principal = feed.table_named(table.full_name).principal
    key = publication.upsert_key(source) or table.primary_key
    as_text = sql.SQL(", ").join(sql.SQL("t.{}::text").format(sql.Identifier(n)) for n in key)
    replayed = publication.purpose == "replay"
    return _RECORD.format(
        batch=batch,
        name=sql.Literal(table.full_name),
        action=sql.Literal("row.replayed" if replayed else "row.written"),
        principal=sql.SQL("NULL")
        if principal is None
        else sql.SQL("t.{}::text").format(sql.Identifier(principal)),
        key=_KEY.format(batch=batch, columns=as_text) if key else sql.SQL("NULL"),
        table=table.identifier,
        stamp=sql.Identifier(STAMP),
        # Those of a replay come to rows that the batch has already.
        new=_NEW if replayed else sql.SQL(""),
    )
