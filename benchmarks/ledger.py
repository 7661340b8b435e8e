"""How fast the ledger answers when it holds millions of checksums, beside a plain fetch of them.

Fills a ledger with --rows rows of crc32_audit in --batches batches over half a year, in the shapes that
imports leave: files and their chunks, retries, promises of the sender, and for some batches a line for
each row. One batch in a hundred is a hundred times as large as the others. Then, in one run:

  of one batch   each view that is asked about a batch / an indexed fetch of all its checksums, for
                 ordinary and for large batches; and the same before the batch has its sums
  of all         each view over all batches / reading every checksum once

The bar: 10 times the fetch, for each view of one batch. No plan may read a whole partition of
crc32_audit (but an empty one), for one batch or, where sums are there, for all.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from batch_pipelines.engine.postgres.database import DATA_DATABASE, Database
from batch_pipelines.engine.postgres.migrate import upgrade
from benchmarks import common

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    import psycopg

_RUNS = 5
_BAR = 10.0
_MONTHS = 6
_OF_ONE = (
    "batch_integrity", "batch_throughput", "invalid_entity", "entity_compliance", "failed_batch",
    "batch_metrics", "batch_cost",
)  # fmt: skip
_OF_ALL = (
    "SELECT * FROM batch_audit.batch_integrity",
    "SELECT * FROM batch_audit.batch_throughput ORDER BY avg_throughput_mbps DESC",
    "SELECT batch_id, count(*) FROM batch_audit.invalid_entity GROUP BY 1 ORDER BY 2 DESC",
    "SELECT * FROM batch_audit.entity_compliance ORDER BY batch_start DESC",
    "SELECT * FROM batch_audit.hourly_success ORDER BY hour",
    "SELECT * FROM batch_audit.hourly_success WHERE hour >= now() - interval '24 hours' ORDER BY hour",
    "SELECT * FROM batch_audit.metric",
)
_BATCHES = """
INSERT INTO batch_audit.import_history (batch_id, job_id, feed, feed_version, partition_key, status,
    attempt, requested_by, correlation_id, source_records, written_records, started_at, completed_at)
SELECT md5('batch ' || n)::uuid, n, 'feed' || n %% 20, 1, n,
       CASE WHEN n %% 50 = 0 THEN 'FAILED' ELSE 'SUCCESS' END, 1, 'a benchmark', n, 100, 100, at,
       at + interval '1 minute'
FROM generate_series(1, %(batches)s) AS n,
     LATERAL (SELECT now() - n * interval '180 days' / %(batches)s AS at) AS t
"""
# n is the batch; every hundredth is a hundred times as large, so sizes add up to `rows`.
_CHECKSUMS = """
INSERT INTO batch_audit.crc32_audit (batch_id, entity_type, entity_id, computed_crc32, expected_crc32,
    expected_source, status, bytes_processed, processing_time_ms, throughput_mbps, hardware_utilized,
    simd_instructions, retry_count, created_at)
SELECT md5('batch ' || n)::uuid, kind, CASE kind WHEN 'file' THEN 'part-' || m / 4 || '.csv'
           WHEN 'chunk' THEN 'part-' || m / 4 || '.csv@' || m ELSE 'public.t#part-0.csv#' || m END,
       m, CASE WHEN m %% 5 > 0 THEN m + (m %% 20011 = 7)::int END,
       CASE WHEN m %% 5 > 0 THEN 'ingest' END,
       CASE WHEN m %% 5 = 0 THEN 'recorded' WHEN m %% 20011 = 7 THEN 'invalid' ELSE 'valid' END,
       4194304, 0.5, 8000 + m %% 100, true, 524288, m %% 4,
       now() - n * interval '180 days' / %(batches)s + m * interval '1 millisecond'
FROM generate_series(%(first)s::bigint, %(last)s) AS n,
     generate_series(1, CASE WHEN n %% 100 = 0 THEN 100 * %(size)s ELSE %(size)s END) AS m,
     LATERAL (SELECT CASE WHEN n %% 3 = 0 THEN 'row' WHEN m %% 4 = 1 THEN 'chunk' ELSE 'file' END)
         AS k (kind)
"""
_MONTH = (
    "SELECT batch_audit.ensure_month('batch_audit.crc32_audit', now() - n * interval '1 month')"
    " FROM generate_series(0, %s) AS n"
)
_SUM = """
SELECT batch_audit.sum_checksums(array_agg(md5('batch ' || n)::uuid))
FROM generate_series(%s::bigint, %s) AS n
"""
_SIZE = """
SELECT (SELECT count(*) FROM batch_audit.crc32_audit), pg_size_pretty(sum(pg_total_relation_size(relid)))
FROM pg_partition_tree('batch_audit.crc32_audit')
"""
_FILLED = """
SELECT c.relname FROM pg_partition_tree('batch_audit.crc32_audit')
JOIN pg_class AS c ON c.oid = relid WHERE isleaf AND c.reltuples > 0
"""
_FETCH = "SELECT * FROM batch_audit.crc32_audit WHERE batch_id = '{batch}' ORDER BY created_at"
_EVERYTHING = "SELECT * FROM batch_audit.crc32_audit"
_VIEW = "SELECT * FROM batch_audit.{view} WHERE batch_id = '{batch}'"


@dataclass(frozen=True)
class Measured:
    """Milliseconds of a question and of what it is held against, medians; and what its plan reads.

    Attributes:
        question: The view or the query.
        about: What it was asked about.
        ours: Milliseconds.
        fetch: Milliseconds of the fetch beside it.
        scanned: Partitions of crc32_audit that the plan reads from their beginning to their end.
    """

    question: str
    about: str
    ours: float
    fetch: float
    scanned: list[str]

    @property
    def ratio(self) -> float:
        """Of the two."""
        return self.ours / self.fetch


def fill(connection: psycopg.Connection[Any], rows: int, batches: int) -> None:
    """Fill the ledger, a thousand batches a statement.

    Args:
        connection: To the ledger, in autocommit mode.
        rows: Checksums, about.
        batches: Batches.
    """
    connection.execute(_MONTH, (_MONTHS + 1,))
    connection.execute(_BATCHES, {"batches": batches})
    size = max(1, round(rows / (batches * 1.99)))
    for first, last in _pieces(batches):
        known = {"batches": batches, "first": first, "last": last, "size": size}
        connection.execute(_CHECKSUMS, known)


def _pieces(batches: int) -> Iterator[tuple[int, int]]:
    for first in range(1, batches + 1, 1000):
        yield first, min(first + 999, batches)


def of_one(
    connection: psycopg.Connection[Any], batches: int, runs: int, about: str, *, large: bool
) -> list[Measured]:
    """Ask each view about so many batches, and fetch their checksums in turn."""
    step = 100 if large else 97
    chosen = [n - n % 100 if large else n for n in range(step, batches, batches // (runs + 1))]
    names = [_batch(connection, n) for n in (chosen or [batches])[:runs]]
    for batch in names:  # what a first look costs is the disk's
        _fetch(connection, _FETCH.format(batch=batch))
    plain = [_fetch(connection, _FETCH.format(batch=batch)) for batch in names for _ in range(3)]
    found = []
    for view in _OF_ONE:
        asked = [_VIEW.format(view=view, batch=batch) for batch in names]
        _fetch(connection, asked[0])
        ours = [_fetch(connection, each) for each in asked for _ in range(3)]
        found.append(
            Measured(view, about, statistics.median(ours), statistics.median(plain),
                     scanned(connection, asked[0]))
        )  # fmt: skip
    return found


def of_all(connection: psycopg.Connection[Any], runs: int) -> list[Measured]:
    """Ask each question about all batches, and read all checksums once."""
    plain = _fetch_counted(connection, _EVERYTHING)
    return [
        Measured(
            query.removeprefix("SELECT * FROM batch_audit.").removeprefix("SELECT "), "all",
            statistics.median(_fetch(connection, query) for _ in range(runs)), plain,
            scanned(connection, query),
        )
        for query in _OF_ALL
    ]  # fmt: skip


def scanned(connection: psycopg.Connection[Any], query: str) -> list[str]:
    """Say which partitions of crc32_audit a plan reads from their beginning to their end."""
    filled = {name for (name,) in connection.execute(_FILLED)}
    ((plan,),) = connection.execute(f"EXPLAIN (FORMAT JSON) {query}".encode()).fetchall()

    def walk(node: dict[str, Any]) -> Iterator[str]:
        if node["Node Type"] == "Seq Scan" and node["Relation Name"] in filled:
            yield node["Relation Name"]
        for child in node.get("Plans", ()):
            yield from walk(child)

    return [*walk(plan[0]["Plan"])]


def _batch(connection: psycopg.Connection[Any], number: int) -> str:
    ((batch,),) = connection.execute("SELECT md5('batch ' || %s)::uuid::text", (number,)).fetchall()
    return str(batch)


def _fetch(connection: psycopg.Connection[Any], query: str) -> float:
    began = time.perf_counter()
    connection.execute(query.encode()).fetchall()
    return (time.perf_counter() - began) * 1e3


def _fetch_counted(connection: psycopg.Connection[Any], query: str) -> float:
    """Read all rows in the server alone: the client has no room for them."""
    began = time.perf_counter()
    connection.execute(f"SELECT count(q) FROM ({query} OFFSET 0) AS q".encode())
    return (time.perf_counter() - began) * 1e3


def benchmark() -> None:
    """Measure, and print a table and the bar."""
    options = _options()
    with common.project() as project:
        upgrade(Database(project.server.url(DATA_DATABASE)))
        with project.connect() as connection:
            common.note(f"filling a ledger with {options.rows:,} checksums")
            began = time.perf_counter()
            fill(connection, options.rows, options.batches)
            connection.execute("VACUUM ANALYZE")
            ((rows, size),) = connection.execute(_SIZE).fetchall()
            common.note(f"{rows:,} rows, {size}, in {time.perf_counter() - began:.0f} s")
            found = of_one(connection, options.batches, options.runs, "one, no sums", large=False)
            common.note("summing up")
            began = time.perf_counter()
            for piece in _pieces(options.batches):
                connection.execute(_SUM, piece)
            connection.execute("VACUUM ANALYZE")
            common.note(f"summed up in {time.perf_counter() - began:.0f} s")
            found += of_one(connection, options.batches, options.runs, "one", large=False)
            found += of_one(connection, options.batches, options.runs, "a large one", large=True)
            found += of_all(connection, options.runs)
    if options.json:
        common.print_json([json.loads(json.dumps(asdict(each))) for each in found])
        return
    common.print_table(
        ["question", "about", "ms", "fetch ms", "ratio", "bar", "partitions scanned"],
        [
            [each.question, each.about, f"{each.ours:.2f}", f"{each.fetch:.2f}", f"{each.ratio:.2f}",
             "" if each.about == "all" else f"{_BAR:.0f}", str(len(each.scanned))]
            for each in found
        ],
    )  # fmt: skip


def _options() -> argparse.Namespace:
    parser = common.parser(__doc__, _RUNS)
    parser.add_argument("--rows", type=common.positive, default=10_000_000, help="checksums")
    parser.add_argument("--batches", type=common.positive, default=20_000)
    return parser.parse_args()


if __name__ == "__main__":
    common.main(benchmark)
