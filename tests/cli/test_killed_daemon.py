"""`dev` at work, and its processes killed at random: each delivery is loaded, and none twice.

Killed are processes of runs, the daemon's code server (and so `dev` with it, which is started again),
and PostgreSQL's backends, whose server then starts anew under everybody.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import psutil
import psycopg
import pytest

from batch_pipelines.engine.postgres.database import DAGSTER_DATABASE, DATA_DATABASE
from batch_pipelines.engine.postgres.server import EmbeddedServer
from batch_pipelines.engine.processes import Process, life
from resources.runs import PROCESS_TAG
from tests.support_dev import start_dev
from tests.support_shop import FEED, environment, open_shop, orders

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

KILLS, DELIVERIES, ROWS = 200, 150, 2_000
# As many kills as that take place within it; on a busy machine a run takes a minute.
KILLING_SECONDS = 20 * 60
# Most often runs, as there are most of them; a code server's death takes half a minute of work with it.
WHOM: tuple[tuple[Whom, int], ...] = (("run", 16), ("backend", 3), ("code server", 1))
# How long nothing may get on; a run takes seconds, and a dead one is noticed within a minute or two.
_PATIENCE_SECONDS = 900
_RERUN = "rerun: {attempts: 100, first_pause: 1s, longest_pause: 5s}\n"
_RUNNING = """
SELECT t.value FROM public.runs AS r JOIN public.run_tags AS t USING (run_id)
WHERE r.status = 'STARTED' AND t.key = %s
"""
_SECONDS = """
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY end_time - start_time)
FROM public.runs WHERE status = 'SUCCESS'
"""
_BACKENDS = """
SELECT pid FROM pg_stat_activity
WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND datname = current_database()
"""
_LOADED = """
SELECT h.partition_key, h.status, count(o.id), count(DISTINCT o.id), min(o.id)
FROM batch_audit.import_history AS h JOIN public.orders AS o ON o.import_batch_id = h.batch_id
GROUP BY h.batch_id ORDER BY h.partition_key
"""
_PROGRESS = """
SELECT count(*) FILTER (WHERE status IN ('SUCCESS', 'PARTIAL_SUCCESS')), count(*),
       count(*) FILTER (WHERE status = 'FAILED' AND error_details IS NULL)
FROM batch_audit.import_history
"""
_HELD = "SELECT count(*) FROM batch_audit.batch_lease WHERE released_at IS NULL"
_OPEN = (
    "SELECT count(*) FROM batch_audit.import_history WHERE status IN ('IN_PROGRESS', 'PUBLISHED')"
)
_NOT_OVER = """
SELECT count(*) FROM public.runs WHERE status NOT IN ('SUCCESS', 'FAILURE', 'CANCELED')
"""
_SLOTS = "SELECT count(*) FROM public.concurrency_slots WHERE run_id IS NOT NULL"

Whom = Literal["run", "backend", "code server"]


@dataclass
class Killer:
    """Kills, and counts.

    Attributes:
        server: The embedded server.
        dev: The process of `dev`.
        dice: Chooses.
        killed: How often whom.
    """

    server: EmbeddedServer
    dev: psutil.Popen
    dice: random.Random
    killed: Counter[str] = field(default_factory=Counter)

    def strike(self) -> None:
        """Kill one of whom there are, while a run is at work."""
        runs = self._runs()
        whom = self.dice.choices(*zip(*WHOM, strict=True))[0]
        match whom if runs else None:
            case None:
                return
            case "run":
                found = runs
            case "backend":
                found = self.ask(DATA_DATABASE, _BACKENDS)
            case _:
                found = self._code_servers()
        if found:
            with suppress(ProcessLookupError):
                os.kill(self.dice.choice(found), signal.SIGKILL)
                self.killed[whom] += 1

    def _runs(self) -> list[int]:
        told = self.ask(DAGSTER_DATABASE, _RUNNING, PROCESS_TAG)
        known = [Process.read(str(value).partition(" ")[2]) for value in told]
        return [each.pid for each in known if each is not None and life(each) == "alive"]

    def _code_servers(self) -> list[int]:
        found = []
        with suppress(psutil.Error):
            for each in self.dev.children(recursive=True):
                with suppress(psutil.Error):
                    if "grpc" in each.cmdline():
                        found.append(each.pid)
        return found

    def ask(self, database: str, query: str, *parameters: object) -> list[Any]:
        """Ask for a column; nothing comes while the server starts."""
        try:
            with psycopg.connect(self.server.url(database), connect_timeout=10) as connection:
                return [value for (value,) in connection.execute(query.encode(), parameters)]
        except psycopg.Error:
            return []


@pytest.mark.soak
def test_each_delivery_is_loaded_once_whatever_is_killed(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    open_shop(tmp_path)
    with (tmp_path / "feeds" / f"{FEED}.yaml").open("a") as file:
        file.write(_RERUN)
    for number in range(DELIVERIES):
        folder = tmp_path / "landing" / FEED / f"d{number:04}"
        folder.mkdir(parents=True)
        (folder / "orders.csv").write_text(orders(ROWS, first=1 + number * ROWS))
    surroundings = environment(tmp_path, tmp_path / "home")
    with kept_up(tmp_path, surroundings) as killer:
        deadline = time.monotonic() + KILLING_SECONDS
        # So that some runs live, and others do not: a kill for each time that a run takes.
        while sum(killer.killed.values()) < KILLS and time.monotonic() < deadline:
            time.sleep(killer.dice.uniform(0, 2 * seconds_of_a_run(killer)))
            killer.strike()
            revive(killer, tmp_path, surroundings)
        wait_until_over(killer, tmp_path, surroundings)
        record_property("killed", dict(killer.killed))
        print(killer.killed)  # noqa: T201  # how often, for who runs this alone
        with psycopg.connect(killer.server.url(DATA_DATABASE)) as connection:
            assert connection.execute(_LOADED).fetchall() == [
                (f"d{number:04}", "SUCCESS", ROWS, ROWS, 1 + number * ROWS)
                for number in range(DELIVERIES)
            ]
            assert connection.execute(_HELD).fetchone() == (0,)
            _, _, unsaid = connection.execute(_PROGRESS).fetchone() or (0, 0, 1)
            assert unsaid == 0
        with psycopg.connect(killer.server.url(DAGSTER_DATABASE)) as connection:
            assert connection.execute(_SLOTS).fetchone() == (0,)
        for typed in (["verify", "--all"], ["verify", "--audit"], ["archive", "verify", "--all"]):
            said = subprocess.run(
                [sys.executable, "-m", "batch_pipelines", *typed],
                env=surroundings, check=False, capture_output=True, text=True,
            )  # fmt: skip
            assert said.returncode == 0, (typed, said.stdout[-3000:], said.stderr)
        assert [*(tmp_path / "home" / "staging").iterdir()] == []
        assert not [*(tmp_path / "home" / "archive").rglob(".*")]


@contextmanager
def kept_up(folder: Path, surroundings: dict[str, str]) -> Iterator[Killer]:
    """Run `dev` for the length of a block."""
    server = EmbeddedServer(home=folder / "home")
    dice = random.Random(20261123)  # noqa: S311  # moments, not secrets
    killer = Killer(server, start_dev(folder, surroundings)[1], dice)
    try:
        yield killer
    finally:
        left = [killer.dev, *killer.dev.children(recursive=True)]
        killer.dev.terminate()
        for each in psutil.wait_procs(left, timeout=180)[1]:
            each.kill()
        server.stop(force=True)
        shutil.rmtree(server.folder, ignore_errors=True)
        shutil.rmtree(server.socket_folder, ignore_errors=True)


def revive(killer: Killer, folder: Path, surroundings: dict[str, str]) -> None:
    """Start `dev` again where it has ended with what was killed, as whoever keeps it up does."""
    if killer.dev.poll() is not None:
        killer.dev = start_dev(folder, surroundings)[1]
        killer.killed["dev started again"] += 1


def seconds_of_a_run(killer: Killer) -> float:
    """Say how long a run takes that nobody kills; wait for the first one."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        found = killer.ask(DAGSTER_DATABASE, _SECONDS)
        if found and found[0] is not None:
            return float(found[0])
        assert time.monotonic() < deadline, "no run has ended well"
        time.sleep(1)


def wait_until_over(killer: Killer, folder: Path, surroundings: dict[str, str]) -> None:
    """Wait until all is loaded and no run is left, for as long as there is progress."""
    before, deadline = progress(killer), time.monotonic() + _PATIENCE_SECONDS
    while before != (DELIVERIES, 0, 0):
        assert time.monotonic() < deadline, f"{before} and nothing more, of {DELIVERIES}"
        time.sleep(2)
        revive(killer, folder, surroundings)
        now = progress(killer)
        if now != before:
            before, deadline = now, time.monotonic() + _PATIENCE_SECONDS


def progress(killer: Killer) -> tuple[int, int, int]:
    """Say how many batches are loaded, how many are open or leased, and how many runs are not over."""
    try:
        with psycopg.connect(killer.server.url(DATA_DATABASE), connect_timeout=10) as connection:
            (loaded, _, _) = connection.execute(_PROGRESS).fetchone() or (0, 0, 0)
            (in_between,) = connection.execute(_OPEN).fetchone() or (0,)
        with psycopg.connect(killer.server.url(DAGSTER_DATABASE), connect_timeout=10) as connection:
            (runs,) = connection.execute(_NOT_OVER).fetchone() or (0,)
    except psycopg.Error:
        return (-1, 0, 0)  # it is starting
    return int(loaded), int(in_between), int(runs)
