"""Taking back what a run has published itself, where its validation has failed and the feed wants it so.

It is the same rollback that a person would ask for, and refused for the same reasons.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from batch_pipelines.engine.errors import BusyError, RollbackError
from batch_pipelines.engine.rollback.takeback import Request, roll_back
from batch_pipelines.engine.rollback.verify import verify

if TYPE_CHECKING:
    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.work import Work

BY: Final = "batch-pipelines (on_validation_failure)"
"""Who rolled the batch back, in the ledger."""


def taken_back(connection: Connection, work: Work, batch: Batch, reason: str) -> str:
    """Roll a batch back that is visible and differs from its source.

    Args:
        connection: A connection in autocommit mode.
        work: The run's work; it holds the partition's lease.
        batch: The batch, `VALIDATION_FAILED`.
        reason: Why, for the ledger.

    Returns:
        What became of it, as sentences; where the rollback was refused, the batch is as before.

    Raises:
        LeaseLostError: Another run has taken the partition over.
    """
    request = Request((batch.batch_id,), reason, BY, correlation_id=work.correlation_id)
    feeds = {work.feed.feed: work.feed}
    try:
        done = roll_back(work.database, work.settings, feeds, request, work.lease)
    except (RollbackError, BusyError) as error:
        return f"The batch IS STILL VISIBLE, its rollback was refused: {error}"
    again = "".join(
        f" Batch {each.reinstated} is in force again." for each in done.done if each.reinstated
    )
    left = ", ".join(check.name for check in verify(connection, batch.batch_id).failed)
    differs = f" But afterwards these differ: {left}." if left else ""
    return f"The batch was rolled back.{again}{differs}"
