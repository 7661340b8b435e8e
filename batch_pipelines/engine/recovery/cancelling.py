"""Cancelling a batch that is in progress: it is fenced off first, so that it can never be published."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg

from batch_pipelines.engine.errors import CancelError
from batch_pipelines.engine.ledger import batches
from batch_pipelines.engine.ledger.events import Event, append
from batch_pipelines.engine.processes import Process
from batch_pipelines.engine.unfinished import clear_half_staged, end_stages

if TYPE_CHECKING:
    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.postgres.database import Connection, Database
    from batch_pipelines.engine.settings import Settings

# Who is about to commit holds the lease's row for milliseconds; who holds it for longer hangs there.
_WAIT = "5s"
_LEASE = """
SELECT token, run_id::text, holder, released_at IS NULL
FROM batch_audit.batch_lease WHERE feed = %s AND partition_key = %s FOR UPDATE
"""
_RAISE = """
UPDATE batch_audit.batch_lease SET token = token + 1 WHERE feed = %s AND partition_key = %s
"""
# Only while the lease is of the run that was cancelled, as it stands: a successor's are not ours.
_END_WORKER = """
SELECT pg_terminate_backend(a.pid, 5000)
FROM batch_audit.batch_lease AS l JOIN pg_stat_activity AS a
    ON a.pid <> pg_backend_pid() AND (a.pid, a.backend_start) = (l.work_pid, l.work_started_at)
WHERE l.feed = %s AND l.partition_key = %s AND l.run_id = %s
"""
_END_LOCK = """
SELECT pg_terminate_backend(a.pid, 5000)
FROM batch_audit.batch_lease AS l JOIN pg_stat_activity AS a
    ON a.pid <> pg_backend_pid() AND (a.pid, a.backend_start) = (l.lock_pid, l.lock_started_at)
WHERE l.feed = %s AND l.partition_key = %s AND l.run_id = %s
"""
_RELEASE = """
UPDATE batch_audit.batch_lease SET released_at = clock_timestamp()
WHERE feed = %s AND partition_key = %s AND token = %s
"""


@dataclass(frozen=True)
class Cancelled:
    """A batch that was cancelled.

    Attributes:
        batch: The batch, failed.
        process: The process that worked on it; None where none did, or it is not known.
    """

    batch: Batch
    process: Process | None


def check_cancellable(batch: Batch) -> None:
    """Refuse a batch that is not in progress.

    Args:
        batch: The batch.

    Raises:
        CancelError: It is not.
    """
    if batch.status == "IN_PROGRESS":
        return
    remedy = (
        f"It is visible: take it back by batch-pipelines rollback {batch.batch_id[:8]} --reason TEXT"
        if batch.status in batches.IN_FORCE
        else "Nothing works on it, there is nothing to cancel."
    )
    raise CancelError(f"Batch {batch.batch_id} ({batch.name}) is {batch.status}. {remedy}")


def cancel(database: Database, settings: Settings, batch_id: str, by: str) -> Cancelled:
    """Cancel a batch: fence it off, end its backends, fail it.

    Args:
        database: The target database.
        settings: Where staging is.
        batch_id: The batch.
        by: Who wants it.

    Returns:
        The batch, and the process that worked on it, which is the caller's to end.

    Raises:
        CancelError: It is not in progress, or was published before it could be fenced off.
    """
    why = f"Cancelled by {by}."
    with database.connect("cancel", lock_timeout=_WAIT) as connection:
        batch = batches.by_id(connection, batch_id)
        check_cancellable(batch)
        _append(connection, batch_id, by, "started", "IN_PROGRESS")
        place = (batch.feed, batch.partition_key)
        lease = _fence_off(connection, batch_id)
        token, process = None, None
        if lease is not None:
            token, run_id, process = lease
            connection.execute(_END_WORKER, (*place, run_id))
            connection.execute(_END_LOCK, (*place, run_id))
        with connection.transaction():
            now = connection.execute(_LEASE, place).fetchone()
            # Where a successor has the partition by now, it has failed the batch itself.
            if now is None or token is None or now[0] == token:
                end_stages(connection, batch_id, why, "cancelled")
                batches.mark_failed(connection, batch_id, why, "cancelled")
                connection.execute(_RELEASE, (*place, token))
                _append(connection, batch_id, by, "done", "SUCCESS")
        failed = batches.by_id(connection, batch_id)
        clear_half_staged(connection, settings, [failed])
    return Cancelled(failed, process)


def _append(connection: Connection, batch_id: str, by: str, step: str, status: str) -> None:
    append(connection, Event(by, f"batch.cancel.{step}", status, "batch", batch_id))


def _fence_off(connection: Connection, batch_id: str) -> tuple[int, str, Process | None] | None:
    """Raise the token; give the new one, the run that had the old one and its process.

    In a transaction of its own, before anything is written about the batch: a publish transaction that
    waits for the lease has written there, and both would wait for each other.
    """
    batch = batches.by_id(connection, batch_id)
    check_cancellable(batch)
    place = (batch.feed, batch.partition_key)
    for last in (False, True):
        try:
            with connection.transaction():
                lease = connection.execute(_LEASE, place).fetchone()
                check_cancellable(batches.by_id(connection, batch_id))
                if lease is None:
                    return None
                connection.execute(_RAISE, place)
        except psycopg.errors.LockNotAvailable:
            # It hangs between fence and COMMIT. Its run's backend ends, and with it the transaction.
            if last:
                raise
            newest = batches.runs(connection, batch_id)[-1]
            connection.execute(_END_WORKER, (*place, newest))
            continue
        token, run_id, holder, is_held = lease
        return token + 1, run_id, Process.read(holder) if is_held else None
    return None
