"""Runs a scenario in a process of its own, in which a fault strikes, and looks at what is left."""

from __future__ import annotations

import os
import shutil
import signal
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from batch_pipelines.engine.audit.verify import verify_audit
from batch_pipelines.engine.errors import BatchError
from batch_pipelines.engine.ledger import archives, proofs, stages
from batch_pipelines.engine.ledger.batches import IN_FORCE
from batch_pipelines.engine.ledger.stages import STAGES
from batch_pipelines.engine.postgres.database import Database
from batch_pipelines.engine.postgres.migrate import upgrade
from batch_pipelines.engine.postgres.programs import binaries, run_as_server
from batch_pipelines.engine.settings import Settings
from batch_pipelines.engine.work import explain
from tests.engine.reliability.faults import Fate, restore_backup
from tests.engine.reliability.scenario import DDL
from tests.engine.reliability.scenarios import SCENARIOS
from tests.engine.reliability.steps import Step, Watch
from tests.engine.verification.support_verify import verify
from tests.support_engine import KEY, Site, new_id
from tests.support_process import FORK, start_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection as Pipe

    from tests.engine.reliability.faults import Fault
    from tests.engine.reliability.scenario import Scenario
    from tests.support_memory import RoomyServer

_HANGS_SECONDS = 300
# By the other strategy a copy's sequences forget, in a crash, numbers that were given: their pages are
# logged as they are, and not as what they have logged ahead.
_COPY = "CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY"
_OTHERS = """
SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
    AND backend_type = 'client backend'
"""
_UNENDED = (
    "SELECT count(*) FROM batch_audit.batch_stage WHERE status = 'IN_PROGRESS'",
    "SELECT count(*) FROM batch_audit.batch_lease WHERE released_at IS NULL",
    "SELECT count(*) FROM batch_audit.staged_table",
    "SELECT count(*) FROM batch_audit.retention_chunk WHERE ended_at IS NULL",
    "SELECT count(*) FROM batch_audit.alert WHERE kind = 'retention' AND resolved_at IS NULL",
)
_TABLES = ("parents", "children")
_CONTENT = "SELECT (to_jsonb(t) - 'import_batch_id')::text FROM {} t ORDER BY id"
_STAMPS = """
SELECT t, s, n FROM (
    SELECT 'public.parents' t, import_batch_id::text s, count(*) n FROM parents GROUP BY 2
    UNION ALL SELECT 'public.children', import_batch_id::text, count(*) FROM children GROUP BY 2) AS x
WHERE s IS NOT NULL ORDER BY 1, 2
"""


@dataclass
class Recorder:
    """Takes down all steps."""

    steps: list[Step] = field(default_factory=list)

    def before(self, step: Step, _: Any) -> None:
        """Take it down."""
        self.steps.append(step)

    def after(self, step: Step, subject: Any) -> None:
        """Nothing more."""


@dataclass(frozen=True)
class Ended:
    """How the process of a scenario ended.

    Attributes:
        how: `done`, `killed`, or the name of the error.
        message: Of the error.
        struck: Whether the fault has happened; None where the process was killed.
        steps: What a recorder has taken down.
        texts: Statements that change state.
    """

    how: str
    message: str
    struck: bool | None
    steps: tuple[Step, ...]
    texts: frozenset[str]


class Arena:
    """A server of its own, which may be stopped at any time, with a database for each scenario."""

    def __init__(self, server: RoomyServer, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self._run = uuid.uuid4().hex[:8]
        self._prepared: set[str] = set()

    def crash(self) -> None:
        """Stop the server at once, as if it had crashed, and start it again."""
        crash(self.server)

    @contextmanager
    def site(self, scenario: Scenario) -> Iterator[Site]:
        """Make a copy of the scenario's place, as prepared, for the length of a block."""
        template = f"arena_{self._run}_{scenario.name.replace(' ', '_')}"
        if template not in self._prepared:
            self._prepare(scenario, template)
            self._prepared.add(template)
        name = f"arena_{uuid.uuid4().hex[:12]}"
        self._admin(_COPY.format(name, template))
        shutil.copytree(self.folder / template, self._place)
        try:
            with self._open(scenario, Database(self.server.url(name))) as site:
                yield site
        finally:
            self._admin(f"DROP DATABASE {name} WITH (FORCE)")
            shutil.rmtree(self._place)

    @contextmanager
    def opened_again(self, scenario: Scenario, site: Site) -> Iterator[Site]:
        """Open a site anew: its connection went with the server."""
        with self._open(scenario, site.database) as opened:
            yield opened

    @property
    def _place(self) -> Path:
        """Where each copy stands: the ledger has full paths of bags, so it is the same for all."""
        return self.folder / "site"

    def _prepare(self, scenario: Scenario, template: str) -> None:
        ledger = f"arena_{self._run}"
        if not self._prepared:
            self._admin(f"CREATE DATABASE {ledger}")
            upgrade(Database(self.server.url(ledger)))
        self._admin(_COPY.format(template, ledger))
        with self._open(scenario, Database(self.server.url(template))) as site:
            site.connection.execute(DDL)
            scenario.prepare(site)
            # Folders are told apart by their names.
            (site.settings.root / "landing").mkdir(exist_ok=True)
        self._place.rename(self.folder / template)

    @contextmanager
    def _open(self, scenario: Scenario, database: Database) -> Iterator[Site]:
        folder = self._place
        (folder / "feeds").mkdir(parents=True, exist_ok=True)
        settings = Settings(home=folder / "home", feeds=folder / "feeds")
        with database.connect("test") as connection:
            yield Site(database, settings, scenario.feed, connection)

    def _admin(self, statement: str) -> None:
        with psycopg.connect(self.server.url("postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())


def crash(server: RoomyServer) -> None:
    """Stop a server with `-m immediate`, wait until it is gone, and start it again."""
    stop = (
        str(binaries() / "pg_ctl"),
        "stop",
        "-D",
        str(server.folder / "data"),
        "-m",
        "immediate",
    )
    run_as_server(*stop, "--wait")
    server.start()


def run(
    arena: Arena, site: Site, scenario: Scenario, run_id: str, at: tuple[Step, Fault] | None = None
) -> Ended:
    """Run a scenario in a process of its own to its end."""
    start_server()
    answer, told = FORK.Pipe(duplex=False)
    place = (site.database, site.settings, scenario.name, run_id, at, arena.server)
    process = FORK.Process(target=_main, args=(*place, told), daemon=True)
    process.start()
    told.close()
    try:
        found: Ended | None = None
        if answer.poll(_HANGS_SECONDS):
            try:
                found = answer.recv()
            except EOFError:
                found = None
        process.join(_HANGS_SECONDS)
        assert process.exitcode is not None, f"{scenario.name} hangs at {at}"
        if process.exitcode == -signal.SIGKILL:
            return Ended("killed", "", None, (), frozenset())
        assert found is not None, f"{scenario.name} ended without a word at {at}"
        return found
    finally:
        process.kill()
        process.join()
        process.close()
        answer.close()


def _main(
    database: Database,
    settings: Settings,
    name: str,
    run_id: str,
    at: tuple[Step, Fault] | None,
    server: RoomyServer,
    told: Pipe,
) -> None:
    os.chdir(settings.root)
    scenario = next(each for each in SCENARIOS if each.name == name)
    recorder = Recorder()
    fate = None
    if at is not None:
        fate = Fate(*at, server.url("postgres"), lambda: crash(server), backup_of(settings))
    with database.connect("test") as connection:
        watch = Watch(fate or recorder, settings.home)
        watch.start()
        try:
            scenario.act(Site(database, settings, scenario.feed, connection), watch, run_id)
        except Exception as error:  # noqa: BLE001  # the test judges
            how, message = type(error).__name__, explain(error)
        else:
            how, message = "done", ""
        # One that was struck at its COMMIT does not end as others do.
        connection.close()
    struck = None if fate is None else fate.struck
    told.send(Ended(how, message, struck, tuple(recorder.steps), frozenset(watch.texts)))


def content(site: Site, scenario: Scenario) -> list[Any]:
    """Give all rows, without their stamps, and what else changes with them."""
    also = [site.sql(scenario.also)] if scenario.also else []
    return [*(site.sql(_CONTENT.format(table)) for table in _TABLES), *also]


def backup_of(settings: Settings) -> Path:
    """Say where a backup has what was taken away of bags."""
    return settings.root / "backup"


def require_true(site: Site, scenario: Scenario, before: list[Any], after: list[Any]) -> bool:
    """Check that nothing is half-visible, the books balance and the ledger tells the truth.

    Returns:
        Whether the scenario has happened.
    """
    # What a killed client's backend still does, it does within its transaction.
    _wait_for_others(site)
    now = content(site, scenario)
    assert now in (before, after), "half-visible"
    history = site.history()
    in_force = [batch for batch in history if batch.status in IN_FORCE]
    assert len({batch.partition_key for batch in in_force}) == len(in_force)
    stamps = {(table, batch): rows for table, batch, rows in site.sql(_STAMPS)}
    assert {batch for _, batch in stamps} == {batch.batch_id for batch in in_force}
    for batch in in_force:
        balances = proofs.tables(site.connection, batch.batch_id)
        for b in balances:
            written = b.stored + (b.erased or 0)
            counted = written + b.rejected + b.skipped + b.superseded_within
            assert counted == b.source_records, (b, "the books do not balance")
            # Another partition may have written over rows since.
            assert len(in_force) > 1 or stamps[b.target_table, batch.batch_id] == b.stored
        assert batch.written_records == sum(b.stored + (b.erased or 0) for b in balances)
        assert batch.rejected_records == sum(b.rejected for b in balances)
    done = site.sql(
        "SELECT h.status, s.stage FROM batch_audit.batch_stage s JOIN batch_audit.import_history h"
        " USING (batch_id) WHERE s.status = 'SUCCESS' AND s.stage IN ('validate', 'archive')"
    )
    assert {status for status, _ in done} <= {
        "SUCCESS", "PARTIAL_SUCCESS", "SUPERSEDED", "ROLLED_BACK", "ARCHIVED",
    }  # fmt: skip
    return bool(now == after)


def require_clean(site: Site) -> None:
    """Check that nothing is left of a run that ended badly, and that every batch is proven."""
    history = site.history()
    for batch in history:
        assert batch.status != "IN_PROGRESS", batch
        if batch.status in IN_FORCE:
            assert batch.status in {"SUCCESS", "PARTIAL_SUCCESS"}, batch
            proven = verify(site, batch)
            assert {table.status for table in proven.tables} <= {"VALID", "SUCCESS"}, proven
    for unended in _UNENDED:
        assert site.count(unended) == 0, unended
    tables = "SELECT count(*) FROM pg_class WHERE relnamespace = 'batch_staging'::regnamespace"
    assert site.count(tables) == 0
    staging = site.settings.staging
    left = {path.name for path in (staging.iterdir() if staging.exists() else [])}
    # A retry may go on with one that was cancelled.
    assert left <= {batch.batch_id for batch in history[-1:] if batch.status == "FAILED"}
    kept = site.settings.home / "archive"
    assert list(kept.rglob(".*")) == []
    bags = {tag.parent.name for tag in kept.rglob("bagit.txt")}
    known = [a for each in history for a in archives.of_batch(site.connection, each.batch_id)]
    assert bags == {Path(archived.place).name for archived in known}
    _wait_for_others(site)
    found = verify_audit(site.connection, site.settings.anchors_folder)
    assert found.status == "SUCCESS", found
    locks = (
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM"
    )
    assert site.count(f"{locks} pg_database WHERE datname = current_database())") == 0


def require_kept(
    site: Site, scenario: Scenario, before: frozenset[str], after: frozenset[str]
) -> frozenset[str]:
    """Check that nothing is lost, and nothing there that should not be.

    Returns:
        What is kept.
    """
    now = frozenset() if scenario.kept is None else scenario.kept(site)
    lost, too_much = sorted((before & after) - now), sorted(now - (before | after))
    assert not lost, ("in neither place", len(lost), lost[:5])
    assert not too_much, ("nobody should have it", len(too_much), too_much[:5])
    return now


def _wait_for_others(site: Site) -> None:
    deadline = time.monotonic() + 60
    while site.sql(_OTHERS):
        assert time.monotonic() < deadline, "a connection is left"
        time.sleep(0.01)


def again(site: Site, scenario: Scenario, *, resume: bool) -> None:
    """Do the same once more, in peace.

    Args:
        site: Where.
        scenario: What.
        resume: Whether to go on from the stage that failed, as a retry of Dagster's does, where a batch
            of the run has come so far; else all of it.
    """
    for batch in site.history()[-1:] if resume and scenario.resumes else []:
        ended = stages.of_batch(site.connection, batch.batch_id)
        done = [stage for stage in STAGES if stage in ended and ended[stage].status == "SUCCESS"]
        if done and len(done) < len(STAGES) and batch.duplicate_of is None:
            site.run(stages=STAGES[len(done) :])
            return
    try:
        scenario.act(site, Watch(Recorder(), site.settings.home), new_id())
    except BatchError as error:
        # Where somebody has removed what nobody else has, an error says so, and what to do instead.
        if "from a backup" in str(error) and restore_backup(backup_of(site.settings)):
            scenario.act(site, Watch(Recorder(), site.settings.home), new_id())
        elif "--force" in str(error):
            site.run(force=True)
        else:
            raise


__all__ = [
    "KEY",
    "Arena",
    "Ended",
    "Recorder",
    "again",
    "content",
    "require_clean",
    "require_kept",
    "require_true",
    "run",
]
