"""`import` killed at any moment: nothing is half-visible, and the same command completes it."""

from __future__ import annotations

import random
import shutil
import time
from typing import TYPE_CHECKING

import psycopg
import pytest

from batch_pipelines.engine.postgres.database import DATA_DATABASE
from batch_pipelines.engine.postgres.server import EmbeddedServer
from tests.support_process import command, typing
from tests.support_shop import FEED, deliver, environment, open_shop, orders
from tests.support_soak import short_or_long

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROWS = 10_000
_SEEN = """
SELECT count(*), array_agg(DISTINCT h.status)
FROM public.orders o LEFT JOIN batch_audit.import_history h ON h.batch_id = o.import_batch_id
WHERE o.id BETWEEN %s AND %s
"""
_BATCHES = """
SELECT status FROM batch_audit.import_history
WHERE partition_key = %s AND status NOT IN ('FAILED', 'DUPLICATE')
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """The embedded server as strangers get it: each command starts it, and ends it if it can."""
    open_shop(tmp_path)
    server = EmbeddedServer(home=tmp_path / "home")
    try:
        yield server
    finally:
        server.stop(force=True)
        shutil.rmtree(server.folder, ignore_errors=True)
        shutil.rmtree(server.socket_folder, ignore_errors=True)


@pytest.mark.long
@short_or_long("times", 2, 30)
def test_killed_at_any_moment_the_same_command_completes_it(
    server: EmbeddedServer, tmp_path: Path, times: int
) -> None:
    surroundings = environment(tmp_path, server.home)
    deliver(tmp_path, "whole", orders(ROWS, first=1))
    with server.use():
        pass  # making the cluster takes longer than an import does
    began = time.monotonic()
    assert command("import", FEED, environment=surroundings).returncode == 0
    whole = time.monotonic() - began

    for attempt in range(1, times + 1):
        key, first = f"attempt-{attempt}", attempt * ROWS + 1
        deliver(tmp_path, key, orders(ROWS, first=first))
        moment = random.uniform(0.1, 0.95) * whole  # noqa: S311  # no secret
        typed = ["import", FEED, "--batch", key]
        with typing(*typed, environment=surroundings) as begun:
            time.sleep(moment)
            begun.process.kill()
        where = f"killed after {moment:.3f} of {whole:.3f} s"
        with server.use():
            count, states = ask(server, _SEEN, first, first + ROWS - 1)
            assert count in {0, ROWS}, where
            assert not count or states in (["PUBLISHED"], ["SUCCESS"]), where

            again = command(*typed, environment=surroundings)
            assert again.returncode == 0, f"{where}: {again.stderr}"
            assert ask(server, _SEEN, first, first + ROWS - 1) == (ROWS, ["SUCCESS"]), where
            assert ask(server, _BATCHES, key) == ("SUCCESS",), where
    assert not server.is_running()


def ask(server: EmbeddedServer, sql: str, *parameters: object) -> tuple[object, ...]:
    with psycopg.connect(server.url(DATA_DATABASE)) as connection:
        rows = connection.execute(sql.encode(), parameters).fetchall()
    assert len(rows) == 1
    return tuple(rows[0])
