"""A folder for the files of one comparison; what killed runs have left behind is cleared away."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from batch_pipelines.engine.postgres.locks import hold, open_lock, take

if TYPE_CHECKING:
    from collections.abc import Iterator

_PREFIX, _LOCK = "reconcile-", "lock"


@contextmanager
def scratch_folder(home: Path) -> Iterator[Path]:
    """Make a folder for the length of a block.

    Args:
        home: The folder in which it is made.

    Yields:
        The folder, with an empty folder `source` in it.
    """
    home.mkdir(parents=True, exist_ok=True)
    _clear_dead(home)
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=home) as name:
        folder = Path(name)
        with hold(folder / _LOCK, fcntl.LOCK_EX):
            (folder / "source").mkdir()
            yield folder


def _clear_dead(home: Path) -> None:
    """Remove folders of which nobody holds the lock any more: it dies with its process."""
    for folder in home.glob(f"{_PREFIX}*"):
        # One without a `source` is just being made; its run may clear it away itself meanwhile.
        if (folder / "source").is_dir():
            with suppress(FileNotFoundError), open_lock(folder / _LOCK) as lock:
                if take(lock):
                    shutil.rmtree(folder, ignore_errors=True)
