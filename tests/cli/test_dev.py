"""`dev` where it cannot start; tests/browser has it run."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli


def test_a_port_in_use_is_said_before_anything_is_started(cli: Cli, feeds_folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ran = cli("dev", "--port", str(port))
    assert ran.code == 2
    assert f"Port {port} on 127.0.0.1 cannot be used (Address already in use)" in ran.err
    assert f"batch-pipelines dev --port {port + 1}" in ran.err
    assert not (feeds_folder.parent / "home").exists()


def test_a_port_that_cannot_be_is_wrong_usage(cli: Cli) -> None:
    assert cli("dev", "--port", "0").code == 2
