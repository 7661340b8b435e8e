"""`make run`: a year of flights in twelve batches, a damaged delivery refused, and all of it twice."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from batch_pipelines.engine.postgres.database import DATA_DATABASE
from batch_pipelines.engine.postgres.server import EmbeddedServer
from tests.support_shop import environment

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT = Path(__file__).resolve().parents[1]
TABLES = ("airlines", "airports", "planes", "flights")
# Every value of every row, the stamp included, in any order.
_DIGEST = "SELECT count(*), sum(hashtextextended(t::text, 0)::numeric) FROM public.{} t"
_BATCHES = """
SELECT partition_key, source_records, written_records FROM batch_audit.import_history
WHERE feed = 'flights' AND status = 'SUCCESS' ORDER BY partition_key
"""
_REFUSED = """
SELECT DISTINCT partition_key, error_details FROM batch_audit.import_history WHERE status = 'FAILED'
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    shutil.copytree(PROJECT / "feeds", tmp_path / "feeds")
    server = EmbeddedServer(home=tmp_path / "home")
    try:
        yield server
    finally:
        server.stop(force=True)
        shutil.rmtree(server.folder, ignore_errors=True)
        shutil.rmtree(server.socket_folder, ignore_errors=True)


def run_tour(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "batch_pipelines.tour"],
        env=environment(folder, folder / "home"), cwd=folder,
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip


def digests(connection: psycopg.Connection) -> dict[str, tuple[object, ...]]:
    return {
        table: connection.execute(_DIGEST.format(table).encode()).fetchall()[0] for table in TABLES
    }


@pytest.mark.long
def test_the_tour_run_twice_ends_in_the_same_tables(server: EmbeddedServer, tmp_path: Path) -> None:
    first = run_tour(tmp_path)
    assert first.returncode == 0, first.stderr
    assert "12 batches of flights are SUCCESS; they wrote 336,776 records." in first.stdout
    sidecar = tmp_path / "landing" / "flights" / "2013-12" / "flights.csv.crc32c"
    refusal = rf"flights\.csv: CRC32C is (\w{{8}}), but its sidecar says {sidecar.read_text()[:8]}"
    damaged = re.search(refusal, first.stderr)
    assert damaged is not None
    assert damaged[1] != sidecar.read_text()[:8]
    assert not server.is_running()

    with server.use(), psycopg.connect(server.url(DATA_DATABASE)) as connection:
        before = digests(connection)
        batches = connection.execute(_BATCHES).fetchall()
        assert [key for key, _, _ in batches] == [f"2013-{month:02}" for month in range(1, 13)]
        assert sum(records for _, records, _ in batches) == 336_776
        assert all(records == written for _, records, written in batches)
        assert before["flights"][0] == 336_776
        ((key, why),) = connection.execute(_REFUSED).fetchall()
        assert key == "2013-12"
        assert damaged[0] in why

    second = run_tour(tmp_path)
    assert second.returncode == 0, second.stderr
    assert second.stdout.count("DUPLICATE") == 13
    with server.use(), psycopg.connect(server.url(DATA_DATABASE)) as connection:
        assert digests(connection) == before
        assert connection.execute(_BATCHES).fetchall() == batches
    assert not server.is_running()
