"""Lease and fence: one live run a partition, and no word from a run that lost it.

A lease is a row in `batch_lease`, renewed over a connection of its own that also holds a session
advisory lock. The lock is free at once when its holder dies; the expiry covers a holder that hangs.
Whoever takes over raises the token and ends the old holder's backends, so that a transaction of it
cannot commit afterwards; the publish transaction checks the token just before its end.
"""

from __future__ import annotations

import hashlib
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import psycopg

from batch_pipelines.engine.errors import BusyError, LeaseLostError
from batch_pipelines.engine.postgres.database import LEASE_LOCK_CLASS, require_sessions
from batch_pipelines.engine.processes import Process

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from batch_pipelines.engine.postgres.database import Connection, Database

# A killed client's backend ends when it next touches its socket: milliseconds for an idle one. This
# is how long, in seconds, a new run waits for that before it says that the partition is taken.
_GRACE_SECONDS = 3.0
_POLL_SECONDS = 0.1

_TRY_LOCK = "SELECT pg_try_advisory_lock(%s, %s)"
# The function under pg_stat_activity: to plan that view's joins took longer than all else of a lease.
_BACKEND = "SELECT pid, backend_start FROM pg_stat_get_activity(pg_backend_pid())"
_READ = """
SELECT run_id::text, holder, token, expires_at < clock_timestamp(), released_at IS NOT NULL,
       to_char(expires_at, 'HH24:MI:SS') || ' UTC',
       lock_pid, lock_started_at, work_pid, work_started_at
FROM batch_audit.batch_lease WHERE feed = %s AND partition_key = %s
"""
_TERMINATE = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE pid = %s AND backend_start = %s AND pid <> pg_backend_pid()
"""
_ACQUIRE = """
INSERT INTO batch_audit.batch_lease AS l (feed, partition_key, token, run_id, holder, lock_pid,
    lock_started_at, acquired_at, expires_at)
VALUES (%(feed)s, %(key)s, 1, %(run_id)s, %(holder)s, %(pid)s, %(started)s, clock_timestamp(),
    clock_timestamp() + make_interval(secs => %(seconds)s))
ON CONFLICT (feed, partition_key) DO UPDATE SET
    token = l.token + 1, run_id = excluded.run_id, holder = excluded.holder,
    lock_pid = excluded.lock_pid, lock_started_at = excluded.lock_started_at,
    work_pid = NULL, work_started_at = NULL, acquired_at = excluded.acquired_at,
    expires_at = excluded.expires_at, released_at = NULL
RETURNING token
"""
_WORKER = """
UPDATE batch_audit.batch_lease SET work_pid = pg_backend_pid(),
    work_started_at = (SELECT backend_start FROM pg_stat_get_activity(pg_backend_pid()))
WHERE feed = %s AND partition_key = %s AND token = %s
"""
_RENEW = """
UPDATE batch_audit.batch_lease
SET expires_at = clock_timestamp() + make_interval(secs => %(seconds)s)
WHERE feed = %(feed)s AND partition_key = %(key)s AND token = %(token)s AND released_at IS NULL
"""
_RELEASE = """
UPDATE batch_audit.batch_lease SET released_at = clock_timestamp()
WHERE feed = %s AND partition_key = %s AND token = %s
"""
_HOLD = """
SELECT token FROM batch_audit.batch_lease WHERE feed = %s AND partition_key = %s FOR UPDATE
"""
_SEIZE = "SELECT pg_try_advisory_xact_lock(%s, %s)"
_FENCE_OFF = """
UPDATE batch_audit.batch_lease SET token = token + 1 WHERE feed = %s AND partition_key = %s
"""
_FENCE = """
SELECT token = %s AND released_at IS NULL AND expires_at > clock_timestamp()
FROM batch_audit.batch_lease WHERE feed = %s AND partition_key = %s FOR UPDATE
"""


@dataclass(frozen=True)
class Holder:
    """A run that held the lease before.

    Attributes:
        run_id: Its run id.
        holder: Its process, as `processes` names one.
        died: Whether it ended without releasing the lease.
    """

    run_id: str
    holder: str
    died: bool


class Lease:
    """The right to work on one partition, held until `close` (or the end of a `with` block)."""

    def __init__(
        self,
        connection: Connection,
        feed: str,
        key: str,
        run_id: str,
        token: int,
        seconds: float,
        before: Holder | None,
    ) -> None:
        self.feed = feed
        self.key = key
        self.run_id = run_id
        self.token = token
        self.before = before
        self._connection = connection
        self._seconds = seconds
        self._ended = threading.Event()
        self._renewer = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._renewer.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def record_worker(self, connection: Connection) -> None:
        """Write down which backend does the work, so that a successor can end it.

        Args:
            connection: The connection that is about to write, in autocommit mode.

        Raises:
            LeaseLostError: Another run has taken over.
            SettingsError: A pooler in transaction mode stands in between.
        """
        if not connection.execute(_WORKER, (self.feed, self.key, self.token)).rowcount:
            raise LeaseLostError(self._lost())
        require_sessions(self._connection, connection)

    def fence(self, connection: Connection) -> None:
        """Check, inside a transaction, that the lease is still ours; hold its row until the end.

        Args:
            connection: The connection whose transaction is about to commit.

        Raises:
            LeaseLostError: Another run has taken over, or the lease has expired.
        """
        row = connection.execute(_FENCE, (self.token, self.feed, self.key)).fetchone()
        if row is None or not row[0]:
            raise LeaseLostError(self._lost())

    def hold(self, connection: Connection) -> None:
        """Check, inside a transaction, that nobody has taken over; until its end nobody can.

        Less than `fence`: an expired lease that nobody has taken will do.

        Args:
            connection: A connection inside a transaction.

        Raises:
            LeaseLostError: Another run has taken over.
        """
        row = connection.execute(_HOLD, (self.feed, self.key)).fetchone()
        if row is None or row[0] != self.token:
            raise LeaseLostError(self._lost())

    def close(self) -> None:
        """Release the lease; if its connection is gone, the server has released it already."""
        self._ended.set()
        self._renewer.join()
        try:
            self._connection.execute(_RELEASE, (self.feed, self.key, self.token))
        except psycopg.Error:
            return
        finally:
            self._connection.close()

    def _lost(self) -> str:
        return (
            f"{self.feed}/{self.key}: run {self.run_id} no longer holds the lease, another run "
            f"took over or it expired; nothing was written. `batch-pipelines show "
            f"{self.feed}/{self.key}` tells who works on it now."
        )

    def _renew(self) -> None:
        wanted = {
            "seconds": self._seconds, "feed": self.feed, "key": self.key, "token": self.token,
        }  # fmt: skip
        while not self._ended.wait(self._seconds / 3):
            try:
                self._connection.execute(_RENEW, wanted)
            except psycopg.errors.LockNotAvailable:
                continue
            except psycopg.Error:
                # The fence finds it out: nothing is published without the lease.
                return


def acquire(
    database: Database,
    feed: str,
    key: str,
    run_id: str,
    *,
    seconds: float,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Lease:
    """Take the lease of a partition, from a dead or hung holder if need be.

    Args:
        database: The target database.
        feed: Name of the feed.
        key: Partition key.
        run_id: The run that wants to work.
        seconds: How long the lease lives without being renewed, in seconds.
        sleep: Waits so many seconds.
        clock: Tells seconds, from any start.

    Returns:
        The lease; `before` says who held it last.

    Raises:
        BusyError: A live run holds it; it is named.
    """
    connection = database.connect("lease", lock_timeout="10s")
    try:
        lock = (LEASE_LOCK_CLASS, lock_key(feed, key))
        deadline = clock() + _GRACE_SECONDS
        while not _one(connection, _TRY_LOCK, lock)[0]:
            held = connection.execute(_READ, (feed, key)).fetchone()
            if held is not None and held[3] and not held[4]:
                connection.execute(_TERMINATE, held[6:8])
            elif clock() > deadline:
                raise BusyError(_who(feed, key, held))  # noqa: TRY301  # the wait ends here
            sleep(_POLL_SECONDS)
        held = connection.execute(_READ, (feed, key)).fetchone()
        before = None
        if held is not None:
            before = Holder(held[0], held[1], died=not held[4])
            if before.died:
                connection.execute(_TERMINATE, held[8:10])
        pid, started = _one(connection, _BACKEND, ())
        row = _one(
            connection,
            _ACQUIRE,
            {
                "feed": feed,
                "key": key,
                "run_id": run_id,
                "holder": str(Process.current()),
                "pid": pid,
                "started": started,
                "seconds": seconds,
            },
        )
        return Lease(connection, feed, key, run_id, int(row[0]), seconds, before)
    except BaseException:
        connection.close()
        raise


def seize(
    connection: Connection,
    feed: str,
    key: str,
    *,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Hold a partition until the end of a transaction, which does all of its work by itself.

    Nobody gets the lease meanwhile; and a run that lost it without noticing can write nothing more.

    Args:
        connection: A connection inside the transaction.
        feed: Name of the feed.
        key: Partition key.
        sleep: Waits so many seconds.
        clock: Tells seconds, from any start.

    Raises:
        BusyError: A live run holds the lease; it is named.
    """
    deadline = clock() + _GRACE_SECONDS
    while not _one(connection, _SEIZE, (LEASE_LOCK_CLASS, lock_key(feed, key)))[0]:
        if clock() > deadline:
            raise BusyError(_who(feed, key, connection.execute(_READ, (feed, key)).fetchone()))
        sleep(_POLL_SECONDS)
    connection.execute(_FENCE_OFF, (feed, key))


def _one(
    connection: Connection, query: str, parameters: Sequence[object] | Mapping[str, object]
) -> tuple[Any, ...]:
    row = connection.execute(query, parameters).fetchone()
    assert row is not None  # noqa: S101  # each of these statements returns exactly one row
    return row


def lock_key(feed: str, key: str) -> int:
    """Give the second key of the advisory lock of a partition.

    Args:
        feed: Name of the feed.
        key: Partition key.

    Returns:
        A signed integer of 32 bits.
    """
    digest = hashlib.sha256(f"{feed}/{key}".encode()).digest()
    return int.from_bytes(digest[:4], "big", signed=True)


def _who(feed: str, key: str, held: tuple[Any, ...] | None) -> str:
    # A released row names the holder before: who has the lock now has yet to write its own.
    if held is None or held[4]:
        who = "another session"
    else:
        process = Process.read(held[1])
        where = held[1] if process is None else process.name
        who = f"run {held[0]} ({where}, lease until {held[5]})"
    return (
        f"{feed}/{key} is being loaded by {who}; nothing was done. Wait for it, or "
        f"end it (batch-pipelines cancel {feed}/{key}), and run the same command again."
    )
