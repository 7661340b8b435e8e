"""Runs at the same time: of one partition one publishes, those of others do not disturb each other."""

from __future__ import annotations

import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

import psycopg
import pytest

from batch_pipelines.engine.errors import BatchError, BusyError, LeaseLostError, PublishError
from batch_pipelines.engine.failpoints import armed
from batch_pipelines.engine.ledger import batches
from batch_pipelines.engine.ledger.batches import IN_FORCE
from batch_pipelines.engine.postgres import lease
from tests.support_engine import KEY, Site, new_id
from tests.support_process import FORK, At, importing
from tests.support_soak import short_or_long

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.postgres.database import Connection
    from tests.engine.conftest import MakeSite

DDL = """
CREATE TABLE parents (id int PRIMARY KEY, value int NOT NULL, import_batch_id uuid);
CREATE TABLE children (id int PRIMARY KEY, parent int NOT NULL REFERENCES parents,
    value int NOT NULL, import_batch_id uuid);
CREATE INDEX ON children (parent);
"""
TABLES = {"public.parents": "p*", "public.children": "c*"}
ROWS = 400
PARTITIONS = 8
WAIT_SECONDS = 60
PUBLISHED = """
SELECT batch_id::text FROM batch_audit.import_history WHERE published_at IS NOT NULL
ORDER BY published_at
"""
END_PUBLISHING = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE application_name = 'batch-pipelines publish' AND datname = current_database()
"""
END_LEASE = """
SELECT pg_terminate_backend(lock_pid, 5000) FROM batch_audit.batch_lease
WHERE partition_key = %s
"""
WAITING = """
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
AND application_name = 'batch-pipelines publish' AND wait_event_type = 'Lock' AND wait_event = 'advisory'
"""
# Both tables of one partition in one statement, so in one snapshot.
READ = """
SELECT count(*), count(DISTINCT stamp), min(value), max(value) FROM (
    SELECT import_batch_id AS stamp, value FROM parents
    UNION ALL SELECT import_batch_id, value FROM children) AS both_tables
"""


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep out of the project's folder: what changed the working folder would do harm there."""
    monkeypatch.chdir(tmp_path)


def delivery(value: int, first: int = 0) -> dict[str, str]:
    """Make a delivery all of whose records have one value, with ids from `first` on."""
    ids = range(first, first + ROWS)
    return {
        "p.csv": "id,value\n" + "".join(f"{n},{value}\n" for n in ids),
        "c.csv": "id,parent,value\n" + "".join(f"{n},{n},{value}\n" for n in ids),
    }


def attempt(site: Site, key: str = KEY, run_id: str | None = None) -> Batch | BatchError:
    """Run, and give the error where there is one."""
    try:
        return site.run(key, run_id=run_id)
    except BatchError as error:
        return error


def published(site: Site) -> list[str]:
    return [str(row[0]) for row in site.sql(PUBLISHED)]


def check_visible(site: Site, batch_id: str, value: int) -> None:
    """Check that one batch is in force and both tables hold its rows and no others."""
    assert [b.batch_id for b in site.history() if b.status in IN_FORCE] == [batch_id]
    assert [b.batch_id for b in site.history() if b.status == "IN_PROGRESS"] == []
    assert site.stamps("parents") == site.stamps("children") == {batch_id: ROWS}
    assert site.sql(READ) == [(2 * ROWS, 1, value, value)]


def check_one_of_two(
    site: Site, value: int, before: list[str], runs: list[str], told: list[tuple[str, str]]
) -> None:
    """Check that of two runs one published, and that the other was told which."""
    (winner,) = (batch for batch in published(site) if batch not in before)
    assert winner in runs
    check_visible(site, winner, value)
    first, second = (runs.index(winner), 1 - runs.index(winner))
    assert told[first] == ("done", "SUCCESS")
    kind, message = told[second]
    if kind == "done":
        # It came when the other was done.
        assert batches.of_run(site.connection, runs[second]) in site.history()
        (loser,) = (b for b in site.history() if b.batch_id == runs[second])
        assert (message, loser.status, loser.duplicate_of) == ("DUPLICATE", "DUPLICATE", winner)
    else:
        assert kind == "BusyError"
        assert f"is being loaded by run {winner}" in message


def told_of(outcome: Batch | BatchError) -> tuple[str, str]:
    if isinstance(outcome, BatchError):
        return type(outcome).__name__, str(outcome)
    return "done", outcome.status


@short_or_long("times", 4, 60)
def test_two_threads_at_once(site18: MakeSite, times: int) -> None:
    site = site18(DDL, TABLES)
    for value in range(times):
        before = published(site)
        site.deliver(delivery(value))
        runs = [new_id(), new_id()]
        barrier = threading.Barrier(2, timeout=WAIT_SECONDS)

        def run(run_id: str, barrier: threading.Barrier = barrier) -> Batch | BatchError:
            barrier.wait()
            return attempt(site, run_id=run_id)

        with ThreadPoolExecutor(2) as pool:
            outcomes = [*pool.map(run, runs)]
        check_one_of_two(site, value, before, runs, [told_of(o) for o in outcomes])


@short_or_long("times", 2, 30)
def test_two_processes_at_once(site18: MakeSite, times: int) -> None:
    site = site18(DDL, TABLES)
    for value in range(times):
        before = published(site)
        site.deliver(delivery(value))
        runs = [new_id(), new_id()]
        barrier = FORK.Barrier(2)
        with (
            importing(site, runs[0], start=barrier) as first,
            importing(site, runs[1], start=barrier) as second,
        ):
            told = [outcome for child in (first, second) if (outcome := child.outcome())]
        check_one_of_two(site, value, before, runs, told)


@pytest.mark.parametrize(
    "place",
    [
        "ingest.copied", "bulk_write.parsed", "bulk_write.before_check", "bulk_write.before_fence",
        "bulk_write.before_commit", "bulk_write.after_commit", "archive.written",
    ],
)  # fmt: skip
def test_a_second_run_while_the_first_is_at_work(
    site18: MakeSite, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Given a holder that is alive, also one that holds its lease's row, when another run asks."""
    monkeypatch.setattr(lease, "_GRACE_SECONDS", 0.2)
    site = site18(DDL, TABLES)
    site.load(delivery(1))
    site.deliver(delivery(2))
    run = new_id()
    with Held(site, place, run) as held:
        with pytest.raises(BusyError, match=f"is being loaded by run {run}"):
            site.run()
        held.let_go()
        assert told_of(held.outcome()) == ("done", "SUCCESS")
    check_visible(site, run, 2)


@pytest.mark.parametrize(
    "place", ["bulk_write.parsed", "bulk_write.before_check", "bulk_write.before_commit"]
)
def test_a_holder_whose_lease_connection_drops_is_ended(site18: MakeSite, place: str) -> None:
    """Given a live publish whose lock was lost, when another run takes over, only that publishes."""
    site = site18(DDL, TABLES)
    first = site.load(delivery(1)).batch_id
    site.deliver(delivery(2))
    run, taker = new_id(), new_id()
    with Held(site, place, run) as held:
        assert site.sql(END_LEASE, KEY) == [(True,)]
        assert site.run(run_id=taker).status == "SUCCESS"
        held.let_go()
        assert isinstance(held.outcome(), (PublishError, LeaseLostError))
    check_visible(site, taker, 2)
    assert published(site) == [first, taker]


@pytest.mark.parametrize(
    "place",
    [
        "ingest.copied", "checksum.read", "bulk_write.parsed", "bulk_write.before_check",
        "bulk_write.before_fence", "bulk_write.before_commit",
    ],
)  # fmt: skip
def test_a_hung_holder_is_taken_over_and_publishes_nothing_afterwards(
    site18: MakeSite, place: str
) -> None:
    """Given a stopped process, when its lease has expired and it goes on after the taker."""
    site = site18(DDL, TABLES)
    site.settings = site.settings.model_copy(update={"lease_seconds": 1.0})
    before = site.load(delivery(1)).batch_id
    site.deliver(delivery(2))
    hung, taker = new_id(), new_id()
    with importing(site, hung, at=At(place, signal=signal.SIGSTOP)) as child:
        child.wait_until_stopped()
        check_stamps = site.stamps("parents"), site.stamps("children")
        assert check_stamps == ({before: ROWS}, {before: ROWS})
        assert site.run(run_id=taker).status == "SUCCESS"
        child.signal(signal.SIGCONT)
        outcome = child.outcome()
        assert outcome is not None
        assert outcome[0] != "done"
    check_visible(site, taker, 2)
    assert published(site) == [before, taker]
    assert {b.batch_id: b.status for b in site.history()} == {
        before: "SUPERSEDED", hung: "FAILED", taker: "SUCCESS",
    }  # fmt: skip


@pytest.mark.parametrize("place", ["bulk_write.after_commit", "archive.written"])
def test_what_a_hung_holder_has_published_is_finished_by_the_taker(
    site18: MakeSite, place: str
) -> None:
    site = site18(DDL, TABLES)
    site.settings = site.settings.model_copy(update={"lease_seconds": 1.0})
    site.deliver(delivery(1))
    hung, taker = new_id(), new_id()
    with importing(site, hung, at=At(place, signal=signal.SIGSTOP)) as child:
        child.wait_until_stopped()
        ended = site.run(run_id=taker)
        assert (ended.batch_id, ended.status) == (hung, "SUCCESS")
        child.signal(signal.SIGCONT)
        # What is left to it is a report of the finished batch, or an error; both change nothing.
        assert child.outcome() is not None
    check_visible(site, hung, 1)
    assert published(site) == [hung]
    (bag,) = (site.settings.home / "archive").rglob("bagit.txt")
    assert bag.parent.name == hung


@short_or_long("rounds", 3, 20)
def test_partitions_of_one_feed_in_threads(site18: MakeSite, rounds: int) -> None:
    """Given 8 partitions in the same tables, when they are loaded and corrected all at once."""
    site = site18(DDL, TABLES)
    newest: dict[int, str] = {}
    with ThreadPoolExecutor(PARTITIONS) as pool:
        for value in range(rounds):
            # Half of them come first in the second round, so that loads run beside corrections.
            working = [n for n in range(PARTITIONS) if value or n % 2]
            barrier = threading.Barrier(len(working), timeout=WAIT_SECONDS)

            def work(number: int, value: int = value, barrier: threading.Barrier = barrier) -> str:
                site.deliver(delivery(value, number * ROWS), f"k{number}")
                barrier.wait()
                batch = site.run(f"k{number}")
                assert batch.status == "SUCCESS"
                return batch.batch_id

            newest |= zip(working, pool.map(work, working), strict=True)
    check_partitions(site, newest, rounds - 1)


def test_partitions_of_one_feed_in_processes(site18: MakeSite) -> None:
    """Given 8 partitions, when they are loaded, corrected, and archived, each by a process."""
    site = site18(DDL, TABLES)
    newest: dict[int, str] = {}
    for value in range(2):
        working = [n for n in range(PARTITIONS) if value or n % 2]
        barrier = FORK.Barrier(len(working))
        with ExitStack() as stack:
            children = []
            for number in working:
                site.deliver(delivery(value, number * ROWS), f"k{number}")
                newest[number] = new_id()
                children.append(
                    stack.enter_context(
                        importing(site, newest[number], key=f"k{number}", start=barrier)
                    )
                )
            assert [child.outcome() for child in children] == [("done", "SUCCESS")] * len(working)
    check_partitions(site, newest, 1)
    assert {bag.parent.name for bag in (site.settings.home / "archive").rglob("bagit.txt")} == {
        batch.batch_id for batch in site.history()
    }


def check_partitions(site: Site, newest: dict[int, str], value: int) -> None:
    """Check that each partition's newest batch is in force, and nothing else was tried."""
    assert len(newest) == PARTITIONS
    stamps = dict.fromkeys(newest.values(), ROWS)
    assert site.stamps("parents") == site.stamps("children") == stamps
    assert site.sql(READ) == [(2 * ROWS * PARTITIONS, PARTITIONS, value, value)]
    assert {b.batch_id for b in site.history() if b.status == "SUCCESS"} == set(stamps)
    assert {b.status for b in site.history()} == {"SUCCESS", "SUPERSEDED"}
    tries = PARTITIONS * value + PARTITIONS // 2
    assert len(site.history()) == tries


@short_or_long("last", 3, 40)
def test_readers_see_the_old_or_the_new(site18: MakeSite, last: int) -> None:
    site = site18(DDL, TABLES)
    site.load(delivery(0))
    done, found = threading.Event(), list[tuple[Any, ...]]()

    def read() -> None:
        with site.database.connect("reader") as connection:
            while not done.is_set():
                found.extend(connection.execute(READ))

    def between(value: Any) -> Any:
        # Whatever the reader's luck, one look is from the midst of each publish.
        found.extend(site.sql(READ))
        return value

    with (
        ThreadPoolExecutor(1) as pool,
        armed("bulk_write.before_check", between),
        armed("bulk_write.before_commit", between),
    ):
        reader = pool.submit(read)
        try:
            for value in range(1, last + 1):
                count = len(found)
                site.load(delivery(value))
                assert len(found) > count
        finally:
            done.set()
        reader.result(WAIT_SECONDS)
    whole = {(2 * ROWS, 1, value, value) for value in range(last + 1)}
    assert set(found) <= whole
    assert site.sql(READ) == [(2 * ROWS, 1, last, last)]


def dropped(connection: Connection) -> Connection:
    """Lose the answer to a COMMIT."""
    connection.close()
    message = "the connection was dropped"
    raise psycopg.OperationalError(message)


def ended(site: Site) -> Callable[[Connection], Connection]:
    """End the publishing backend, as an administrator or a failover does."""

    def end(connection: Connection) -> Connection:
        assert site.sql(END_PUBLISHING) == [(True,)]
        if connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
            connection.execute("SELECT")
        return connection

    return end


@pytest.mark.parametrize("how", ["dropped", "ended"])
def test_a_commit_whose_answer_is_lost_counts_once(site18: MakeSite, how: str) -> None:
    site = site18(DDL, TABLES)
    site.load(delivery(1))
    action = dropped if how == "dropped" else ended(site)
    with armed("bulk_write.after_commit", action):
        batch = site.load(delivery(2))
    assert batch.status == "SUCCESS"
    check_visible(site, batch.batch_id, 2)
    assert site.run().status == "DUPLICATE"
    assert len(published(site)) == 2
    check_visible(site, batch.batch_id, 2)


def test_a_backend_ended_before_its_commit_has_written_nothing(site18: MakeSite) -> None:
    site = site18(DDL, TABLES)
    before = site.load(delivery(1)).batch_id
    site.deliver(delivery(2))
    with (
        armed("bulk_write.before_commit", ended(site)),
        pytest.raises(PublishError, match="SQLSTATE 57P01"),
    ):
        site.run()
    assert site.newest().status == "FAILED"
    check_visible(site, before, 1)
    batch = site.run()
    check_visible(site, batch.batch_id, 2)
    assert published(site) == [before, batch.batch_id]


@short_or_long("times", 5, 60)
def test_a_backend_ended_around_its_commit_counts_once_or_not(site18: MakeSite, times: int) -> None:
    site = site18(DDL, TABLES)
    before = site.load(delivery(0)).batch_id
    dice = random.Random(20240501)  # noqa: S311  # moments, not secrets
    counts = 1
    for value in range(1, times + 1):
        site.deliver(delivery(value))
        run, threads = new_id(), list[threading.Thread]()

        def end(seconds: float) -> None:
            with site.database.connect("end") as connection:
                time.sleep(seconds)
                connection.execute(END_PUBLISHING)

        def soon(connection: Connection, threads: list[threading.Thread] = threads) -> Connection:
            threads.append(threading.Thread(target=end, args=(dice.uniform(0, 0.004),)))
            threads[0].start()
            time.sleep(dice.uniform(0, 0.008))
            return connection

        with armed("bulk_write.before_commit", soon):
            outcome = attempt(site, run_id=run)
        threads[0].join()
        if isinstance(outcome, BatchError):
            assert site.newest().status == "FAILED"
            check_visible(site, before, value - 1)
            before = site.run().batch_id
        else:
            before = run
        counts += 1
        check_visible(site, before, value)
        assert len(published(site)) == counts


def test_two_partitions_are_written_at_once_unless_the_feed_wants_one_writer(
    site18: MakeSite,
) -> None:
    """Given a batch that is publishing, one of another partition goes ahead, or waits for its end."""
    for one_writer in (False, True):
        site = site18(
            "DROP TABLE IF EXISTS t; CREATE TABLE t (id int, import_batch_id uuid)",
            one_writer=one_writer,
        )
        # A first batch of a feed makes a version of its signature, for which the others wait anyway.
        site.deliver({"t.csv": f"id\n0\n{int(one_writer)}\n"}, f"before-{one_writer}")
        site.run(f"before-{one_writer}")
        first, second = f"first-{one_writer}", f"second-{one_writer}"
        site.deliver({"t.csv": f"id\n1\n{int(one_writer)}\n"}, first)
        site.deliver({"t.csv": f"id\n2\n{int(one_writer)}\n"}, second)
        with (
            Held(site, "bulk_write.before_fence", new_id(), first) as held,
            ThreadPoolExecutor() as pool,
        ):
            other = pool.submit(attempt, site, second)
            if one_writer:
                deadline = time.monotonic() + WAIT_SECONDS
                while not site.count(WAITING):
                    assert not other.done()
                    assert time.monotonic() < deadline
                    time.sleep(0.02)
            else:
                assert told_of(other.result(WAIT_SECONDS)) == ("done", "SUCCESS")
            held.let_go()
            assert told_of(held.outcome()) == ("done", "SUCCESS")
            assert told_of(other.result(WAIT_SECONDS)) == ("done", "SUCCESS")
        assert site.count("SELECT count(*) FROM t") == 6


class Held:
    """A run in a thread that waits at a place until it is let go."""

    def __init__(self, site: Site, place: str, run_id: str, key: str = KEY) -> None:
        self._arrived, self._go = threading.Event(), threading.Event()
        self._pool = ThreadPoolExecutor(1)
        self._armed = armed(place, self._wait)
        self._site, self._run_id, self._key = site, run_id, key

    def __enter__(self) -> Self:
        self._armed.__enter__()
        self._future = self._pool.submit(attempt, self._site, self._key, self._run_id)
        assert self._arrived.wait(WAIT_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self.let_go()
        self._armed.__exit__(None, None, None)
        self._pool.shutdown()

    def let_go(self) -> None:
        """Let the run go on."""
        self._go.set()

    def outcome(self) -> Batch | BatchError:
        """Wait for the run's end."""
        return self._future.result(WAIT_SECONDS)

    def _wait(self, value: Any) -> Any:
        # Only the first to arrive is held; a taker passes the same place.
        if not self._arrived.is_set():
            self._arrived.set()
            assert self._go.wait(WAIT_SECONDS)
        return value
