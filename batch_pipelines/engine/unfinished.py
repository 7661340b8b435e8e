"""Batches whose run is gone: they fail, and what nobody can go on with leaves staging.

Whoever calls this holds the partition's lease, so that no run of it is alive.
"""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING

import psycopg

from batch_pipelines.engine.ledger import batches, staged_tables, stages

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batch_pipelines.engine.causes import Cause
    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.settings import Settings


def fail_unfinished(
    connection: Connection, feed: str, key: str, why: str, cause: Cause, *, but: str | None = None
) -> list[Batch]:
    """Fail the batches in progress of a partition, and the stages that did not end of its other ones.

    Args:
        connection: A connection.
        feed: Name of the feed.
        key: Partition key.
        why: For the ledger.
        cause: The same as one word.
        but: A batch that is left alone: the caller's own.

    Returns:
        The batches that were in progress, as they were.
    """
    found = [b for b in batches.in_progress(connection, feed, key) if b.batch_id != but]
    for batch in found:
        with connection.transaction():
            end_stages(connection, batch.batch_id, why, cause)
            batches.mark_failed(connection, batch.batch_id, why, cause)
    # What was published stays what it is, whatever becomes of it next; its stage would never end.
    for batch_id in stages.unended(connection, feed, key):
        if batch_id != but:
            end_stages(connection, batch_id, why, cause)
    return found


def end_stages(connection: Connection, batch_id: str, why: str, cause: Cause) -> None:
    """Write down of the stages of a batch that have not ended that they failed."""
    for stage in stages.STAGES:
        stages.end(connection, batch_id, stage, why, cause)


def clear_half_staged(connection: Connection, settings: Settings, found: Sequence[Batch]) -> None:
    """Give back the room of batches whose ingest never ended: no stage can go on with them.

    Args:
        connection: A connection.
        settings: Where staging is.
        found: Batches that have failed.
    """
    for batch in found:
        ingest = stages.of_batch(connection, batch.batch_id).get("ingest")
        if ingest is None or ingest.status != "SUCCESS":
            shutil.rmtree(settings.staging / batch.batch_id, ignore_errors=True)


def clear_staging(connection: Connection, settings: Settings, feed: str, key: str) -> None:
    """Give back the room of every batch of a partition that no stage can go on with: files and rows.

    Also of those whose run ended before it came to that itself.

    Args:
        connection: A connection.
        settings: Where staging is.
        feed: Name of the feed.
        key: Partition key.
    """
    finished = batches.finished(connection, feed, key)
    for batch_id in finished:
        shutil.rmtree(settings.staging / batch_id, ignore_errors=True)
    # Somebody may be looking at the rows: the next run will find them still.
    with contextlib.suppress(psycopg.errors.LockNotAvailable):
        staged_tables.drop(connection, finished)
