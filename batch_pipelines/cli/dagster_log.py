"""Dagster's own log under `dev`: all of it in a file, and what somebody has to know on the terminal."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING

from batch_pipelines.cli.beside import beside

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

_INTERVAL_SECONDS = 0.5
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# Of Dagster's services. What a run logs (`- dagster - ERROR - JOB - ...`) the ledger and the UI have.
_SERVICE = re.compile(r"\S+ \S+ \S+ - (dagster[.-]\S+) - (WARNING|ERROR|CRITICAL) - (.*)")


def worth_telling(line: str) -> str | None:
    """Give what a line of Dagster's log says to whoever watches the terminal.

    Args:
        line: The line, in colours or not.

    Returns:
        Service, level and message; None where it is the log's alone.
    """
    found = _SERVICE.match(_COLOUR.sub("", line.rstrip()))
    return None if found is None else f"{found[1]}: {found[2].lower()}: {found[3]}"


def watched(log: Path, tell: Callable[[str], None]) -> AbstractContextManager[None]:
    """Watch a log as it grows, for as long as the block lasts.

    Args:
        log: The file, which is there.
        tell: Told what is worth telling.
    """
    return beside("dagster log", functools.partial(_watch, log, tell))


def _watch(log: Path, tell: Callable[[str], None], over: threading.Event) -> None:
    rest = ""
    with log.open(encoding="utf-8", errors="replace") as growing:
        while not over.wait(_INTERVAL_SECONDS):
            *lines, rest = (rest + growing.read()).split("\n")
            for line in lines:
                if said := worth_telling(line):
                    tell(said)
