"""`dev`: Dagster's UI with its daemon, and the embedded database under it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from batch_pipelines.cli.show import say
from batch_pipelines.engine.settings import load_settings
from batch_pipelines.instance import prepared

_WORKSPACE = Path(__file__).resolve().parents[2] / "workspace.yaml"


def dev(
    *, port: Annotated[int, typer.Option(help="Port of the UI, on the loopback address.")] = 3000
) -> None:
    """Open the UI, with schedules and sensors running, until Ctrl+C."""
    settings = load_settings()
    with prepared(settings):
        say(f"Dagster's UI: http://127.0.0.1:{port}  (Ctrl+C ends it)")
        command = [
            sys.executable, "-m", "dagster", "dev", "--workspace", str(_WORKSPACE),
            "--host", "127.0.0.1", "--port", str(port),
        ]  # fmt: skip
        environment = os.environ | {
            "BATCH_PIPELINES_HOME": str(settings.home),
            "BATCH_PIPELINES_FEEDS": str(settings.feeds),
        }
        with subprocess.Popen(command, env=environment) as process:  # noqa: S603
            try:
                code = process.wait()
            except KeyboardInterrupt:
                # The terminal has sent it to Dagster too, which takes its time to end its children.
                code = process.wait()
    raise typer.Exit(max(0, code))
