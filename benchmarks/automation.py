"""What running by itself costs: ticks of landing sensors, and batches a minute.

Part one, ticks, each evaluated in a code server by gRPC as the daemon does it:

  empty sensor          it returns at once; same code server, same instance on PostgreSQL
  known                 --partitions deliveries of a file each lie in landing, all loaded before
  known and a new one   the same, with one more, which is launched
  waiting               --partitions deliveries lie there, none of them known: 100 are launched
  files, known          the same as `known`, one file a delivery, all in one folder

The bar: the first three at most one second slower than the empty sensor. No tick may come near the 60
seconds after which Dagster ends it. Cursors are told in bytes.

Part two, --batches runs by the real daemon, from its first start to its last end, in turn:

  batches               deliveries of five rows dropped into landing at once
  five empty assets     the same number of runs, asked for by a sensor

The bar: 1.5 times slower at most.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import dagster as dg
from dagster._core.test_utils import create_test_daemon_workspace_context
from dagster._core.workspace.load_target import PythonFileTarget

from batch_pipelines.engine.feed_files import load_feeds
from batch_pipelines.engine.landing.deliveries import scan
from batch_pipelines.instance import open_instance, prepared
from benchmarks import common
from benchmarks.automation_defs import RUNS_VARIABLE
from benchmarks.five_empty_assets import JOB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dagster._core.remote_representation.code_location import CodeLocation

    from benchmarks.common import Project

_RUNS, _PARTITIONS, _BATCHES = 7, 100_000, 40
_SECONDS_MORE, _TIMES_SLOWER = 1.0, 1.5
_ADDED_AT_ONCE = 25_000  # Dagster adds no more partitions at once
_PATIENCE_SECONDS = 1800
_DEFINITIONS = str(Path(__file__).with_name("automation_defs.py"))
_EMPTY = "empty sensor"
_FOLDERS, _FILES = "landing/folders/{batch}/*.csv", "landing/files/t_{batch}.csv"
_FEEDS = {
    "known": _FOLDERS,
    "fresh": _FOLDERS,
    "waiting": _FOLDERS,
    "flat": _FILES,
    "batches": "landing/batches/{batch}/*.csv",
}

_TABLE = """
CREATE TABLE IF NOT EXISTS public.{name} (
    id bigint PRIMARY KEY, amount integer NOT NULL, import_batch_id uuid
);
CREATE INDEX IF NOT EXISTS {name}_import_batch_id ON public.{name} (import_batch_id);
"""
_LOADED = """
COPY batch_audit.import_history (batch_id, job_id, feed, feed_version, partition_key, status, attempt,
    requested_by, correlation_id, fingerprint) FROM STDIN
"""


@dataclass
class Ticks:
    """Ticks of one sensor: seconds of each, what the last one launched, and bytes of its cursor."""

    sensor: str
    seconds: list[float] = field(default_factory=list)
    launched: int = 0
    cursor: str | None = None

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds)


def main() -> None:
    """Measure and print."""
    arguments = common.parser(__doc__, _RUNS)
    for name, most in (("partitions", _PARTITIONS), ("batches", _BATCHES)):
        arguments.add_argument(f"--{name}", type=int, default=most, help=f"0: leave out ({most:,})")
    arguments.add_argument("--rounds", type=common.positive, default=3, help="of part two (3)")
    options = arguments.parse_args()
    ticks: dict[str, Ticks] = {}
    rates: dict[str, list[float]] = {}
    with common.project() as project, _opened(project) as instance:
        if options.partitions:
            ticks = _measure_ticks(project, instance, options.partitions, options.runs)
        if options.batches:
            rates = _measure_rates(project, instance, options.batches, options.rounds)
        # Not afterwards: two hundred thousand files take their time to remove.
        if options.json:
            common.print_json({"ticks": {n: vars(t) for n, t in ticks.items()}, "rates": rates})
        else:
            _print(ticks, rates)
        sys.stdout.flush()


@contextmanager
def _opened(project: Project) -> Iterator[dg.DagsterInstance]:
    """Open the project's instance; what we start inherits our environment."""
    for name, path in _FEEDS.items():
        project.add_feed(name, f"public.{name}", _TABLE.format(name=name))
        file = project.settings.feeds / f"{name}.yaml"
        text = file.read_text(encoding="utf-8")
        file.write_text(text.replace(f"landing/{name}/{{batch}}/*.csv", path), encoding="utf-8")
    os.environ.update(project.environment)
    os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parents[1])
    os.environ[RUNS_VARIABLE] = str(project.folder / "empty-runs")
    with prepared(project.settings), open_instance() as instance:
        yield instance


def _measure_ticks(
    project: Project, instance: dg.DagsterInstance, partitions: int, runs: int
) -> dict[str, Ticks]:
    keys = [f"k{number:06}" for number in range(partitions)]
    for folder in ("folders", "files"):
        common.note(f"delivering {partitions:,} times to {folder}")
        _deliver(project, folder, keys)
    for feed in ("known", "flat"):
        _load(project, instance, feed)
    _load(project, instance, "fresh", without=keys[-1])
    with project.connect() as connection:
        connection.execute("VACUUM ANALYZE batch_audit.import_history")
    series = {
        _EMPTY: Ticks("empty"),
        "known": Ticks("landing_known"),
        "known and a new one": Ticks("landing_fresh"),
        "waiting": Ticks("landing_waiting"),
        "files, known": Ticks("landing_flat"),
    }
    # They have settled then.
    time.sleep(10)
    target = PythonFileTarget(_DEFINITIONS, None, None, None)
    with create_test_daemon_workspace_context(target, instance) as workspace:
        (location,) = workspace.create_request_context().code_locations
        for number in range(runs + 1):
            common.note(f"round {number} of {runs}" if number else "a round that is not counted")
            for ticks in series.values():
                seconds = _tick(location, instance, ticks)
                ticks.seconds += [seconds] if number else []
    return series


def _tick(location: CodeLocation, instance: dg.DagsterInstance, ticks: Ticks) -> float:
    (repository,) = location.get_repositories().values()
    began = time.perf_counter()
    found = location.get_sensor_execution_data(
        instance, repository.handle, ticks.sensor, None, None, ticks.cursor, None, None
    )
    seconds = time.perf_counter() - began
    ticks.cursor, ticks.launched = found.cursor, len(found.run_requests or ())
    return seconds


def _deliver(project: Project, folder: str, keys: Sequence[str], first: int = 0) -> None:
    """Deliver five rows to each partition, ready at once."""
    landing = project.folder / "landing" / folder
    made = project.folder / "made"
    landing.mkdir(parents=True, exist_ok=True)
    for number, key in enumerate(keys):
        start = first + 5 * number
        lines = ["id,amount", *(f"{start + n},{n}" for n in range(5)), ""]
        if folder == "files":
            (landing / f"t_{key}.csv").write_text("\n".join(lines), encoding="utf-8")
            continue
        made.mkdir()
        (made / "rows.csv").write_text("\n".join(lines), encoding="utf-8")
        made.rename(landing / key)


def _load(
    project: Project, instance: dg.DagsterInstance, name: str, without: str | None = None
) -> None:
    """Have ledger and Dagster know what lies in landing of a feed, as if it had been loaded."""
    feed = load_feeds(project.settings.feeds)[name]
    landed = scan(feed, project.folder)
    landed.pop(without or "", None)
    with project.connect() as connection, connection.cursor() as cursor:
        row = connection.execute("SELECT gen_random_uuid()::text").fetchone()
        prefix = str(row[0])[:24] if row else ""
        with cursor.copy(_LOADED) as copy:
            for number, (key, one) in enumerate(landed.items()):
                batch = f"{prefix}{number:012x}"
                copy.write_row(
                    (batch, batch, name, 1, key, "SUCCESS", 1, "benchmark", batch, one.fingerprint)
                )
    keys = [*landed]
    for start in range(0, len(keys), _ADDED_AT_ONCE):
        instance.add_dynamic_partitions(name, keys[start : start + _ADDED_AT_ONCE])


def _measure_rates(
    project: Project, instance: dg.DagsterInstance, batches: int, rounds: int
) -> dict[str, list[float]]:
    rates: dict[str, list[float]] = {"batches": [], JOB: []}
    asked = Path(os.environ[RUNS_VARIABLE])

    def drop(number: int) -> None:
        keys = [f"r{number}-{n:05}" for n in range(batches)]
        _deliver(project, "batches", keys, first=5 * batches * number)

    def ask(number: int) -> None:
        keys = [f"r{number}-{n:05}" for n in range(batches)]
        asked.write_text("\n".join(keys), encoding="utf-8")

    # Nothing of part one shall be launched.
    for feed in ("known", "fresh", "waiting", "flat"):
        (project.settings.feeds / f"{feed}.yaml").unlink()
    with _daemon(project):
        tasks: dict[str, Callable[[int], None]] = {"batches": drop, JOB: ask}
        for number in range(rounds):
            for name in tasks if number % 2 else reversed([*tasks]):
                common.note(f"{batches} runs of {name}, round {number + 1} of {rounds}")
                tasks[name](number)
                rates[name].append(_rate(instance, name, batches, number))
    return rates


def _rate(instance: dg.DagsterInstance, job: str, runs: int, number: int) -> float:
    """Wait for the runs of a round, and say how many a minute there were."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    wanted = dg.RunsFilter(job_name=job)
    while time.monotonic() < deadline:
        records = [
            record
            for record in instance.get_run_records(wanted)
            if record.dagster_run.tags.get("dagster/partition", "").startswith(f"r{number}-")
        ]
        failed = [r for r in records if r.dagster_run.status == dg.DagsterRunStatus.FAILURE]
        if failed:
            raise common.MeasureError(f"run {failed[0].dagster_run.run_id} of {job} failed")
        done = [r for r in records if r.end_time is not None]
        if len(done) == runs:
            starts = [record.start_time or 0.0 for record in done]
            ends = [record.end_time or 0.0 for record in done]
            return 60 * runs / (max(ends) - min(starts))
        time.sleep(1)
    raise common.MeasureError(f"{runs} runs of {job} did not end in {_PATIENCE_SECONDS} seconds")


@contextmanager
def _daemon(project: Project) -> Iterator[None]:
    command = [common.PYTHON, "-m", "dagster._daemon", "run", "-f", _DEFINITIONS]
    with (project.folder / "daemon.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            yield
        finally:
            process.terminate()
            process.wait()
            # Its code server waits for what it has launched, which nobody does any more.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _print(ticks: dict[str, Ticks], rates: dict[str, list[float]]) -> None:
    if ticks:
        empty = ticks[_EMPTY].median
        print("Ticks of sensors, medians")
        common.print_table(
            ["", "seconds", "from-to", "more", "launched", "cursor", ""],
            [
                [name, f"{each.median:.2f}", f"{min(each.seconds):.2f}-{max(each.seconds):.2f}",
                 f"{each.median - empty:.2f}", str(each.launched), str(len(each.cursor or "")),
                 "" if not name.startswith("known") else
                 "holds" if each.median - empty <= _SECONDS_MORE else "MISSED"]
                for name, each in ticks.items()
            ],
        )  # fmt: skip
    if rates:
        medians = {name: statistics.median(each) for name, each in rates.items()}
        print("\nRuns a minute by the daemon, medians")
        common.print_table(
            ["", "a minute", "rounds"],
            [
                [name, f"{medians[name]:.1f}", ", ".join(f"{rate:.1f}" for rate in each)]
                for name, each in rates.items()
            ],
        )
        slower = medians[JOB] / medians["batches"]
        verdict = "holds" if slower <= _TIMES_SLOWER else "MISSED"
        print(f"\nbatches are {slower:.2f} times slower; bar {_TIMES_SLOWER}: {verdict}")


if __name__ == "__main__":
    common.main(main)
