"""Given thousands of deliveries dropped at once, `dev` loads each of them, and none twice."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

import psycopg
import pytest

from batch_pipelines.engine.postgres.database import DAGSTER_DATABASE, DATA_DATABASE
from batch_pipelines.engine.postgres.server import EmbeddedServer
from tests.support_dev import running_dev
from tests.support_shop import FEED, environment, open_shop, orders

if TYPE_CHECKING:
    from pathlib import Path

DELIVERIES, ROWS = 2000, 5
# How long nothing may end; a run takes seconds.
_PATIENCE_SECONDS = 600
_ENDED = "SELECT count(*) FROM batch_audit.import_history WHERE completed_at IS NOT NULL"
_BATCHES = """
SELECT h.partition_key, h.status, h.written_records, count(o.id),
       min(o.id), (SELECT count(*) FROM batch_audit.batch_run AS r WHERE r.batch_id = h.batch_id)
FROM batch_audit.import_history AS h LEFT JOIN public.orders AS o ON o.import_batch_id = h.batch_id
GROUP BY h.batch_id ORDER BY h.partition_key
"""
_HELD = "SELECT count(*) FROM batch_audit.batch_lease WHERE released_at IS NULL"
_RUNS = "SELECT status, count(*) FROM public.runs WHERE pipeline_name = %s GROUP BY 1"


@pytest.mark.soak
def test_two_thousand_deliveries_end_right_and_none_twice(tmp_path: Path) -> None:
    open_shop(tmp_path)
    server = EmbeddedServer(home=tmp_path / "home")
    made = tmp_path / "made"
    for number in range(DELIVERIES):
        folder = made / f"d{number:04}"
        folder.mkdir(parents=True)
        (folder / "orders.csv").write_text(orders(ROWS, first=1 + number * ROWS))
    with running_dev(tmp_path, environment(tmp_path, tmp_path / "home")):
        (tmp_path / "landing").mkdir(exist_ok=True)
        made.rename(tmp_path / "landing" / FEED)
        with psycopg.connect(server.url(DATA_DATABASE), autocommit=True) as connection:
            wait_until_ended(connection)
            batches = connection.execute(_BATCHES).fetchall()
            (held,) = connection.execute(_HELD).fetchone() or (None,)
        wait_until_told(server)
        with psycopg.connect(server.url(DAGSTER_DATABASE)) as connection:
            runs: Counter[str] = Counter(dict(connection.execute(_RUNS, (FEED,)).fetchall()))
        assert [*(tmp_path / "home" / "staging").iterdir()] == []
    assert batches == [
        (f"d{number:04}", "SUCCESS", ROWS, ROWS, 1 + number * ROWS, 1)
        for number in range(DELIVERIES)
    ]
    assert held == 0
    assert runs == {"SUCCESS": DELIVERIES}


def wait_until_ended(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    """Wait for as many batches as there are deliveries, for as long as some go on ending."""
    ended, deadline = 0, time.monotonic() + _PATIENCE_SECONDS
    while ended < DELIVERIES:
        assert time.monotonic() < deadline, f"{ended} of {DELIVERIES} batches have ended"
        time.sleep(5)
        (now,) = connection.execute(_ENDED).fetchone() or (0,)
        if now != ended:
            ended, deadline = int(str(now)), time.monotonic() + _PATIENCE_SECONDS


def wait_until_told(server: EmbeddedServer) -> None:
    """Wait for Dagster to have noted that every run has ended."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    with psycopg.connect(server.url(DAGSTER_DATABASE), autocommit=True) as connection:
        while {status for status, _ in connection.execute(_RUNS, (FEED,))} - _OVER:
            assert time.monotonic() < deadline
            time.sleep(1)


_OVER = {"SUCCESS", "FAILURE", "CANCELED"}
