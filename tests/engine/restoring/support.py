"""What the tests of restores share: a batch whose rows are in the archive alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import sql

from batch_pipelines.engine.archiving.rows.export import export_rows
from batch_pipelines.engine.ledger import batches
from batch_pipelines.engine.postgres.lease import acquire
from batch_pipelines.engine.restoring.restore import Restored, RestoreRequest, restore
from tests.support_engine import new_id

if TYPE_CHECKING:
    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.postgres.database import Database
    from batch_pipelines.engine.settings import Settings
    from tests.support_engine import Site


def put_away(site: Site, batch: Batch) -> Batch:
    """Export the rows of a batch and delete them, children first, as retention does."""
    return archive_rows(site.database, site.settings, site.feed, batch)


def archive_rows(database: Database, settings: Settings, feed: Feed, batch: Batch) -> Batch:
    """Export the rows of a batch and delete them; see `put_away`."""
    with (
        acquire(database, feed.feed, batch.partition_key, new_id(), seconds=60) as lease,
        database.connect("test") as connection,
    ):
        exported = export_rows(connection, settings, feed, batch, lease)
        with connection.transaction():
            for table in reversed(exported.bag.account.tables):
                delete = sql.SQL("DELETE FROM {} WHERE import_batch_id = {}").format(
                    sql.Identifier(*table.full_name.split(".")), sql.Literal(batch.batch_id)
                )
                connection.execute(delete)
            connection.execute(
                "UPDATE batch_audit.import_history SET status_before = status, status = 'ARCHIVED',"
                " archived_at = clock_timestamp() WHERE batch_id = %s",
                (batch.batch_id,),
            )
        return batches.by_id(connection, batch.batch_id)


def bring_back(site: Site, batch: Batch, *, dry_run: bool = False) -> Restored:
    """Restore a batch, which retention may take again at once."""
    request = RestoreRequest(batch.batch_id, "a test", "to look again", dry_run=dry_run, days=0)
    return restore(site.database, site.settings, request, lambda _: None)


def everything(site: Site, *tables: str) -> list[list[tuple[object, ...]]]:
    """All of each table, stamps too."""
    return [
        site.sql(f"SELECT t.tableoid::regclass::text, t::text FROM {name} t ORDER BY 2")
        for name in tables
    ]
