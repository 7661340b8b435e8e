"""Imports and rollbacks at the same time on the same tables disturb nobody."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psycopg
import pytest

from batch_pipelines.engine.errors import BusyError
from batch_pipelines.engine.failpoints import armed
from batch_pipelines.engine.ledger.batches import IN_FORCE
from batch_pipelines.engine.postgres.lease import acquire
from tests.support_engine import KEY, Site, new_id
from tests.support_rollback import content, take_back, upserting

if TYPE_CHECKING:
    from tests.engine.conftest import MakeSite

DDL = """
CREATE TABLE parents (id int PRIMARY KEY, name text, import_batch_id uuid);
CREATE TABLE children (id int PRIMARY KEY, parent int REFERENCES parents, import_batch_id uuid);
CREATE INDEX ON parents (import_batch_id);
CREATE INDEX ON children (import_batch_id);
INSERT INTO parents SELECT n, 'by hand' FROM generate_series(1, 8000) AS n;
"""
TABLES = {"public.parents": "p*", "public.children": "c*"}


def files(number: int, count: int = 200) -> dict[str, str]:
    numbers = range(number * 1000, number * 1000 + count)
    return {
        "p.csv": "id,name\n" + "".join(f"{n},name {n}\n" for n in numbers),
        "c.csv": "id,parent\n" + "".join(f"{n},{n}\n" for n in numbers),
    }


def test_eight_imports_and_rollbacks_at_once(site18: MakeSite) -> None:
    here = site18(DDL, TABLES)
    here.feed = upserting(
        here.feed,
        {"table": "public.parents", "files": "p*", "write": "upsert"},
        {"table": "public.children", "files": "c*"},
    )
    untouched = content(here, "parents", "children")
    start = threading.Barrier(8)

    def course(number: int) -> None:
        with here.database.connect("test") as connection:
            own = Site(here.database, here.settings, here.feed, connection)
            own.deliver(files(number), f"k{number}")
            start.wait(60)
            for _ in range(3):
                batch = own.run(f"k{number}", force=True)
                take_back(own, batch.batch_id)
            if number % 2:
                own.run(f"k{number}")

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(course, number) for number in range(8)]:
            done.result(300)
    assert sum(batch.status in IN_FORCE for batch in here.history()) == 4
    assert here.count("SELECT count(*) FROM children") == 4 * 200
    for batch in here.history():
        if batch.status in IN_FORCE:
            take_back(here, batch.batch_id)
    assert content(here, "parents", "children") == untouched


def test_a_partition_that_is_being_loaded_is_left_alone(site18: MakeSite) -> None:
    here = site18(DDL, TABLES)
    batch = here.load(files(9))
    run = new_id()
    with (
        acquire(here.database, here.feed.feed, KEY, run, seconds=60),
        pytest.raises(BusyError, match=run),
    ):
        take_back(here, batch.batch_id)
    take_back(here, batch.batch_id)


def test_a_run_that_lost_its_lease_publishes_nothing_after_a_rollback(site18: MakeSite) -> None:
    here = site18(DDL, TABLES)
    first = here.load(files(9))
    here.deliver(files(9, count=300))
    # Its lease is gone, and it does not know: as when the server ended that session.
    with here.work() as (connection, work):
        before = work.lease.token
        here.sql(
            "SELECT pg_terminate_backend(lock_pid, 5000) FROM batch_audit.batch_lease"
            " WHERE released_at IS NULL"
        )
        take_back(here, first.batch_id)
        with pytest.raises(Exception, match="no longer holds the lease"), connection.transaction():
            work.lease.fence(connection)
        assert here.count("SELECT token FROM batch_audit.batch_lease") > before


def test_a_deadlock_is_tried_again_and_never_shown(site18: MakeSite) -> None:
    here = site18(DDL, TABLES)
    batch = here.load(files(9))
    passed = 0

    def meet(_: object) -> None:
        nonlocal passed
        passed += 1
        if passed < 3:
            raise psycopg.errors.DeadlockDetected

    with armed("rollback.done", meet):
        done = take_back(here, batch.batch_id)
    assert (passed, len(done.done)) == (3, 1)


def test_somebody_writing_by_hand_is_waited_for_and_protected(site18: MakeSite) -> None:
    here = site18(DDL, TABLES)
    batch = here.load(files(9))
    with here.database.connect("somebody") as hand:
        hand.execute("BEGIN")
        hand.execute("UPDATE children SET parent = 1 WHERE id = 9000")
        with ThreadPoolExecutor(1) as pool:
            attempt = pool.submit(take_back, here, batch.batch_id)
            time.sleep(1)
            assert not attempt.done()
            hand.execute("COMMIT")
            with pytest.raises(Exception, match="changed by hand"):
                attempt.result(60)
    assert here.count("SELECT count(*) FROM children WHERE id = 9000") == 1
