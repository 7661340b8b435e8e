"""What a batch of five rows costs, beside what Dagster itself costs and beside a full table.

Each run is a fresh process, with the embedded server up:

  import, empty table   `batch-pipelines import` of a five-row batch
  five empty assets     a Dagster job of five empty assets, in-process, on the same Dagster storage
  the same, in memory   the same job on Dagster's ephemeral instance, for information
  import, full table    the five-row batch into a table of --rows rows

The two bars are 1.5: the first import / five empty assets, and full table / empty table.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from batch_pipelines.engine.postgres.database import dagster_url
from benchmarks import common

if TYPE_CHECKING:
    import psycopg

    from benchmarks.common import Project, Run, Series

_BAR = 1.5
_RUNS = 9
_ROWS = 30_000_000
_BATCH_ROWS = 1_000  # rows of each of the earlier batches that filled the table
_IMPORT, _ASSETS, _MEMORY, _FULL = (
    "import, empty table", "five empty assets", "the same, in memory", "import, full table",
)  # fmt: skip

_TABLE = """
CREATE TABLE IF NOT EXISTS {name} (
    id bigint NOT NULL,
    customer integer NOT NULL,
    placed_at timestamptz NOT NULL,
    amount numeric(12,2) NOT NULL,
    note text,
    import_batch_id uuid
);
"""
_KEYS = """
ALTER TABLE {name} ADD PRIMARY KEY (id);
CREATE INDEX ON {name} (import_batch_id);
"""
_FILL = """
INSERT INTO {name}
SELECT n, n %% 1000003, timestamptz '2020-01-01 00:00Z' + n * interval '1 second', n %% 99991 / 7.0,
       'order ' || n, md5((n / %s)::text)::uuid
FROM generate_series(1, %s) AS n
"""


def main() -> None:
    """Measure and print."""
    arguments = common.parser(__doc__, _RUNS)
    arguments.add_argument(
        "--rows",
        type=int,
        default=_ROWS,
        help=f"rows of the full table (default {_ROWS:,}; 0: none)",
    )
    options = arguments.parse_args()
    with common.project() as project:
        series = _measure(project, options.runs, options.rows)
    if options.json:
        common.print_json(_plain(series, options.rows))
    else:
        _print(series, options.rows)


def _measure(project: Project, runs: int, rows: int) -> dict[str, Series]:
    feeds = ["empty", "full"] if rows else ["empty"]
    for feed in feeds:
        project.add_feed(feed, f"public.{feed}_table", _TABLE.format(name=f"public.{feed}_table"))
    with project.connect() as connection:
        for feed in feeds:
            _make_table(connection, f"public.{feed}_table", rows if feed == "full" else 0)
    # Once through, for what the first import makes: ledger, Dagster's storage, its configuration.
    _deliver(project, "empty", "first", rows)
    project.run_import("empty", "first")
    storage = _storage(project)
    assets = str(Path(__file__).with_name("five_empty_assets.py"))

    def run_import(feed: str, number: int) -> Run:
        key = f"batch-{number}"
        _deliver(project, feed, key, rows + 5 * (number + 1))
        return project.run_import(feed, key)

    tasks = {
        _IMPORT: lambda number: run_import("empty", number),
        _ASSETS: lambda number: project.run(
            common.PYTHON, assets, f"key-{number}", environment=storage
        ),
        _MEMORY: lambda number: project.run(common.PYTHON, assets, f"key-{number}", "--ephemeral"),
    }
    if rows:
        tasks[_FULL] = lambda number: run_import("full", number)
    return common.alternate(tasks, runs)


def _make_table(connection: psycopg.Connection, name: str, rows: int) -> None:
    # The names are this module's own.
    connection.execute(_TABLE.format(name=name).encode())
    if rows:
        common.note(f"filling {name} with {rows:,} rows of {rows // _BATCH_ROWS:,} batches")
        connection.execute(_FILL.format(name=name).encode(), (_BATCH_ROWS, rows))
    connection.execute(_KEYS.format(name=name).encode())
    # What autovacuum would do to it in the middle of a run.
    connection.execute(f"VACUUM (ANALYZE) {name}".encode())
    connection.execute("CHECKPOINT")


def _deliver(project: Project, feed: str, key: str, after: int) -> None:
    lines = ["id,customer,placed_at,amount,note"]
    lines += [f"{after + n},{n},2026-01-01T00:00:0{n}Z,{n}.50,order {n}" for n in range(1, 6)]
    path = project.landing(feed, key) / "orders.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _storage(project: Project) -> dict[str, str]:
    """Say what leads a process to the same Dagster instance: its folder, and the URL it asks for."""
    home = project.settings.dagster_home
    config = yaml.safe_load((home / "dagster.yaml").read_text(encoding="utf-8"))
    variable = config["storage"]["postgres"]["postgres_url"]["env"]
    return {"DAGSTER_HOME": str(home), variable: dagster_url(project.settings)}


def _ratios(series: dict[str, Series]) -> list[tuple[str, float, float, float | None]]:
    """Give each ratio: what, by medians of seconds, by medians of CPU seconds, and its bar."""
    pairs: list[tuple[str, str, float | None]] = [
        (_IMPORT, _ASSETS, _BAR),
        (_IMPORT, _MEMORY, None),
    ]
    if _FULL in series:
        pairs.append((_FULL, _IMPORT, _BAR))
    return [
        (
            f"{above} / {below}",
            series[above].seconds / series[below].seconds,
            series[above].cpu_seconds / series[below].cpu_seconds,
            bar,
        )
        for above, below, bar in pairs
    ]


def _print(series: dict[str, Series], rows: int) -> None:
    print(f"A batch of five rows; medians of {len(series[_IMPORT].runs)} runs taken in turn")
    if rows:
        print(f"(full table: {rows:,} rows of {rows // _BATCH_ROWS:,} batches)")
    common.print_table(
        ["", "seconds", "from-to", "CPU s", "peak MB"],
        [
            [name, f"{each.seconds:.2f}", each.spread(), f"{each.cpu_seconds:.2f}",
             f"{each.peak_bytes / 1e6:.0f}"]
            for name, each in series.items()
        ],
    )  # fmt: skip
    print()
    common.print_table(
        ["ratio", "seconds", "CPU", "bar", ""],
        [
            [what, f"{ratio:.2f}", f"{cpu:.2f}", "" if bar is None else f"{bar:.1f}",
             "" if bar is None else "holds" if ratio <= bar else "MISSED"]
            for what, ratio, cpu, bar in _ratios(series)
        ],
    )  # fmt: skip


def _plain(series: dict[str, Series], rows: int) -> dict[str, object]:
    return {
        "rows": rows,
        "runs": {name: [vars(run) for run in each.runs] for name, each in series.items()},
        "ratios": [
            {"ratio": what, "seconds": ratio, "cpu_seconds": cpu, "bar": bar,
             "holds": None if bar is None else ratio <= bar}
            for what, ratio, cpu, bar in _ratios(series)
        ],
    }  # fmt: skip


if __name__ == "__main__":
    common.main(main)
