"""Failing what a dead run left: its batch, its backends, its room in staging; and telling people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from batch_pipelines.engine.alerts import Alert, raise_alert
from batch_pipelines.engine.errors import BusyError
from batch_pipelines.engine.ledger import batches, stages
from batch_pipelines.engine.ledger.batch_events import tell
from batch_pipelines.engine.postgres.lease import acquire
from batch_pipelines.engine.unfinished import (
    clear_half_staged,
    clear_staging,
    end_stages,
    fail_unfinished,
)

if TYPE_CHECKING:
    from batch_pipelines.engine.causes import Cause
    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.postgres.database import Connection, Database
    from batch_pipelines.engine.settings import Settings

ALERT = "dead_run"


@dataclass(frozen=True)
class Ended:
    """What was done about a dead run.

    Attributes:
        failed: Batches that failed; none where nothing was in progress, because the run had published.
        runs: Runs that worked on them, and the one that held the lease.
    """

    failed: tuple[Batch, ...]
    runs: tuple[str, ...]


def end_dead(
    database: Database,
    settings: Settings,
    feed: str,
    key: str,
    why: str,
    cause: Cause,
    *,
    run_id: str,
    token: int | None,
    by_run: str,
) -> Ended | None:
    """Take a partition from a dead run, and fail what it left.

    Args:
        database: The target database.
        settings: Where staging is, and how long leases last.
        feed: Name of the feed.
        key: Partition key.
        why: Why the run counts as dead, for the ledger.
        cause: The same as one word.
        run_id: The dead run.
        token: Its fencing token; None where it had given its lease back.
        by_run: An id that is nobody else's: who holds the partition meanwhile.

    Returns:
        What was done; None where somebody else was quicker, or the run is alive after all.
    """
    try:
        lease = acquire(database, feed, key, by_run, seconds=settings.lease_seconds)
    except BusyError:
        return None
    with lease, database.connect("dead run") as connection:
        if token is not None and lease.token != token + 1:
            return None
        failed = fail_unfinished(connection, feed, key, why, cause)
        for batch in failed:
            tell(connection, batch.batch_id, "dead_run.ended", "SUCCESS", run_id=run_id, why=why)
        runs = {run_id: None}
        for batch in failed:
            runs |= dict.fromkeys(batches.runs(connection, batch.batch_id))
        own = batches.of_run(connection, run_id)
        if own is not None:
            # One that was published stays what it is; it is its stage that did not end.
            end_stages(connection, own.batch_id, why, cause)
            _fail_next(connection, own, run_id, why, cause)
        clear_half_staged(connection, settings, failed)
        clear_staging(connection, settings, feed, key)
        _tell(connection, feed, key, run_id, why, own)
        return Ended(tuple(failed), tuple(runs))


def _fail_next(connection: Connection, batch: Batch, run_id: str, why: str, cause: Cause) -> None:
    """Fail the stage that a published batch would have come to next, where none had begun.

    Else nothing would say that it has not come to its end.
    """
    known = stages.of_batch(connection, batch.batch_id)
    left = [stage for stage in stages.STAGES if stage not in known]
    failed = any(record.status == "FAILED" for record in known.values())
    if batch.status in batches.IN_FORCE and left and not failed:
        stages.start(connection, batch.batch_id, left[0], run_id)
        stages.end(connection, batch.batch_id, left[0], why, cause)


def _tell(
    connection: Connection, feed: str, key: str, run_id: str, why: str, batch: Batch | None
) -> None:
    name = f"{feed}/{key}"
    raise_alert(
        connection,
        Alert(
            kind=ALERT,
            severity="warning",
            subject=f"{name}: run {run_id} is dead",
            deduplication_key=f"{ALERT}/{run_id}",
            feed=feed,
            batch_id=None if batch is None else batch.batch_id,
            details={"why": why, "next": f"batch-pipelines show {name}"},
        ),
    )
