"""How fast a batch is taken back, beside a bare DELETE of the same rows by batch id.

The rollback alone: its transaction, from the first lock to COMMIT, without the process's start and the
plan that is printed before. Every measured batch is imported with the command, and a checkpoint done.

  inserts    --copies times a year of flights, and a bare DELETE of the same rows from the same table
  full       --rows rows taken out of a table of --small rows and of one of --large, both in large
             batches; and out of the large one when it consists of 30,000 small ones
  upsert     rollback of an upsert of --rows rows, half of them over rows that were there, beside the
             upsert's own publish

The bars: 1.3 times the DELETE; 1.3 times the small table, for both large ones; 2.0 times the upsert.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from batch_pipelines.engine.feed_files import load_feeds
from batch_pipelines.engine.postgres.database import DATA_DATABASE, Database
from batch_pipelines.engine.rollback import Request, roll_back
from benchmarks import common

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from benchmarks.common import Project

_BARS = {"inserts": 1.3, "full": 1.3, "small batches": 1.3, "upsert": 2.0}
_RUNS = 3
_SMALL_BATCHES = 30_000
_ITEMS = """
CREATE TABLE IF NOT EXISTS public.{name} (
    id bigint PRIMARY KEY, customer integer, placed timestamptz, amount numeric(12, 2), note text,
    import_batch_id uuid
);
CREATE INDEX IF NOT EXISTS {name}_import_batch_id ON public.{name} (import_batch_id);
"""
_FILL = """
INSERT INTO public.{name}
SELECT n, n %% 1000003, timestamptz '2020-01-01 00:00Z' + n * interval '1 second', n %% 99991 / 7.0,
       'order ' || n, md5((n::bigint * %s / %s)::text)::uuid
FROM generate_series(1, %s) AS n
"""
_PUBLISHED = """
SELECT h.batch_id::text, extract(epoch FROM s.completed_at - s.started_at)::float8
FROM batch_audit.import_history h JOIN batch_audit.batch_stage s USING (batch_id)
WHERE h.feed = %s AND h.partition_key = %s AND s.stage = 'bulk_write'
ORDER BY h.attempt DESC LIMIT 1
"""


@dataclass(frozen=True)
class Measured:
    """Seconds of what is measured and of what it is held against, a number each run."""

    name: str
    ours: list[float]
    other: list[float]

    @property
    def ratio(self) -> float:
        """Of the medians."""
        return statistics.median(self.ours) / statistics.median(self.other)


@dataclass
class _Bench:
    project: Project
    runs: int
    number: int = 0

    @property
    def database(self) -> Database:
        return Database(self.project.server.url(DATA_DATABASE))

    def sql(self, statement: str, *parameters: object) -> None:
        with self.project.connect() as connection:
            connection.execute(statement.encode(), parameters or None)

    def load(self, feed: str, write: Callable[[Path], None]) -> tuple[str, float]:
        """Import a delivery; give its batch and the seconds of its publish."""
        self.number += 1
        key = f"k{self.number}"
        write(self.project.landing(feed, key))
        self.project.run_import(feed, key)
        with self.project.connect() as connection:
            row = connection.execute(_PUBLISHED, (feed, key)).fetchone()
            connection.execute("CHECKPOINT")
        if row is None:
            message = f"{feed}/{key} was not published"
            raise common.MeasureError(message)
        return str(row[0]), float(row[1])

    def roll_back(self, batch_id: str) -> float:
        feeds = load_feeds(self.project.settings.feeds)
        request = Request((batch_id,), "a benchmark", "a benchmark")
        return roll_back(self.database, self.project.settings, feeds, request).seconds

    def delete(self, table: str, batch_id: str) -> float:
        with self.project.connect() as connection:
            connection.execute("CHECKPOINT")
            began = time.perf_counter()
            connection.execute(
                f"DELETE FROM public.{table} WHERE import_batch_id = '{batch_id}'".encode()
            )
            return time.perf_counter() - began


def inserts(bench: _Bench, copies: int) -> Measured:
    """Take back a large batch of inserts, and delete one like it."""
    bench.project.make_flights(copies)
    feed = bench.project.add_flights("csv")
    bench.project.run(common.IMPORT, "db", "upgrade")

    def write(folder: Path) -> None:
        (folder / "flights.csv").hardlink_to(bench.project.flights(copies, "csv"))

    ours, other = [], []
    for _ in range(bench.runs):
        batch, _seconds = bench.load(feed, write)
        ours.append(bench.roll_back(batch))
        bench.sql(f"TRUNCATE public.{feed}")
        batch, _seconds = bench.load(feed, write)
        other.append(bench.delete(feed, batch))
        bench.sql(f"TRUNCATE public.{feed}")
        bench.sql("UPDATE batch_audit.import_history SET status = 'FAILED'")
    return Measured("inserts", ours, other)


def full(bench: _Bench, rows: int, small: int, large: int) -> list[Measured]:
    """Take the same batch out of tables of different sizes."""
    sizes = {"small": (small, small // rows + 1), "large": (large, large // rows + 1),
             "pieces": (large, _SMALL_BATCHES)}  # fmt: skip
    taken: dict[str, list[float]] = {}
    for name, (size, batches) in sizes.items():
        table = f"items_{name}"
        bench.project.add_feed(table, f"public.{table}", _ITEMS.format(name=table))
        bench.project.run(common.IMPORT, "db", "upgrade")
        common.note(f"filling a table of {size:,} rows")
        bench.sql(_FILL.format(name=table), batches, size, size)
        bench.sql(f"ANALYZE public.{table}")
        taken[name] = []
        for run in range(bench.runs):
            first = size + 1 + run * rows
            batch, _seconds = bench.load(table, lambda f, n=first: _items(f, n, rows))  # type: ignore[misc]
            taken[name].append(bench.roll_back(batch))
    return [
        Measured("full", taken["large"], taken["small"]),
        Measured("small batches", taken["pieces"], taken["small"]),
    ]


def upsert(bench: _Bench, rows: int) -> Measured:
    """Take an upsert back."""
    table = "items_upserted"
    bench.project.add_feed(table, f"public.{table}", _ITEMS.format(name=table))
    path = bench.project.settings.feeds / f"{table}.yaml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(f"public.{table}\n", f"public.{table}\n    write: upsert\n"))
    bench.project.run(common.IMPORT, "db", "upgrade")
    bench.sql(_FILL.format(name=table), 1, rows, rows // 2)
    ours, other = [], []
    for _ in range(bench.runs):
        batch, seconds = bench.load(table, lambda folder: _items(folder, 1, rows))
        other.append(seconds)
        ours.append(bench.roll_back(batch))
    return Measured("upsert", ours, other)


def _items(folder: Path, first: int, rows: int) -> None:
    with (folder / "items.csv").open("w", encoding="utf-8") as file:
        file.write("id,customer,placed,amount,note\n")
        file.writelines(
            f"{n},{n % 1000},2024-05-01T12:00:00Z,{n % 97}.25,order {n}\n"
            for n in range(first, first + rows)
        )


def benchmark() -> None:
    """Measure, and print a table and the bars."""
    options = _options()
    with common.project() as project:
        bench = _Bench(project, options.runs)
        found = [inserts(bench, options.copies)]
        found += full(bench, options.rows, options.small, options.large)
        found.append(upsert(bench, options.rows))
    if options.json:
        common.print_json([json.loads(json.dumps(each.__dict__)) for each in found])
        return
    common.print_table(
        ["", "rollback s", "beside it s", "ratio", "bar"],
        [
            [each.name, f"{statistics.median(each.ours):.2f}", f"{statistics.median(each.other):.2f}",
             f"{each.ratio:.2f}", f"{_BARS[each.name]:.1f}"]
            for each in found
        ],
    )  # fmt: skip


def _options() -> argparse.Namespace:
    parser = common.parser(__doc__, _RUNS)
    parser.add_argument("--copies", type=common.positive, default=10, help="years of flights")
    parser.add_argument("--rows", type=common.positive, default=100_000, help="rows taken out")
    parser.add_argument("--small", type=common.positive, default=3_000_000)
    parser.add_argument("--large", type=common.positive, default=30_000_000)
    return parser.parse_args()


if __name__ == "__main__":
    common.main(benchmark)
