"""What the benchmarks share: a project of their own, runs in fresh processes, medians and tables.

This process stays small on purpose: a child's peak memory, as the kernel counts it, is never below
its parent's at the moment of its birth.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from batch_pipelines.engine.postgres.database import DATA_DATABASE, embedded_server
from batch_pipelines.engine.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from batch_pipelines.engine.postgres.server import EmbeddedServer

PYTHON = sys.executable
IMPORT = str(Path(PYTHON).with_name("batch-pipelines"))
_OURS = ("BATCH_PIPELINES_", "DAGSTER_", "PG")
_LAST_CHARACTERS = 2000
_INTERRUPTED = 130
FLIGHTS = 336_776  # rows of one copy
# As feeds/sql/flights.sql has it, without the foreign keys, which are the server's work alone.
FLIGHTS_TABLE = """
CREATE TABLE IF NOT EXISTS public.{name} (
    year integer NOT NULL,
    month integer NOT NULL,
    day integer NOT NULL,
    dep_time integer,
    sched_dep_time integer NOT NULL,
    dep_delay integer,
    arr_time integer,
    sched_arr_time integer NOT NULL,
    arr_delay integer,
    carrier text NOT NULL,
    flight integer NOT NULL,
    tailnum text,
    origin text NOT NULL,
    dest text NOT NULL,
    air_time integer,
    distance integer NOT NULL,
    hour integer NOT NULL,
    minute integer NOT NULL,
    time_hour timestamptz NOT NULL,
    import_batch_id uuid,
    PRIMARY KEY (time_hour, carrier, flight)
);
CREATE INDEX IF NOT EXISTS {name}_import_batch_id ON public.{name} (import_batch_id);
"""


class MeasureError(Exception):
    """Something that was to be measured did not run."""


@dataclass(frozen=True)
class Run:
    """One process from its start to its end: seconds on the clock and on processors, peak bytes."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


@dataclass
class Series:
    """Runs of the same thing."""

    name: str
    runs: list[Run] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """The median."""
        return statistics.median(run.seconds for run in self.runs)

    @property
    def cpu_seconds(self) -> float:
        """The median."""
        return statistics.median(run.cpu_seconds for run in self.runs)

    @property
    def peak_bytes(self) -> float:
        """The median."""
        return statistics.median(run.peak_bytes for run in self.runs)

    def spread(self) -> str:
        """Show the shortest and the longest run in seconds."""
        times = [run.seconds for run in self.runs]
        return f"{min(times):.2f}-{max(times):.2f}"


@dataclass(frozen=True)
class Project:
    """A project in a folder of its own, with the embedded server up.

    Attributes:
        folder: All of it but, for root, the database.
        settings: What the children's environment says.
        server: The server.
    """

    folder: Path
    settings: Settings
    server: EmbeddedServer

    @property
    def environment(self) -> dict[str, str]:
        """Ours without what would lead the children to another project."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(_OURS)}
        own = {"HOME": self.settings.home, "FEEDS": self.settings.feeds}
        return kept | {f"BATCH_PIPELINES_{name}": str(path) for name, path in own.items()}

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        """Connect to the target database."""
        return psycopg.connect(self.server.url(DATA_DATABASE), autocommit=True)

    def add_feed(self, name: str, table: str, ddl: str, suffix: str = "csv") -> None:
        """Write the file of a feed that fills one table."""
        self.settings.feeds.mkdir(exist_ok=True)
        (self.settings.feeds / f"{name}.sql").write_text(ddl, encoding="utf-8")
        (self.settings.feeds / f"{name}.yaml").write_text(
            f"feed: {name}\n"
            f"source:\n  path: landing/{name}/{{batch}}/*.{suffix}\n"
            f"tables:\n  - table: {table}\n"
            f"ddl: {name}.sql\n",
            encoding="utf-8",
        )

    def landing(self, feed: str, key: str) -> Path:
        """Make the landing folder of a partition."""
        folder = self.folder / "landing" / feed / key
        folder.mkdir(parents=True)
        return folder

    def flights(self, copies: int, suffix: str) -> Path:
        """Say where `make_flights` puts a file."""
        return self.folder / str(copies) / f"flights.{suffix}"

    def make_flights(self, copies: int) -> None:
        """Write a year of flights so many times over, as CSV and as Parquet."""
        note(f"writing {copies * FLIGHTS:,} flights")
        maker = str(Path(__file__).with_name("make_flights.py"))
        self.run(PYTHON, maker, str(self.folder / str(copies)), str(copies))

    def add_flights(self, suffix: str) -> str:
        """Write the feed of flights of one format, into a table of the same name.

        Returns:
            Its name.
        """
        name = f"flights_{suffix}"
        self.add_feed(name, f"public.{name}", FLIGHTS_TABLE.format(name=name), suffix)
        return name

    def import_flights(self, suffix: str, copies: int, key: str) -> Run:
        """Deliver what `make_flights` wrote to the feed of `add_flights`, and import it."""
        feed = f"flights_{suffix}"
        landed = self.landing(feed, key) / f"flights.{suffix}"
        landed.hardlink_to(self.flights(copies, suffix))
        return self.run_import(feed, key)

    def run(
        self,
        *command: str,
        environment: Mapping[str, str] | None = None,
        accepted: Collection[int] = (0,),
    ) -> Run:
        """Run a program in a process of its own.

        Args:
            command: The program and its arguments.
            environment: Variables beside the project's.
            accepted: Exit codes that are no failure.

        Returns:
            What it took.

        Raises:
            MeasureError: It failed.
        """
        with tempfile.TemporaryFile(dir=self.folder) as output:
            began = time.perf_counter()
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env={**self.environment, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,  # Ctrl+C is for us; we end the child
            )
            try:
                _, status, usage = os.wait4(process.pid, 0)
            except BaseException:
                process.kill()
                process.wait()
                raise
            seconds = time.perf_counter() - began
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode not in accepted:
                output.seek(0)
                said = output.read().decode(errors="replace")[-_LAST_CHARACTERS:]
                message = f"{' '.join(command)} ended with {process.returncode}:\n{said}"
                raise MeasureError(message)
        scale = 1 if sys.platform == "darwin" else 1024
        cpu = usage.ru_utime + usage.ru_stime
        return Run(seconds, cpu, usage.ru_maxrss * scale)

    def run_import(self, feed: str, key: str, accepted: Collection[int] = (0,)) -> Run:
        """Import a partition with the command that people use; see `run`."""
        return self.run(IMPORT, "import", feed, "--batch", key, accepted=accepted)


@contextmanager
def project() -> Iterator[Project]:
    """Make a project with its server up; at the end nothing of it is left.

    Yields:
        The project.
    """
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="batch-pipelines-benchmark-")).resolve()
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        settings = Settings(
            database_url=None, dagster_url=None, home=folder / "home", feeds=folder / "feeds"
        )
        server = embedded_server(settings)
        for place in (server.socket_folder, server.folder):
            stack.callback(shutil.rmtree, place, ignore_errors=True)
        stack.enter_context(server.use())
        stack.callback(_no_more_interrupts)
        yield Project(folder, settings, server)


def alternate(tasks: Mapping[str, Callable[[int], Run]], runs: int) -> dict[str, Series]:
    """Run tasks in turn, so that what else the machine does meets all of them alike.

    Args:
        tasks: What to run, by name; each is told the number of the round, 0 for one that is not
            counted.
        runs: Counted rounds.

    Returns:
        The runs of each.
    """
    series = {name: Series(name) for name in tasks}
    for number in range(runs + 1):
        note(f"round {number} of {runs}" if number else "a round that is not counted")
        for name in tasks if number % 2 else reversed([*tasks]):
            run = tasks[name](number)
            if number:
                series[name].runs.append(run)
    return series


def note(text: str) -> None:
    """Tell a person who waits what is being done."""
    print(f"... {text}", file=sys.stderr, flush=True)


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table, the first column to the left and the others to the right."""
    widths = [max(len(row[place]) for row in [head, *rows]) for place in range(len(head))]
    for row in [head, ["-" * width for width in widths], *rows]:
        first, *others = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join([first, *(c.strip().rjust(len(c)) for c in others)]).rstrip())


def print_json(value: object) -> None:
    """Print a value as JSON."""
    print(json.dumps(value, indent=1))


def parser(description: str | None, runs: int) -> argparse.ArgumentParser:
    """Give a parser with the options that every benchmark has."""
    arguments = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument(
        "--runs", type=positive, default=runs, help=f"counted runs (default {runs})"
    )
    arguments.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return arguments


def main(benchmark: Callable[[], None]) -> None:
    """Run a benchmark: exit 0 whatever it measured, 1 if it could not, 130 if interrupted."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        benchmark()
    except MeasureError as error:
        sys.exit(f"Could not measure: {error}")
    except KeyboardInterrupt:
        print("Interrupted; nothing is left behind.", file=sys.stderr)
        sys.exit(_INTERRUPTED)


def positive(text: str) -> int:
    """Read a whole number from 1, for a parser."""
    if not text.isdecimal() or int(text) < 1:
        message = f"expected a whole number from 1, found {text!r}"
        raise argparse.ArgumentTypeError(message)
    return int(text)


def _no_more_interrupts() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
