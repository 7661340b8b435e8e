"""File locks that die with their holder: how processes tell that others are alive."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def open_lock(path: Path) -> Iterator[int]:
    """Open a lock file for the length of a block, without locking it.

    Args:
        path: The file; it is created when missing.

    Yields:
        Its descriptor.
    """
    # Each opening is a lock holder of its own, so threads and nested blocks exclude each other too.
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        yield lock
    finally:
        os.close(lock)


@contextmanager
def hold(path: Path, how: int) -> Iterator[int]:
    """Hold a lock for the length of a block, waiting for it.

    Args:
        path: The lock file.
        how: `fcntl.LOCK_EX` or `fcntl.LOCK_SH`.

    Yields:
        Its descriptor.
    """
    with open_lock(path) as lock:
        fcntl.flock(lock, how)
        try:
            yield lock
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)  # closing is not enough if somebody forked meanwhile


def take(lock: int) -> bool:
    """Try to hold a lock alone. A shared hold may be lost in the attempt (flock(2)).

    Args:
        lock: Descriptor of an open lock file.

    Returns:
        Whether it is held now.
    """
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
