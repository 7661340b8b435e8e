"""`db`: the embedded server and the ledger's migrations, and the exit codes of real processes."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from batch_pipelines.engine.postgres.server import EmbeddedServer
from tests.support_shop import DAY, FEED, deliver, environment, orders

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cli.conftest import Cli


@pytest.fixture
def server(feeds_folder: Path) -> Iterator[EmbeddedServer]:
    """The embedded server that the commands use."""
    server = EmbeddedServer(home=feeds_folder.parent / "home")
    try:
        yield server
    finally:
        server.stop(force=True)
        shutil.rmtree(server.folder, ignore_errors=True)
        shutil.rmtree(server.socket_folder, ignore_errors=True)


def test_the_embedded_server_is_kept_up_until_it_is_stopped(
    cli: Cli, server: EmbeddedServer
) -> None:
    assert cli("db", "status").code == 0
    assert not server.is_running(), "a command that started it stops it at its end"

    started = cli("db", "start")
    assert started.code == 0
    url = cli("db", "url").out.strip()
    assert url in started.out
    assert cli("db", "url", "--json").json == cli("db", "start", "--json").json == {"url": url}
    assert cli("db", "status").code == 0
    with psycopg.connect(url) as connection:
        assert connection.info.dbname == "batch_pipelines"

    assert cli("db", "stop").code == 0
    assert not server.is_running()
    assert cli("db", "stop", "--json").json == {"stopped": True}


def test_the_ledger_goes_up_and_down(
    cli: Cli, server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("no\n"))
    with server.use():
        status = cli("db", "status")
        assert "The ledger is at revision none" in status.out
        assert status.out.strip().endswith("Next: batch-pipelines db upgrade")

        ran = cli("batches")
        assert ran.code == 2
        assert "Run `batch-pipelines db upgrade`" in ran.err

        ran = cli("db", "upgrade")
        assert ran.code == 0
        assert "Tables of feed orders created." in ran.out
        told = cli("db", "upgrade", "--json").json
        assert told["tables_created_for"] == []
        now = cli("db", "status", "--json").json
        assert (now["current"], now["pending"]) == (told["revision"], [])
        assert cli("batches").code == 0

        asked = cli("db", "downgrade", "--to", "base", "--json")
        assert (asked.code, asked.out.strip()) == (1, "")
        assert "Go on? [y/N]" in asked.err
        assert cli("db", "downgrade", "--to", "0999", "--yes").code == 2
        assert cli("db", "status", "--json").json == now
        ran = cli("db", "downgrade", "--to", "base", "--yes", "--json")
        assert (ran.code, ran.json) == (0, {"revision": None})
        assert cli("db", "status", "--json").json["current"] is None
        assert cli("db", "upgrade").code == 0


def test_import_brings_the_embedded_server_up_to_date_by_itself(
    cli: Cli, server: EmbeddedServer
) -> None:
    deliver(server.home.parent, DAY, orders(5))
    assert cli("import", FEED).code == 0
    assert not server.is_running()
    assert cli("show", f"{FEED}/{DAY}").code == 0


def test_start_and_stop_have_nothing_to_do_with_somebodys_own_server(
    cli: Cli, feeds_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCH_PIPELINES_DATABASE_URL", "postgresql://somewhere/db")
    for name in ("start", "stop"):
        ran = cli("db", name)
        assert ran.code == 2
        assert "BATCH_PIPELINES_DATABASE_URL is set" in ran.err
    assert not (feeds_folder.parent / "home").exists()


@pytest.mark.parametrize(
    ("typed", "code"),
    [
        (["feeds", "list"], 0),
        (["import", FEED], 1),
        (["import", "nothing"], 2),
        (["import"], 2),
    ],
)
def test_the_exit_code_of_a_process_tells_how_it_went(
    feeds_folder: Path, typed: list[str], code: int
) -> None:
    folder = feeds_folder.parent
    ran = subprocess.run(
        [sys.executable, "-m", "batch_pipelines", *typed],
        env=environment(folder, folder / "home"), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == code
    assert "Traceback" not in ran.stderr
    assert bool(ran.stderr) == bool(code)


def test_the_program_is_installed_under_its_name(feeds_folder: Path) -> None:
    program = Path(sys.executable).with_name("batch-pipelines")
    ran = subprocess.run(
        [program, "feeds", "list", "--json"], env=dict(os.environ), capture_output=True, check=True
    )
    assert b'"feed": "orders"' in ran.stdout
