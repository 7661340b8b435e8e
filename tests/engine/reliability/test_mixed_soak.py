"""Hundreds of mixed batches over all feeds with random faults, and afterwards nothing is wrong or left.

Corrections, damaged files, duplicates, kills, rollbacks, replays and retention, one after the other in a
random order. Each ends as it should or says clearly why not; what the ledger, the tables and the bags
hold in the end is proven again as `verify --all --audit` does.
"""

from __future__ import annotations

import datetime as dt
import random
import shutil
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import psutil

from batch_pipelines.engine.archive import archive
from batch_pipelines.engine.audit.verify import verify_audit
from batch_pipelines.engine.bulk_write import bulk_write
from batch_pipelines.engine.errors import BatchError
from batch_pipelines.engine.ledger import archives
from batch_pipelines.engine.ledger import batches as ledger
from batch_pipelines.engine.ledger.batches import IN_FORCE
from batch_pipelines.engine.recovery.ending import end_dead
from batch_pipelines.engine.recovery.held import held_leases
from batch_pipelines.engine.retention.course import Retention, require_done
from batch_pipelines.engine.retention.plan import Planner
from batch_pipelines.engine.retention.record import Course
from batch_pipelines.engine.rollback import Request, roll_back
from batch_pipelines.engine.validate import require_valid, validate
from batch_pipelines.engine.verification.verify import Verifier
from tests.engine.reliability.mixed_feeds import MENDED, Files, ddl, deliver, shipped
from tests.support_engine import Site, new_id
from tests.support_process import At, importing
from tests.support_soak import short_or_long

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.ledger.batches import Batch
    from tests.engine.conftest import MakeSite

_PLACES = (
    "ingest.copied", "checksum.read", "bulk_write.parsed", "bulk_write.before_check",
    "bulk_write.before_commit", "bulk_write.after_commit", "archive.written", "archive.sealed",
)  # fmt: skip
_OTHERS = """
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
    AND backend_type = 'client backend'
"""
_ADVISORY = """
SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_NONE = (
    "SELECT count(*) FROM batch_audit.batch_stage WHERE status = 'IN_PROGRESS'",
    "SELECT count(*) FROM batch_audit.import_history WHERE status = 'IN_PROGRESS'",
    "SELECT count(*) FROM batch_audit.batch_lease WHERE released_at IS NULL",
    "SELECT count(*) FROM batch_audit.staged_table",
    "SELECT count(*) FROM pg_class WHERE relnamespace = 'batch_staging'::regnamespace",
)
_OLDER = """
UPDATE batch_audit.import_history SET started_at = started_at - interval '100 days',
    published_at = published_at - interval '100 days', completed_at = completed_at - interval '100 days'
WHERE batch_id = %s
"""
_REJECTED = """
SELECT DISTINCT h.batch_id::text FROM batch_audit.import_history h
JOIN batch_audit.import_reject r USING (batch_id)
WHERE h.status = ANY(%s) AND h.feed = 'departures' AND r.replayed_at IS NULL ORDER BY 1
"""
_STAMPS = """
SELECT import_batch_id::text, count(*) FROM public.{} WHERE import_batch_id IS NOT NULL GROUP BY 1
"""
_WAL = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint"
_DEAD = (
    "SELECT coalesce(sum(n_dead_tup), 0) FROM pg_stat_user_tables WHERE schemaname <> 'batch_audit'"
)
_ALL, _MB = 1_000_000, 1_000_000
# Python's and Arrow's allocators keep some of what was in use at once.
_MOST_GROWTH = 60 * _MB


@dataclass
class Mill:
    """All feeds in one database, and somebody who lets things happen to them.

    Attributes:
        site: Database and folders; its feed is changed for each import.
        feeds: The feeds by name.
        chance: Decides.
        landed: What lies in landing, by feed and number of the partition.
        happened: How often what.
        wal_of_failed: Bytes of WAL written while batches failed.
    """

    site: Site
    feeds: dict[str, Feed]
    chance: random.Random
    landed: dict[tuple[str, int], Files] = field(default_factory=dict)
    happened: Counter[str] = field(default_factory=Counter)
    wal_of_failed: int = 0

    def step(self, keys: int) -> None:
        """Let one thing happen.

        Args:
            keys: Partitions of each feed.
        """
        does: dict[Callable[[], str], int] = {
            lambda: self._deliver(keys): 50, self._deliver_again: 8, lambda: self._damage(keys): 8,
            lambda: self._kill(keys): 9, self._roll_back: 10, self._replay: 8, self._retain: 4,
        }  # fmt: skip
        (act,) = self.chance.choices([*does], [*does.values()])
        wal = self.site.count(_WAL)
        try:
            what = act()
        except BatchError as error:
            # A clear refusal or failure; whatever else is raised fails the test.
            what = type(error).__name__
            self.wal_of_failed += self.site.count(_WAL) - wal
        self.happened[what] += 1

    def _deliver(self, keys: int) -> str:
        feed, key = self._somewhere(keys)
        known = (feed, key) in self.landed
        self._land(feed, key, deliver(feed, key, self.chance))
        self._import(feed, key)
        return "corrected" if known else "delivered"

    def _deliver_again(self) -> str:
        if not self.landed:
            return "nothing to do"
        feed, key = self.chance.choice(sorted(self.landed))
        return self._import(feed, key).status.lower()

    def _damage(self, keys: int) -> str:
        feed, key = self._somewhere(keys)
        files = deliver(feed, key, self.chance)
        name = self.chance.choice(sorted(files))
        match self.chance.randrange(3):
            case 0:
                files[f"{name}.crc32c"] = b"00000001\n"
            case 1:
                files[name] = files[name][: len(files[name]) // 2]
            case _:
                at = self.chance.randrange(len(files[name]))
                files[name] = files[name][:at] + b"\x00\xff" + files[name][at + 2 :]
        self._land(feed, key, files)
        self._import(feed, key)
        return "damaged, and loaded what could be"

    def _kill(self, keys: int) -> str:
        feed, key = self._somewhere(keys)
        self._land(feed, key, deliver(feed, key, self.chance))
        self.site.feed = self.feeds[feed]
        run_id = new_id()
        at = At(self.chance.choice(_PLACES))
        wal = self.site.count(_WAL)
        with importing(self.site, run_id, at=at, key=str(key)) as run:
            ended = run.outcome()
        if ended is None:
            self.wal_of_failed += self.site.count(_WAL) - wal
            if self.chance.random() < 0.5:
                self._import(feed, key)
            return "killed"
        return "not killed"

    def _roll_back(self) -> str:
        batch = self._some_in_force()
        if batch is None:
            return "nothing to do"
        request = Request(
            (batch.batch_id,), reason="the soak", requested_by="a tester",
            cascade=self.chance.random() < 0.5,
        )  # fmt: skip
        roll_back(self.site.database, self.site.settings, self.feeds, request)
        return "rolled back"

    def _replay(self) -> str:
        found = [row[0] for row in self.site.sql(_REJECTED, [*IN_FORCE])]
        if not found:
            return "nothing to do"
        batch = ledger.by_id(self.site.connection, self.chance.choice(found))
        self.site.sql(MENDED, [f"M{batch.partition_key}_{n}" for n in range(3)])
        self.site.feed = self.feeds[batch.feed]
        with self.site.work(batch.partition_key) as (connection, work):
            bulk_write(connection, work, replay=True)
            require_valid(validate(connection, work))
            archive(connection, work)
        return "replayed"

    def _retain(self) -> str:
        batch = self._some_in_force("flights", "departures")
        if batch is None:
            return "nothing to do"
        self.site.sql(_OLDER, batch.batch_id)
        planner = Planner(self.feeds, (), dt.datetime.now(dt.UTC))
        course = Course(new_id(), "a tester")
        require_done(Retention(self.site.database, self.site.settings, planner, course).run())
        return "retention"

    def _somewhere(self, keys: int) -> tuple[str, int]:
        return self.chance.choice(sorted(self.feeds)), self.chance.randrange(keys)

    def _some_in_force(self, *feeds: str) -> Batch | None:
        found = [
            each
            for each in self.history()
            if each.status in IN_FORCE and (not feeds or each.feed in feeds)
        ]
        return self.chance.choice(found) if found else None

    def _land(self, feed: str, key: int, files: Files) -> None:
        folder: Path = self.site.settings.root / "landing" / feed / str(key)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)
        self.landed[feed, key] = files

    def _import(self, feed: str, key: int) -> Batch:
        self.site.feed = self.feeds[feed]
        return self.site.run(str(key))

    def history(self) -> list[Batch]:
        """All batches, oldest first."""
        return ledger.history(self.site.connection, limit=_ALL)[::-1]

    def end_dead_runs(self) -> None:
        """Do what the daemon does about runs that were killed, and that nobody took over."""
        self._wait(_ADVISORY)
        for lease in held_leases(self.site.connection):
            end_dead(
                self.site.database, self.site.settings, lease.feed, lease.partition_key,
                "It was killed.", "dead_run", run_id=lease.run_id, token=lease.token, by_run=new_id(),
            )  # fmt: skip

    def require_nothing_left(self) -> None:
        """Check that no connection, lock, lease, stage, table or folder is left."""
        self._wait(_OTHERS)
        self._wait(_ADVISORY)
        for statement in _NONE:
            assert self.site.count(statement) == 0, statement
        history = self.history()
        newest = {(each.feed, each.partition_key): each for each in history}
        retried = {each.batch_id for each in newest.values() if each.status == "FAILED"}
        unarchived = {
            each.batch_id
            for each in history
            if each.status in IN_FORCE and archives.bag(self.site.connection, each.batch_id) is None
        }
        staging = self.site.settings.staging
        staged = {path.name for path in (staging.iterdir() if staging.exists() else ())}
        assert staged <= retried | unarchived
        kept = self.site.settings.home / "archive"
        assert list(kept.rglob(".*")) == []

    def require_proven(self) -> None:
        """Check what `verify --all --audit` does, and that each row is of a batch in force."""
        history = self.history()
        in_force = {each.batch_id: each for each in history if each.status in IN_FORCE}
        verifier = Verifier(self.site.settings, self.feeds, "a tester")
        with self.site.database.connect("verify") as connection:
            for each in history:
                if each.published_at is not None:
                    found = verifier.verify(connection, each)
                    assert found.status in {"SUCCESS", "PARTIAL_SUCCESS"}, found
            trail = verify_audit(connection, self.site.settings.anchors_folder)
        assert trail.status == "SUCCESS", trail
        for table in ("flights", "departures"):
            stamped = dict(self.site.sql(_STAMPS.format(table)))
            expected = {
                batch.batch_id: batch.written_records
                for batch in in_force.values()
                if batch.feed == table and batch.written_records
            }
            assert stamped == expected

    def _wait(self, statement: str) -> None:
        """Wait until the server has noticed that whoever was killed is gone."""
        deadline = time.monotonic() + 60
        while self.site.count(statement):
            assert time.monotonic() < deadline, statement
            time.sleep(0.02)


@short_or_long("batches", 12, 1000)
def test_after_many_mixed_batches_nothing_is_wrong_and_nothing_left(
    site18: MakeSite, batches: int, record_property: Callable[[str, object], None]
) -> None:
    # Sessions that are left over shall be seen, so each run has its own.
    site = replace(site18(ddl()), sessions=None)
    mill = Mill(site, shipped(), random.Random(20261122))  # noqa: S311  # no secret
    process = psutil.Process()
    memory = []
    while (done := len(mill.history())) < batches:
        mill.step(keys=max(3, batches // 60))
        if done >= batches // 10:
            memory.append(process.memory_info().rss)
    mill.end_dead_runs()
    mill.require_nothing_left()
    mill.require_proven()
    statuses = Counter(each.status for each in mill.history())
    record_property(
        "soak",
        f"{done} batches ({_told(statuses)}); {_told(mill.happened)}; "
        f"resident {memory[0] / _MB:.0f} MB at a tenth, {memory[-1] / _MB:.0f} MB at the end; "
        f"{mill.wal_of_failed / _MB:.1f} MB of WAL by what failed, "
        f"{mill.site.count(_DEAD):,} dead tuples in the tables",
    )
    assert memory[-1] < memory[0] + _MOST_GROWTH


def _told(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))
