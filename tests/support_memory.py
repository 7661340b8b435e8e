"""Where tests keep files and databases: in memory where there is room for them, else on the disk.

To make and drop a database of three hundred files takes a disk up to a second, and memory a
twentieth of that; and a stage waits for the disk at each of its files. What is durable is none of
that: whatever has to survive a kill survives it in memory too, and no test cuts the power.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from batch_pipelines.engine.postgres.server import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Iterator

_MEMORY = Path("/dev/shm")  # noqa: S108  # what is made in it is private, as in any folder like it
_DISK = Path("/tmp")  # noqa: S108  # not TMPDIR, which may be too deep for the path of a socket
_ROOM = 2 << 30  # bytes; four workers with two servers each were seen to take 1.3 GB
_PREFIX = "batch-pipelines-"


def roomy_folder() -> Path:
    """Choose the folder below which tests work.

    Returns:
        That of memory if programs can be run from it and 2 GiB of it are free, else the disk's.
    """
    try:
        found = os.statvfs(_MEMORY)
    except FileNotFoundError:  # not Linux
        return _DISK
    is_fit = os.access(_MEMORY, os.W_OK) and not found.f_flag & os.ST_NOEXEC
    return _MEMORY if is_fit and found.f_bavail * found.f_frsize >= _ROOM else _DISK


@contextmanager
def server_folder() -> Iterator[Path]:
    """Make a folder for a server, into which its user can pass, for the length of a block.

    Yields:
        The folder. Those of processes that were killed are gone, and with them, a minute later, the
        servers: each looks whether its folder is still there.
    """
    parent = roomy_folder()
    for left in parent.glob(f"{_PREFIX}[0-9]*-*"):
        if not psutil.pid_exists(int(left.name.removeprefix(_PREFIX).partition("-")[0])):
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=parent))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


class RoomyServer(EmbeddedServer):
    """An embedded server whose cluster is in its home, whoever runs it."""

    @property
    def folder(self) -> Path:
        """Where the cluster lives: for root too, whose would be below /var/lib."""
        return self.home / "cluster"
