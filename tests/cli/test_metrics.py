"""Metrics, typed: as text, as a file, and over HTTP beside Dagster's queue."""

from __future__ import annotations

import socket
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING

from tests.support_shop import DAY, FEED, orders

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli
    from tests.support_shop import Shop

WANTED = 'batch_pipelines_rows_total{feed="orders",outcome="written"} 20.0'
_ENTRY = [sys.executable, "-m", "batch_pipelines"]


def test_metrics_are_printed_and_written_and_a_batch_tells_its_cost(
    cli: Cli, shop: Shop, tmp_path: Path
) -> None:
    shop.deliver(DAY, orders(20))
    assert cli("import", FEED).code == 0
    printed = cli("metrics", "--no-runs")
    assert printed.code == 0
    assert WANTED in printed.out.splitlines()
    assert "batch_pipelines_runs{" not in printed.out
    path = tmp_path / "x.prom"
    assert cli("metrics", "--file", str(path)).code == 0
    told = path.read_text()
    assert WANTED in told.splitlines()
    assert 'batch_pipelines_runs{status="QUEUED"} 0.0' in told.splitlines()
    assert cli("metrics", "--file", str(path), "--serve", "9999").code == 2
    shown = cli("show", f"{FEED}/{DAY}")
    assert "bytes of write-ahead log" in shown.out
    assert cli("show", f"{FEED}/{DAY}", "--json").json["cost"]["publish_seconds"] > 0


def test_they_are_served_until_the_command_is_ended(shop: Shop) -> None:
    shop.deliver(DAY, orders(3))
    with subprocess.Popen(
        [*_ENTRY, "metrics", "--serve", str(_free_port())], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            address = line.split()[1]
            with urllib.request.urlopen(address, timeout=60) as answer:  # noqa: S310  # our own
                assert "batch_pipelines_up 1.0" in answer.read().decode().splitlines()
        finally:
            process.terminate()
        assert process.wait(60) == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
