"""`dev`: Dagster's UI with its daemon, and the embedded database under it."""

from __future__ import annotations

import datetime as dt
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from batch_pipelines.cli.channel import terminal_channel
from batch_pipelines.cli.dagster_log import watched
from batch_pipelines.cli.following import following
from batch_pipelines.cli.metrics import collector_of
from batch_pipelines.cli.serving import served_pages
from batch_pipelines.cli.show import complain, console, say, status
from batch_pipelines.engine.alerts.channels import VARIABLE, read_channels
from batch_pipelines.engine.errors import SettingsError
from batch_pipelines.engine.settings import load_settings
from batch_pipelines.instance import open_instance, prepared

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batch_pipelines.engine.ledger.batches import Batch

_HOST = "127.0.0.1"
_WORKSPACE = Path(__file__).resolve().parents[2] / "workspace.yaml"
# Dagster's code servers end within a second of it. A run may take longer; ended by force it is
# completed by the next one.
_PATIENCE_SECONDS, _POLL_SECONDS = 10.0, 0.05
_ASK_SECONDS = 0.25
_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def dev(
    *,
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port of the UI, on the loopback address.")
    ] = 3000,
    metrics: Annotated[
        int | None,
        typer.Option(help="Port for Prometheus, on the loopback address.", min=1, max=65535),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Dagster's whole log here, and not in a file.")
    ] = False,
) -> None:
    """Open the UI, with schedules and sensors running, until Ctrl+C."""
    settings = load_settings()
    channels = read_channels(settings.alerts).urls
    _require_free(port)
    say("Starting database, daemon and UI ...")
    with ExitStack() as stack:
        database = stack.enter_context(prepared(settings))
        level = "info" if verbose else "warning"
        command = [
            # Dagster says on every start that another tool is meant to take `dagster dev`'s place.
            sys.executable, "-W", "ignore:Function `dev_command` is superseded",
            "-m", "dagster", "dev", "--workspace", str(_WORKSPACE),
            "--host", _HOST, "--port", str(port), "--log-level", level,
        ]  # fmt: skip
        environment = os.environ | {
            "BATCH_PIPELINES_HOME": str(settings.home),
            "BATCH_PIPELINES_FEEDS": str(settings.feeds),
        }
        if not channels:
            environment[VARIABLE] = stack.enter_context(terminal_channel(_tell_alert))
        if settings.reports_url is None:
            url = stack.enter_context(_reports(settings.reports, port + 1))
            environment |= {} if url is None else {"BATCH_PIPELINES_REPORTS_URL": url}
        log = None
        if not verbose:
            log = settings.home / "dev.log"
            log.write_bytes(b"")
            stack.enter_context(watched(log, lambda line: _tell(f"[red]{escape(line)}[/]")))
        stack.enter_context(following(database, _tell_batch))
        if metrics is not None:
            from batch_pipelines.engine.metrics.exposition import served  # noqa: PLC0415  # heavy

            collector = collector_of(database, stack.enter_context(open_instance()))
            say(f"Metrics: {stack.enter_context(served(collector, metrics))}")
        stack.enter_context(_announced(port, sorted(channels), log))
        code = _run(command, environment, log)
    if code and log is not None:
        complain(f"Dagster ended by itself (exit code {code}). Why is in {log}.")
    raise typer.Exit(max(0, code))


@contextmanager
def _reports(folder: Path, port: int) -> Iterator[str | None]:
    """Serve reports beside the UI, so that links to them open; without is no reason not to start."""
    with ExitStack() as stack:
        try:
            url = stack.enter_context(served_pages(folder, port))
        except (OSError, OverflowError) as error:
            say(f"Reports are not served, so links to them do not open: port {port}: {error}")
            url = None
        yield url


def _tell(markup: str) -> None:
    console().print(f"[dim]{dt.datetime.now().astimezone():%H:%M:%S}[/] {markup}", soft_wrap=True)


def _tell_batch(batch: Batch, text: str) -> None:
    _tell(f"{escape(batch.name)} {status(batch.status)} {escape(text)}".rstrip())


def _tell_alert(title: str, text: str) -> None:
    lines = "".join(f"\n           {escape(line)}" for line in text.splitlines())
    _tell(f"[bold yellow]ALERT[/] [bold]{escape(title)}[/]{lines}")


@contextmanager
def _announced(port: int, channels: list[str], log: Path | None) -> Iterator[None]:
    """Say where the UI is once it answers; before, a browser would find nobody there."""
    over = threading.Event()
    url = f"http://{_HOST}:{port}"

    def wait() -> None:
        while not over.wait(_ASK_SECONDS):
            with suppress(OSError), urllib.request.urlopen(f"{url}/server_info", timeout=5):  # noqa: S310  # our own
                break
        else:
            return
        told = ", ".join(channels) if channels else f"this terminal ({VARIABLE} names others)"
        say(f"Dagster's UI: {url}  (Ctrl+C ends it)")
        say(f"Sensors and schedules are running. Alerts go to: {told}.")
        if log is not None:
            say(f"Dagster's own log: {log}")

    thread = threading.Thread(target=wait, name="announce")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _run(command: list[str], environment: dict[str, str], log: Path | None) -> int:
    """Run Dagster until it ends; whatever asks us to end asks it, once, and waits.

    In a session of its own it does not get the terminal's Ctrl+C beside ours: a second one would
    keep it from ending its children.
    """
    # Where a shell started us with `&`, SIGINT is ignored, and Dagster would inherit that, with
    # SIGTERM, which it treats alike.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with ExitStack() as stack:
        output = None if log is None else stack.enter_context(log.open("ab"))
        process = stack.enter_context(
            subprocess.Popen(  # noqa: S603  # our own
                command, env=environment, start_new_session=True,
                stdout=output, stderr=None if output is None else subprocess.STDOUT,
            )
        )  # fmt: skip
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
