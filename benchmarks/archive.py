r"""How fast rows are put away, beside a bare COPY of the same rows to a file.

Ten times a year of flights are imported with the command, as one batch. Then, in turn:

  \copy      psql copies the rows of the batch out of the table, as text, into a file, and syncs it
  archiving  the rows are put away in a process of its own: one snapshot, PostgreSQL's digest, Parquet,
             the bag sealed and synced, read back, digested and compared, recorded; without that
             process's start, since retention is one process for many batches

The bars: archiving at most 3 times the \copy, with at most 400 MB of memory in the process.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from batch_pipelines.engine.postgres.database import DATA_DATABASE
from batch_pipelines.engine.postgres.programs import binaries
from benchmarks import common

if TYPE_CHECKING:
    from benchmarks.common import Project, Run, Series

_COPIES, _RUNS = 10, 3
_BARS = {"time": 3.0, "memory": 400.0}
_MEGABYTE = 1_000_000
_KEY = "all"
_BATCH = "SELECT batch_id::text FROM batch_audit.import_history"
_FORGET = "DELETE FROM batch_audit.archive_manifest WHERE kind = 'rows' RETURNING place"
_COPY = "\\copy (SELECT * FROM public.{table} WHERE import_batch_id = '{batch}') TO '{file}'"


def main() -> None:
    """Measure and print."""
    arguments = common.parser(__doc__, _RUNS)
    arguments.add_argument(
        "--copies", type=common.positive, default=_COPIES, help="copies of the flights (default 10)"
    )
    options = arguments.parse_args()
    with common.project() as project:
        project.make_flights(options.copies)
        feed = project.add_flights("parquet")
        common.note("importing them")
        project.import_flights("parquet", options.copies, _KEY)
        with project.connect() as connection:
            ((batch,),) = connection.execute(_BATCH).fetchall()
            connection.execute("VACUUM ANALYZE public.flights_parquet")
            connection.execute("CHECKPOINT")
        tasks = {
            "\\copy": lambda _: _copy(project, feed, batch),
            "archiving": lambda _: _archive(project, feed),
        }
        series = common.alternate(tasks, options.runs)
    _print(series, options.copies * common.FLIGHTS, json=options.json)


def _copy(project: Project, feed: str, batch: str) -> Run:
    file = project.folder / "copied"
    url = project.server.url(DATA_DATABASE)
    copy = _COPY.format(table=feed, batch=batch, file=file)
    script = '"$0" -X -q -v ON_ERROR_STOP=1 "$1" -c "$2" && sync "$3"'
    psql = str(binaries() / "psql")
    return project.run("/bin/sh", "-c", script, psql, url, copy, str(file))


def _archive(project: Project, feed: str) -> Run:
    with project.connect() as connection:
        for (place,) in connection.execute(_FORGET).fetchall():
            shutil.rmtree(place)
    exporter = str(Path(__file__).with_name("export_rows.py"))
    took = project.folder / "took"
    run = project.run(common.PYTHON, exporter, feed, _KEY, str(took))
    return replace(run, seconds=float(took.read_text()))


def _print(series: dict[str, Series], rows: int, *, json: bool) -> None:
    copy, ours = series.values()
    found = {"time": ours.seconds / copy.seconds, "memory": ours.peak_bytes / _MEGABYTE}
    if json:
        plain = {
            name: {"seconds": [run.seconds for run in each.runs], "peak_bytes": each.peak_bytes}
            for name, each in series.items()
        }
        common.print_json({"rows": rows, "runs": plain, "found": found, "bars": _BARS})
        return
    print(f"{rows:,} rows")
    common.print_table(
        ("", "seconds", "spread", "CPU s", "peak MB"),
        [
            (
                name, f"{each.seconds:.2f}", each.spread(), f"{each.cpu_seconds:.2f}",
                f"{each.peak_bytes / _MEGABYTE:.0f}",
            )
            for name, each in series.items()
        ],
    )  # fmt: skip
    for name, unit in (("time", "times the \\copy"), ("memory", "MB")):
        verdict = "within" if found[name] <= _BARS[name] else "ABOVE"
        print(f"{name}: {found[name]:.2f} {unit}, {verdict} the bar of {_BARS[name]:g}")


if __name__ == "__main__":
    common.main(main)
