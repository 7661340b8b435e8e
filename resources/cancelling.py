"""Cancelling a batch: in the ledger, its process, and in Dagster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batch_pipelines.engine.ledger import batches as ledger
from batch_pipelines.engine.processes import end
from batch_pipelines.engine.recovery.cancelling import cancel, check_cancellable
from resources.runs import forbid_retry, report_cancelled

if TYPE_CHECKING:
    import dagster as dg

    from batch_pipelines.engine.processes import Ending
    from batch_pipelines.engine.recovery.cancelling import Cancelled
    from resources.batches import Batches

# Enough for a run to end its statement and say so to Dagster.
_PATIENCE_SECONDS = 10.0


def cancel_batch(
    instance: dg.DagsterInstance, batches: Batches, reference: str, by: str
) -> tuple[Cancelled, Ending | None]:
    """Cancel a batch that is in progress.

    Args:
        instance: The Dagster instance.
        batches: Database and settings.
        reference: The batch, as somebody typed it.
        by: Who wants it.

    Returns:
        The batch, and what became of its process; None where there was none.

    Raises:
        CancelError: It is not in progress.
        FeedError: There is no such batch.
    """
    with batches.connect("cancel") as connection:
        batch = ledger.find(connection, reference)
        check_cancellable(batch)
        runs = ledger.runs(connection, batch.batch_id)
    for run_id in runs:
        forbid_retry(instance, run_id)
    done = cancel(batches.database, batches.settings, batch.batch_id, by)
    ending = None if done.process is None else end(done.process, patience=_PATIENCE_SECONDS)
    for run_id in runs:
        report_cancelled(instance, run_id, f"Cancelled by {by}.")
    return done, ending
