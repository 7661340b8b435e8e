"""Which batches to prove again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batch_pipelines.engine.ledger import batches, verifications

if TYPE_CHECKING:
    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.postgres.database import Connection


def choose(
    connection: Connection, reference: str | None, sample: int | None, feed: str | None
) -> list[Batch]:
    """Choose batches to verify.

    Args:
        connection: A connection.
        reference: One batch: its id, a unique prefix of one, or FEED/KEY; or None.
        sample: Without it, so many batches in force, those longest not verified first; or None.
        feed: Without a reference, only batches of this feed, if given.

    Returns:
        The batches; with neither reference nor sample every one that was ever published.

    Raises:
        FeedError: There is no such batch.
    """
    if reference is not None:
        return [batches.find(connection, reference)]
    if sample is not None:
        return verifications.sample(connection, sample, feed)
    return verifications.published(connection, feed)
