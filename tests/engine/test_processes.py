"""Whether a process lives is told without guessing, and only the one that was meant is ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from batch_pipelines.engine.processes import Process, end, life

if TYPE_CHECKING:
    from collections.abc import Iterator

STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True)\n"
PEACEFUL = "print('up', flush=True)\n"
WAIT = "import sys; sys.stdin.read()\n"


@contextmanager
def child(program: str) -> Iterator[tuple[subprocess.Popen[str], Process]]:
    """Start a process that waits; give it and its name."""
    with subprocess.Popen(
        [sys.executable, "-c", program + WAIT],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"
            started = Path(f"/proc/{process.pid}/stat").read_text()
            here = Process.current()
            yield process, replace(here, pid=process.pid, started=started.split(")")[1].split()[19])
        finally:
            process.kill()


def test_a_process_names_itself_and_is_alive() -> None:
    here = Process.current()
    assert here.pid == os.getpid()
    assert "-" not in {here.started, here.boot, here.space}
    assert life(here) == "alive"


def test_what_is_written_down_is_read_again() -> None:
    here = Process.current()
    assert Process.read(str(here)) == here
    assert Process.read("host:12") == Process("host", 12)
    assert Process.read("::1:12 1 - - -") == Process("::1", 12, "1")


@pytest.mark.parametrize("text", ["", "host", "host:", "host:x", "host:-1", "host:0", "host:1 2"])
def test_what_names_no_process_is_not_read(text: str) -> None:
    assert Process.read(text) is None


def test_a_process_that_has_ended_is_dead_also_while_nobody_has_taken_note() -> None:
    with child(PEACEFUL) as (process, name):
        assert life(name) == "alive"
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert life(name) == "dead"  # a zombie
    assert life(name) == "dead"


def test_a_stranger_under_the_same_pid_is_not_the_process() -> None:
    with child(PEACEFUL) as (process, name):
        meant = replace(name, started="1")
        assert life(meant) == "dead"
        assert end(meant, patience=5) == "gone"
        assert process.poll() is None


def test_a_process_of_before_the_machine_was_started_anew_is_dead() -> None:
    here = Process.current()
    assert life(replace(here, machine=here.machine, boot="another")) == (
        "unknown" if here.machine == "-" else "dead"
    )


@pytest.mark.parametrize(
    "elsewhere",
    [
        {"host": "elsewhere"},
        {"space": "1"},
        {"boot": "b", "machine": "m"},
        {"boot": "b", "machine": "-"},
    ],
    ids=["host", "container", "machine of the same name", "machine that has no id"],
)
def test_of_what_is_or_may_be_elsewhere_nothing_is_known_and_nothing_done(
    elsewhere: dict[str, Any],
) -> None:
    with child(PEACEFUL) as (process, name):
        other = replace(name, **elsewhere)
        assert life(other) == "unknown"
        assert end(other, patience=5) == "elsewhere"
        assert process.poll() is None


def test_what_is_known_by_its_pid_alone_is_never_ended() -> None:
    with child(PEACEFUL) as (process, name):
        vague = Process(name.host, name.pid)
        assert life(vague) == "alive"
        assert end(vague, patience=5) == "elsewhere"
        assert process.poll() is None


def test_a_process_is_asked_to_end_and_killed_only_if_it_does_not() -> None:
    with child(PEACEFUL) as (process, name):
        assert end(name, patience=5) == "ended"
        assert process.wait() == -signal.SIGTERM
        assert end(name, patience=5) == "gone"
    with child(STUBBORN) as (process, name):
        assert end(name, patience=0.2) == "killed"
        assert process.wait() == -signal.SIGKILL


def test_a_stopped_process_is_killed() -> None:
    with child(PEACEFUL) as (process, name):
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        assert life(name) == "alive"
        assert end(name, patience=0.2) == "killed"


def test_nobody_ends_himself() -> None:
    assert end(Process.current(), patience=5) == "own"
