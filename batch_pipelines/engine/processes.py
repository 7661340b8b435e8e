"""Naming a process so that it can be told later, from anywhere, whether it still lives.

A pid alone is recycled, and means nothing on another machine. So beside it stand when the process
started, and which machine, which boot of it and which space of pids (a container has its own) the pid
is of. What cannot be told reads `unknown`, and nobody acts on that.
"""

from __future__ import annotations

import functools
import hashlib
import os
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

if TYPE_CHECKING:
    from collections.abc import Callable

Life = Literal["alive", "dead", "unknown"]
Ending = Literal["gone", "ended", "killed", "elsewhere", "own", "not permitted", "stays"]

_UNKNOWN = "-"
_POLL_SECONDS = 0.1
# Where the kernel says it, on Linux. Elsewhere a process is known by its pid alone.
_BOOT, _SPACE = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
_MACHINE = Path("/etc/machine-id")
# The 22nd field of /proc/PID/stat is the start in ticks since boot; the second one, the program's
# name in brackets, may hold anything. The state stands right behind it.
_STATE, _START = 0, 19
_ENDED = {"Z", "X"}


@dataclass(frozen=True)
class Process:
    """A process; what is not known is `-`.

    Attributes:
        host: Name of its host.
        pid: Its number there.
        started: When it started, in the kernel's ticks since boot.
        machine: Digest of the machine's id.
        boot: The boot of the machine.
        space: The space of process ids that `pid` is of.
    """

    host: str
    pid: int
    started: str = _UNKNOWN
    machine: str = _UNKNOWN
    boot: str = _UNKNOWN
    space: str = _UNKNOWN

    def __str__(self) -> str:
        """Write it down; `read` reads it."""
        known = (self.started, self.machine, self.boot, self.space)
        return " ".join([f"{self.host}:{self.pid}", *known])

    @property
    def name(self) -> str:
        """Host and pid, for people."""
        return f"{self.host}:{self.pid}"

    @classmethod
    def read(cls, text: str) -> Self | None:
        """Read what was written down; None where it is something else."""
        name, *known = text.split(" ")
        host, colon, pid = name.rpartition(":")
        if not (colon and pid.isascii() and pid.isdecimal() and int(pid)):
            return None
        return cls(host, int(pid), *known) if len(known) in {0, len(_surroundings()) + 1} else None

    @classmethod
    def current(cls) -> Self:
        """Name this process."""
        pid = os.getpid()
        stat = _stat(pid)
        return cls(socket.gethostname(), pid, stat[_START] if stat else _UNKNOWN, *_surroundings())


def life(process: Process) -> Life:
    """Say whether a process lives.

    Args:
        process: The process, of this machine or another.

    Returns:
        `unknown` where it is of another machine, or of a container that cannot be looked into.
    """
    here = Process.current()
    if process.host != here.host:
        return "unknown"
    if _differ(process.boot, here.boot):
        # The machine was started anew; or it is another one of the same name.
        same = process.machine == here.machine != _UNKNOWN
        return "dead" if same else "unknown"
    if _differ(process.space, here.space):
        return "unknown"
    return "alive" if _lives_here(process) else "dead"


def end(
    process: Process,
    *,
    patience: float,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Ending:
    """End a process, if it is of this machine and provably the one that was meant.

    Args:
        process: The process.
        patience: How long, in seconds, it may take to end by itself; then it is killed.
        sleep: Waits so many seconds.
        clock: Tells seconds, from any start.

    Returns:
        What became of it: it was `gone`, has `ended` when asked or was `killed`; or nothing was done,
        because it is or may be `elsewhere`, is the caller's `own`, or we are `not permitted` to.
        `stays`: it was killed, and the kernel has not let it go yet.
    """
    if life(process) == "dead":
        return "gone"
    if life(process) == "unknown" or not _is_proven(process):
        return "elsewhere"
    return "own" if process.pid == os.getpid() else _end(process, patience, sleep, clock)


def _end(
    process: Process,
    patience: float,
    sleep: Callable[[float], None],
    clock: Callable[[], float],
) -> Ending:
    try:
        os.kill(process.pid, signal.SIGTERM)
        if _ends(process, patience, sleep, clock):
            return "ended"
        os.kill(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return "ended"
    except PermissionError:
        return "not permitted"
    return "killed" if _ends(process, patience, sleep, clock) else "stays"


def _ends(
    process: Process,
    patience: float,
    sleep: Callable[[float], None],
    clock: Callable[[], float],
) -> bool:
    deadline = clock() + patience
    while life(process) != "dead":
        if clock() > deadline:
            return False
        sleep(_POLL_SECONDS)
    return True


def _differ(one: str, other: str) -> bool:
    return _UNKNOWN not in {one, other} and one != other


def _lives_here(process: Process) -> bool:
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    stat = _stat(process.pid)
    return stat is None or not (stat[_STATE] in _ENDED or _differ(process.started, stat[_START]))


def _is_proven(process: Process) -> bool:
    """Say whether what lives under this pid is the process that was meant, beyond doubt."""
    stat = _stat(process.pid)
    return (
        _UNKNOWN not in {process.started, process.boot, process.space}
        and stat is not None
        and stat[_START] == process.started
    )


@functools.cache
def _surroundings() -> tuple[str, str, str]:
    """Name this machine, its boot and the space of our pid; a fork is in the same ones."""
    machine = _read(_MACHINE)
    # Its id is not to be told to others, says its manual.
    digest = hashlib.sha256(machine.encode()).hexdigest()[:12] if machine else _UNKNOWN
    try:
        space = _SPACE.readlink().name.strip("pid:[]")
    except OSError:
        space = _UNKNOWN
    return digest, _read(_BOOT) or _UNKNOWN, space


def _stat(pid: int) -> list[str] | None:
    """Read what the kernel says of a process, from its state on."""
    text = _read(Path(f"/proc/{pid}/stat"))
    return text.rpartition(")")[2].split() if text else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
