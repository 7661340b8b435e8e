"""`dev`: Dagster's UI with its daemon, and the embedded database under it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from batch_pipelines.cli.show import say
from batch_pipelines.engine.errors import SettingsError
from batch_pipelines.engine.settings import load_settings
from batch_pipelines.instance import prepared

_HOST = "127.0.0.1"
_WORKSPACE = Path(__file__).resolve().parents[2] / "workspace.yaml"
# Dagster's code servers end within a second of it. A run may take longer; ended by force it is
# completed by the next one.
_PATIENCE_SECONDS, _POLL_SECONDS = 10.0, 0.05
_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def dev(
    *,
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port of the UI, on the loopback address.")
    ] = 3000,
) -> None:
    """Open the UI, with schedules and sensors running, until Ctrl+C."""
    settings = load_settings()
    _require_free(port)
    with prepared(settings):
        say(f"Dagster's UI: http://{_HOST}:{port}  (Ctrl+C ends it)")
        command = [
            # Dagster says on every start that another tool is meant to take `dagster dev`'s place.
            sys.executable, "-W", "ignore:Function `dev_command` is superseded",
            "-m", "dagster", "dev", "--workspace", str(_WORKSPACE),
            "--host", _HOST, "--port", str(port),
        ]  # fmt: skip
        environment = os.environ | {
            "BATCH_PIPELINES_HOME": str(settings.home),
            "BATCH_PIPELINES_FEEDS": str(settings.feeds),
        }
        code = _run(command, environment)
    raise typer.Exit(max(0, code))


def _run(command: list[str], environment: dict[str, str]) -> int:
    """Run Dagster until it ends; whatever asks us to end asks it, once, and waits.

    In a session of its own it does not get the terminal's Ctrl+C beside ours: a second one would
    keep it from ending its children.
    """
    # Where a shell started us with `&`, SIGINT is ignored, and Dagster would inherit that, with
    # SIGTERM, which it treats alike.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(command, env=environment, start_new_session=True) as process:  # noqa: S603
        asked = False

        def end(*_: object) -> None:
            nonlocal asked
            if not asked:
                asked = True
                process.terminate()

        for ending in _ENDINGS:
            signal.signal(ending, end)
        code = process.wait()
    _outlive(process.pid)
    return 0 if asked else code


def _outlive(group: int) -> None:
    """Wait for the last of Dagster's processes: the database under them is about to stop."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    with suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(group, 0)
            time.sleep(_POLL_SECONDS)
        os.killpg(group, signal.SIGKILL)


def _require_free(port: int) -> None:
    # Dagster would take another port, and nobody would find it where we said it is.
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError as error:
            message = (
                f"Port {port} on {_HOST} cannot be used ({error.strerror}). "
                f"Choose another: batch-pipelines dev --port {port + 1}"
            )
            raise SettingsError(message) from None
