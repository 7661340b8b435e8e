"""One live run a partition: leases are taken, kept, lost and taken over on a real server."""

from __future__ import annotations

import os
import socket
from itertools import count
from typing import TYPE_CHECKING

import psycopg
import pytest

from batch_pipelines.engine.errors import BusyError, LeaseLostError
from batch_pipelines.engine.postgres.lease import acquire
from batch_pipelines.engine.processes import Process
from tests.support_engine import new_id

if TYPE_CHECKING:
    from batch_pipelines.engine.postgres.database import Connection, Database
    from batch_pipelines.engine.postgres.lease import Lease

EXPIRE = "UPDATE batch_audit.batch_lease SET expires_at = clock_timestamp() - interval '1 second'"
ROW = """
SELECT token, run_id::text, holder, released_at IS NULL, expires_at > clock_timestamp()
FROM batch_audit.batch_lease WHERE feed = 'f' AND partition_key = 'k'
"""


def take(database: Database, run_id: str, key: str = "k", seconds: float = 60) -> Lease:
    """Acquire without real waiting: a look at the clock takes a second."""
    clock = count()
    return acquire(
        database, "f", key, run_id, seconds=seconds, sleep=lambda _: None, clock=clock.__next__
    )


def fence(db: Connection, lease: Lease) -> None:
    with db.transaction():
        lease.fence(db)


def end_backend_of(db: Connection, lease: Lease) -> None:
    """End the session that holds the lock, as the kernel would when its process is killed."""
    db.execute(
        "SELECT pg_terminate_backend(lock_pid, 5000) FROM batch_audit.batch_lease WHERE token = %s",
        (lease.token,),
    )


@pytest.mark.versions
def test_a_lease_names_its_run_and_process(database: Database, db: Connection) -> None:
    run = new_id()
    holder = str(Process.current())
    with take(database, run) as lease:
        assert lease.before is None
        assert db.execute(ROW).fetchone() == (1, run, holder, True, True)
        fence(db, lease)
    assert db.execute(ROW).fetchone() == (1, run, holder, False, True)


@pytest.mark.versions
def test_a_released_lease_is_free_and_no_longer_ours(database: Database, db: Connection) -> None:
    first, second = new_id(), new_id()
    with take(database, first) as old:
        pass
    with take(database, second) as lease:
        assert lease.token == old.token + 1
        assert lease.before is not None
        assert (lease.before.run_id, lease.before.died) == (first, False)
        fence(db, lease)
        with pytest.raises(LeaseLostError, match=f"f/k: run {first} no longer holds the lease"):
            fence(db, old)


def test_a_live_holder_is_named_and_not_disturbed(database: Database, db: Connection) -> None:
    first = new_id()
    with take(database, first) as lease:
        with pytest.raises(BusyError, match=f"f/k is being loaded by run {first}") as error:
            take(database, new_id())
        assert f"{socket.gethostname()}:{os.getpid()}, lease until" in str(error.value)
        fence(db, lease)


def test_partitions_do_not_disturb_each_other(database18: Database) -> None:
    with take(database18, new_id(), "k"), take(database18, new_id(), "l"):
        pass


def test_a_dead_holders_partition_is_free_at_once(database: Database, db: Connection) -> None:
    """Given a holder whose process is gone, though its lease has not expired, when another asks."""
    first = take(database, new_id())
    end_backend_of(db, first)
    with take(database, new_id()) as lease:
        assert lease.before is not None
        assert (lease.before.run_id, lease.before.died) == (first.run_id, True)
        with pytest.raises(LeaseLostError):
            fence(db, first)
    first.close()
    assert db.execute(ROW).fetchone() == (2, lease.run_id, lease.before.holder, False, True)


@pytest.mark.versions
def test_a_hung_holder_loses_an_expired_lease_and_its_backends(
    database: Database, db: Connection
) -> None:
    """Given a holder that hangs in a transaction, when its lease has expired, both its sessions end."""
    first = take(database, new_id())
    with database.connect("worker") as worker:
        first.record_worker(worker)
        worker.execute("BEGIN")
        worker.execute("CREATE TABLE public.half_done (a int)")
        db.execute(EXPIRE)
        with take(database, new_id()) as second:
            assert second.before is not None
            assert second.before.died
            with pytest.raises(psycopg.OperationalError):
                worker.execute("COMMIT")
            fence(db, second)
    first.close()
    assert db.execute("SELECT to_regclass('public.half_done')").fetchone() == (None,)


def test_a_backend_that_only_has_the_same_pid_is_left_alone(
    database: Database, db: Connection
) -> None:
    """Given a dead holder whose worker's pid belongs to a stranger by now, it is not ended."""
    first = take(database, new_id())
    with database.connect("stranger") as stranger:
        first.record_worker(stranger)
        db.execute(
            "UPDATE batch_audit.batch_lease SET work_started_at = work_started_at - interval '1 day'"
        )
        end_backend_of(db, first)
        with take(database, new_id()):
            assert stranger.execute("SELECT 1").fetchone() == (1,)
    first.close()


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(EXPIRE, id="expired"),
        pytest.param("UPDATE batch_audit.batch_lease SET token = token + 1", id="taken over"),
        pytest.param("UPDATE batch_audit.batch_lease SET released_at = now()", id="released"),
        pytest.param("DELETE FROM batch_audit.batch_lease", id="gone"),
    ],
)
def test_the_fence_stops_whoever_does_not_hold_the_lease(
    database: Database, db: Connection, event: str
) -> None:
    with take(database, new_id()) as lease:
        db.execute(event.encode())
        with pytest.raises(LeaseLostError, match="nothing was written"):
            fence(db, lease)


def test_the_fence_looks_at_the_real_clock(database: Database, db: Connection) -> None:
    """Given a lease that ends during a transaction, `now()` stands still there, the fence does not."""
    with (
        take(database, new_id()) as lease,
        database.connect("worker") as worker,
        worker.transaction(),
    ):
        worker.execute("SELECT now()")
        db.execute(
            "UPDATE batch_audit.batch_lease SET expires_at = clock_timestamp() "
            "+ interval '1 microsecond'"
        )
        with pytest.raises(LeaseLostError):
            lease.fence(worker)


def test_between_fence_and_commit_nobody_takes_over(database: Database, db: Connection) -> None:
    with take(database, new_id()) as lease, db.transaction():
        lease.fence(db)
        with (
            database.connect("other", lock_timeout="1ms") as other,
            pytest.raises(psycopg.errors.LockNotAvailable),
        ):
            other.execute("UPDATE batch_audit.batch_lease SET token = token + 1")


def test_a_lease_is_renewed_while_it_is_held(database18: Database) -> None:
    with (
        database18.connect("test") as db,
        take(database18, new_id(), seconds=0.3) as lease,
    ):
        expiry = "SELECT expires_at FROM batch_audit.batch_lease"
        first = db.execute(expiry).fetchone()
        while db.execute(expiry).fetchone() == first:
            pass
        fence(db, lease)


def test_a_lease_whose_connection_broke_can_still_be_closed(
    database: Database, db: Connection
) -> None:
    lease = take(database, new_id())
    end_backend_of(db, lease)
    lease.close()
    with take(database, new_id()) as other:
        assert other.before is not None
        assert other.before.died
