"""What goes wrong at a step: the process, the connection, the server, the disk."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import psycopg

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.engine.reliability.steps import Kind, Step

Fault = Literal[
    "crash before",
    "crash after",
    "answer lost",
    "connection lost",
    "backend ended",
    "server crash",
    "disk full",
    "unreadable",
]
BY_KIND: dict[Kind, tuple[Fault, ...]] = {
    "commit": (
        "crash before", "crash after", "answer lost", "connection lost", "backend ended", "disk full",
        "server crash",
    ),
    "statement": ("connection lost", "backend ended", "disk full", "server crash"),
    "write": ("crash before", "disk full"),
    "read": ("unreadable",),
}  # fmt: skip
ALL: tuple[Fault, ...] = (
    "crash before", "crash after", "answer lost", "connection lost", "backend ended", "server crash",
    "disk full", "unreadable",
)  # fmt: skip


@dataclass
class Fate:
    """One fault at one step.

    Attributes:
        at: The step.
        fault: What goes wrong there.
        server: URL of another database of the server.
        crash_server: Stops the server at once and starts it again; None where there is no server of
            the test's own.
        backup: Where a backup has what is taken away of bags.
        struck: Whether it has happened.
    """

    at: Step
    fault: Fault
    server: str
    crash_server: Callable[[], None] | None
    backup: Path
    struck: bool = False

    def before(self, step: Step, subject: Any) -> None:
        """Strike where it is to strike before."""
        if self.struck or step != self.at or self.fault in {"crash after", "answer lost"}:
            return
        self.struck = True
        match self.fault:
            case "crash before":
                os.kill(os.getpid(), signal.SIGKILL)
            case "connection lost":
                _cut(subject)
            case "backend ended":
                with psycopg.connect(self.server, autocommit=True) as other:
                    other.execute(
                        "SELECT pg_terminate_backend(%s, 5000)", (subject.info.backend_pid,)
                    )
            case "server crash":
                assert self.crash_server is not None
                self.crash_server()
            case "disk full" if step.kind == "write":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), subject)
            case "disk full":
                _refuse(subject, step.kind)
            case "unreadable":
                _take_away(Path(subject), self.backup)

    def after(self, step: Step, subject: Any) -> None:
        """Strike where it is to strike afterwards."""
        if self.struck or step != self.at:
            return
        self.struck = True
        if self.fault == "crash after":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "answer lost":
            _cut(subject)
            raise psycopg.OperationalError("server closed the connection unexpectedly")


def _take_away(path: Path, backup: Path) -> None:
    """Remove a file or folder; a backup has those of bags."""
    if "archive" in path.parts:
        kept = backup / path.relative_to(backup.parent)
        kept.parent.mkdir(parents=True, exist_ok=True)
        path.rename(kept)
    elif path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def restore_backup(backup: Path) -> bool:
    """Put back what was taken away and is still gone; say whether there was anything."""
    gone = [each for each in backup.rglob("*") if each.is_file()]
    for kept in gone:
        path = backup.parent / kept.relative_to(backup)
        if path.parent.is_dir() and not path.exists():
            kept.rename(path)
    return bool(gone)


def _cut(connection: psycopg.Connection[Any]) -> None:
    with socket.socket(fileno=os.dup(connection.fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)


def _refuse(connection: psycopg.Connection[Any], kind: Kind) -> None:
    """Have the server end the statement as it does on a full disk, and with it the transaction."""
    in_transaction = connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE
    connection.pgconn.exec_(b"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '53100'; END $$")
    if kind == "commit" and in_transaction:
        connection.pgconn.exec_(b"ROLLBACK")
    raise psycopg.errors.DiskFull("No space left on device")
