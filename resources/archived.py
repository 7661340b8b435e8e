"""Telling Dagster what retention has done: archived partitions read as such, and old keys go.

An observation of the partition says where its rows are now; the materializations stay what they were.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import dagster as dg

from batch_pipelines.engine.retention.partitions import record_retired, retired_keys

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping

    from batch_pipelines.engine.feed_parts.retention import DataClass
    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.retention.record import Chunk, Course

_ASSETS: Final[dict[DataClass, str]] = {
    "rows": "bulk_write",
    "before_images": "bulk_write",
    "quarantine": "bulk_write",
    "ledger": "validate",
    "bags": "archive",
}
_WHAT: Final[dict[DataClass, str]] = {
    "rows": "ARCHIVED: its rows have left the tables; `batch-pipelines restore` brings them back",
    "before_images": "What its rollback needs was archived: it cannot be rolled back any more",
    "quarantine": "Its rejects were archived",
    "ledger": "The ledger's detail of it was archived",
    "bags": "Its bags were deleted",
}


def tell_archived(instance: dg.DagsterInstance, chunk: Chunk) -> None:
    """Show what has become of a batch, at its partition.

    Args:
        instance: The Dagster instance.
        chunk: What retention has deleted.
    """
    asset = _ASSETS[chunk.data_class]
    status = {"batch_status": "ARCHIVED"} if chunk.data_class == "rows" else {}
    instance.report_runless_asset_event(
        dg.AssetObservation(
            asset_key=dg.AssetKey([chunk.feed, asset]),
            partition=chunk.partition_key,
            description=_WHAT[chunk.data_class],
            metadata={
                **status,
                "batch_id": chunk.batch_id,
                "data_class": chunk.data_class,
                "rows": chunk.records,
                "archived in": dg.MetadataValue.path(chunk.place or ""),
                "rule": chunk.rule,
                "legal source": chunk.legal_source,
                "due since": chunk.due_at.isoformat(),
            },
        )
    )


def tell_restored(instance: dg.DagsterInstance, batch: Batch) -> None:
    """Show that the rows of a batch are back in their tables, at its partition.

    Args:
        instance: The Dagster instance.
        batch: The batch, restored.
    """
    instance.report_runless_asset_event(
        dg.AssetObservation(
            asset_key=dg.AssetKey([batch.feed, _ASSETS["rows"]]),
            partition=batch.partition_key,
            description="Restored: its rows are back in the tables",
            metadata={"batch_status": batch.status, "batch_id": batch.batch_id},
        )
    )


def retire_keys(
    instance: dg.DagsterInstance,
    connection: Connection,
    feeds: Mapping[str, Feed],
    course: Course,
    now: dt.datetime,
) -> dict[str, list[str]]:
    """Have Dagster forget the keys of long-archived partitions.

    Args:
        instance: The Dagster instance.
        connection: A connection to the ledger, in autocommit mode.
        feeds: The feeds by name.
        course: Who does it.
        now: The time.

    Returns:
        The keys that went, by feed.
    """
    gone = {}
    for feed in feeds.values():
        known = retired_keys(connection, feed, now)
        keys = [key for key in known if instance.has_dynamic_partition(feed.feed, key)]
        for key in keys:
            instance.delete_dynamic_partition(feed.feed, key)
        if keys:
            record_retired(connection, course, feed, keys)
            gone[feed.feed] = keys
    return gone
