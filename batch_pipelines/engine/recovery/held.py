"""What the ledger knows of runs that may be dead: leases never given back, batches left in between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.rows import class_row

from batch_pipelines.engine.postgres.database import LEASE_LOCK_CLASS
from batch_pipelines.engine.postgres.lease import lock_key
from batch_pipelines.engine.processes import Process

if TYPE_CHECKING:
    from batch_pipelines.engine.postgres.database import Connection

_HELD = """
SELECT feed, partition_key, token, run_id::text, holder,
       extract(epoch FROM clock_timestamp() - expires_at)::float8
FROM batch_audit.batch_lease WHERE released_at IS NULL
"""
# `objid` is an oid, so unsigned, where the key of the lock is a signed integer.
_LOCKED = """
SELECT objid::bigint FROM pg_locks
WHERE locktype = 'advisory' AND classid = %s::bigint::oid AND objsubid = 2 AND granted
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_STALLED = """
SELECT h.batch_id::text, h.feed, h.partition_key,
       ARRAY(SELECT run_id::text FROM batch_audit.batch_run AS r WHERE r.batch_id = h.batch_id
             ORDER BY attached_at) AS runs
FROM batch_audit.import_history AS h
WHERE status = 'IN_PROGRESS' AND NOT EXISTS (
    SELECT FROM batch_audit.batch_lease AS l
    WHERE l.feed = h.feed AND l.partition_key = h.partition_key AND released_at IS NULL)
"""
_UNSIGNED = 1 << 32


@dataclass(frozen=True)
class Held:
    """A lease that was not given back.

    Attributes:
        feed: Name of the feed.
        partition_key: Partition key.
        token: Its fencing token.
        run_id: The run that took it.
        process: The process that took it; None where it was not written down.
        expired_for: For how long it has been expired, in seconds; negative while it is valid.
        locked: Whether the session that took it is still there.
    """

    feed: str
    partition_key: str
    token: int
    run_id: str
    process: Process | None
    expired_for: float
    locked: bool

    @property
    def name(self) -> str:
        """Feed and partition key."""
        return f"{self.feed}/{self.partition_key}"


@dataclass(frozen=True)
class Stalled:
    """A batch in progress that no run has the lease for: between two stages, or left there.

    Attributes:
        batch_id: The batch.
        feed: Name of the feed.
        partition_key: Partition key.
        runs: Runs that worked on it, the first one first.
    """

    batch_id: str
    feed: str
    partition_key: str
    runs: list[str]


def held_leases(connection: Connection) -> list[Held]:
    """List the leases that were not given back, of live runs and dead ones.

    Args:
        connection: A connection.
    """
    rows = connection.execute(_HELD).fetchall()
    taken = {row[0] for row in connection.execute(_LOCKED, (LEASE_LOCK_CLASS,))} if rows else set()
    return [
        Held(
            feed, key, token, run_id, Process.read(holder), expired_for,
            lock_key(feed, key) % _UNSIGNED in taken,
        )
        for feed, key, token, run_id, holder, expired_for in rows
    ]  # fmt: skip


def stalled_batches(connection: Connection) -> list[Stalled]:
    """List the batches in progress that no run has the lease for.

    Args:
        connection: A connection.
    """
    with connection.cursor(row_factory=class_row(Stalled)) as cursor:
        return cursor.execute(_STALLED).fetchall()
