"""Processes of their own, which tests stop and kill at a failpoint or at any moment.

They are forked from one that has imported all they need, which takes a second or more each time.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from contextlib import ExitStack, chdir, contextmanager
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

# What a run needs, imported once by the server from which the processes are forked.
import bagit as _bagit  # noqa: F401
import duckdb as _duckdb  # noqa: F401
import pandas as pd  # noqa: F401  # which duckdb imports late
import psutil

from batch_pipelines import definitions as _definitions  # noqa: F401
from batch_pipelines.cli import main
from batch_pipelines.engine.failpoints import armed
from batch_pipelines.engine.reading import second_reader as _second_reader  # noqa: F401
from batch_pipelines.engine.work import explain
from tests.support_engine import KEY, Site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection as Pipe
    from multiprocessing.context import ForkServerProcess
    from multiprocessing.synchronize import Barrier

    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.postgres.database import Database
    from batch_pipelines.engine.settings import Settings

# Forked from a process without threads, which pytest's own is not.
FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload([__name__])
_ROOT = Path(__file__).parents[1]
_JOIN_SECONDS = 300  # it says that something hangs, and not that a machine is slow
_SAID = ("out", "err")


@dataclass(frozen=True)
class At:
    """A signal that a process sends itself.

    Attributes:
        place: The failpoint.
        times: How often it is passed until then.
        signal: The signal.
    """

    place: str
    times: int = 1
    signal: int = signal.SIGKILL


@dataclass(frozen=True)
class Started:
    """An import in a process of its own.

    Attributes:
        run_id: Its run id.
        process: The process.
    """

    run_id: str
    process: ForkServerProcess
    _answer: Pipe

    def outcome(self) -> tuple[str, str] | None:
        """Wait for its end.

        Returns:
            Name of the error's type and its message, or `done` and the batch's status; None if the
            process was killed.
        """
        self.process.join(_JOIN_SECONDS)
        assert self.process.exitcode is not None, "the import hangs"
        if self.process.exitcode == -signal.SIGKILL:
            return None
        answer: tuple[str, str] = self._answer.recv()
        return answer

    def signal(self, number: int) -> None:
        """Send a signal."""
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def wait_until_stopped(self) -> None:
        """Wait until it has stopped itself."""
        ps = psutil.Process(self.process.pid)
        while ps.status() != psutil.STATUS_STOPPED:
            self.process.join(0.02)
            assert self.process.exitcode is None, self.outcome()


@contextmanager
def importing(
    site: Site,
    run_id: str,
    *,
    at: At | None = None,
    start: Barrier | None = None,
    key: str = KEY,
) -> Iterator[Started]:
    """Run the five stages in a process, which is gone at the end of the block.

    Args:
        site: Where; its feed's delivery has landed.
        run_id: The run's id.
        at: A signal that it sends itself.
        start: It waits here before it begins.
        key: The partition.

    Yields:
        The import.
    """
    start_server()
    answer, told = FORK.Pipe(duplex=False)
    what = (site.database, site.settings, site.feed, key, run_id, at, start, told)
    process = FORK.Process(target=_main, args=what, daemon=True)
    process.start()
    told.close()
    try:
        yield Started(run_id, process, answer)
    finally:
        process.kill()
        process.join()
        process.close()
        answer.close()


@dataclass(frozen=True)
class Typed:
    """A command in a process of its own.

    Attributes:
        arguments: What was typed after the program's name.
        process: The process.
    """

    arguments: tuple[str, ...]
    process: ForkServerProcess
    _said: Path

    def ended(self) -> subprocess.CompletedProcess[str]:
        """Wait for its end; tell how it ended, and what it printed."""
        self.process.join(_JOIN_SECONDS)
        out, err = ((self._said / name).read_text() for name in _SAID)
        assert self.process.exitcode is not None, f"the command hangs: {err}"
        return subprocess.CompletedProcess(self.arguments, self.process.exitcode, out, err)


@contextmanager
def typing(
    *arguments: str, environment: dict[str, str], killed_at: str | None = None
) -> Iterator[Typed]:
    """Run `batch-pipelines` in a process, which is gone at the end of the block.

    Args:
        arguments: What is typed after the program's name.
        environment: Of the process.
        killed_at: A failpoint where the process kills itself with SIGKILL.

    Yields:
        The command.
    """
    start_server()
    with TemporaryDirectory() as folder:
        said = Path(folder)
        for name in _SAID:
            (said / name).touch()
        # No daemon, for a command may have processes of its own.
        process = FORK.Process(target=_command, args=(arguments, environment, killed_at, said))
        process.start()
        try:
            yield Typed(arguments, process, said)
        finally:
            process.kill()
            process.join()
            process.close()


def command(
    *arguments: str, environment: dict[str, str], killed_at: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `batch-pipelines` in a process to its end, as `typing` does."""
    with typing(*arguments, environment=environment, killed_at=killed_at) as typed:
        return typed.ended()


def start_server() -> None:
    with chdir(_ROOT):
        # It finds what it is to import in advance from the folder where it starts.
        forkserver.ensure_running()


def _command(
    arguments: tuple[str, ...], environment: dict[str, str], killed_at: str | None, said: Path
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["batch-pipelines", *arguments]
    for number, name in enumerate(_SAID, 1):
        os.dup2(os.open(said / name, os.O_WRONLY | os.O_APPEND), number)
    with ExitStack() as stack:
        if killed_at is not None:
            stack.enter_context(armed(killed_at, _signalling(At(killed_at))))
        main()


def _signalling(at: At) -> Callable[[Any], Any]:
    passed = 0

    def pass_by(value: Any) -> Any:
        nonlocal passed
        passed += 1
        if passed == at.times:
            os.kill(os.getpid(), at.signal)
        return value

    return pass_by


def _main(
    database: Database,
    settings: Settings,
    feed: Feed,
    key: str,
    run_id: str,
    at: At | None,
    start: Barrier | None,
    told: Pipe,
) -> None:
    os.chdir(settings.root)
    try:
        with ExitStack() as stack:
            connection = stack.enter_context(database.connect("test"))
            if at is not None:
                stack.enter_context(armed(at.place, _signalling(at)))
            if start is not None:
                start.wait(_JOIN_SECONDS)
            batch = Site(database, settings, feed, connection).run(key, run_id=run_id)
    except Exception as error:  # noqa: BLE001  # the test judges
        told.send((type(error).__name__, explain(error)))
    else:
        told.send(("done", batch.status))
