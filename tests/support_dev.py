"""`batch-pipelines dev` as a process, with daemon, UI and embedded database."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psutil

from batch_pipelines.engine.postgres.server import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def running_dev(folder: Path, surroundings: dict[str, str]) -> Iterator[tuple[str, psutil.Popen]]:
    """Run `dev` for the length of a block; it must end by itself, and leave nothing behind.

    Args:
        folder: For its log; `home` in it is BATCH_PIPELINES_HOME.
        surroundings: The environment.

    Yields:
        Where the UI is, which answers, and the process.
    """
    server = EmbeddedServer(home=folder / "home")
    url, process = start_dev(folder, surroundings)
    try:
        yield url, process
    finally:
        children = process.children(recursive=True)
        process.terminate()
        _, left = psutil.wait_procs([process, *children], timeout=180)
        for each in left:
            each.kill()
        running = server.is_running()
        server.stop(force=True)
        shutil.rmtree(server.folder, ignore_errors=True)
        shutil.rmtree(server.socket_folder, ignore_errors=True)
    assert left == [], "`dev` left processes behind"
    assert process.returncode == 0
    assert not running, "`dev` left its database running"


def start_dev(folder: Path, surroundings: dict[str, str]) -> tuple[str, psutil.Popen]:
    """Start `dev`, and wait until its UI answers.

    Args:
        folder: For its log.
        surroundings: The environment.

    Returns:
        Where the UI is, and the process, which is the caller's to end.
    """
    port = _free_port()
    log = folder / "dev.log"
    with log.open("w") as output:
        process = psutil.Popen(
            [sys.executable, "-m", "batch_pipelines", "dev", "--port", str(port)],
            env=surroundings, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_for(f"{url}/server_info", process, log)
    except BaseException:
        if process.poll() is None:
            process.terminate()
            process.wait(180)
        raise
    return url, process


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(url: str, process: psutil.Popen, log: Path) -> None:
    deadline = time.monotonic() + 600
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):  # noqa: S310  # our own, on loopback
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
