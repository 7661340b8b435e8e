"""A folder of this machine, or one that is mounted, as an archive."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batch_pipelines.engine.archiving.archives import LEFT
from batch_pipelines.engine.archiving.tags import SEAL
from batch_pipelines.engine.errors import ArchiveError
from batch_pipelines.engine.failpoints import failpoint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from batch_pipelines.engine.places.place import Readable


@dataclass(frozen=True)
class ArchiveFolder:
    """A folder.

    Attributes:
        root: Its path.
    """

    root: Path

    def place(self, bag: str) -> str:
        """Give a bag's full path; see `Archive`."""
        return str(self.root / bag)

    def bags(self) -> Iterator[str]:
        """List bags; see `Archive`."""
        for folder in self.root.glob("*/*/*"):
            if not folder.name.startswith(".") and any(
                (folder / tag).is_file() for tag in ("bagit.txt", SEAL)
            ):
                yield folder.relative_to(self.root).as_posix()

    def named(self, bag: str) -> Iterator[str]:
        """List bags by a name; see `Archive`."""
        if (self.root / bag).is_dir():
            yield bag

    def unfinished(self, partition: str | None) -> Iterator[str]:
        """List what is left of bags; see `Archive`."""
        folders = self.root.glob("*/*") if partition is None else [self.root / partition]
        for path in (path for folder in folders if folder.is_dir() for path in folder.iterdir()):
            if path.name.startswith(".") and path.name.endswith(LEFT):
                yield path.relative_to(self.root).as_posix()

    def files(self, bag: str) -> dict[str, int]:
        """List files; see `Archive`."""
        folder = self.root / bag
        return {
            path.relative_to(folder).as_posix(): path.stat().st_size
            for path in folder.rglob("*")
            if not path.is_dir()
        }

    @contextmanager
    def read(self, bag: str, file: str) -> Iterator[Readable]:
        """Read a file; see `Archive`."""
        path = self.root / bag / file
        try:
            reading = path.open("rb")
        except OSError as error:
            message = (
                f"{path}: cannot be read ({error.strerror}). Restore it from a backup, or make it "
                "reachable, and run again."
            )
            raise ArchiveError(message) from None
        with reading:
            yield reading

    def path(self, bag: str, file: str) -> Path | None:
        """Give a file's path; see `Archive`."""
        return self.root / bag / file

    def remove(self, bag: str) -> None:
        """Delete a bag; see `Archive`."""
        folder = self.root / bag
        leaving = folder.with_name(f".{folder.name}.deleted")
        try:
            if folder.is_dir():
                folder.rename(failpoint("archive.removing", leaving))
                _sync(folder.parent)
            if failpoint("archive.renamed", leaving).is_dir():
                shutil.rmtree(leaving)
        except OSError as error:
            message = (
                f"{folder}: cannot be deleted ({error.strerror}). Make the archive writable, and run "
                "again: what is left goes then."
            )
            raise ArchiveError(message) from None

    def draft(self, bag: str, token: int) -> FolderDraft:
        """Begin a bag; see `Archive`."""
        target = self.root / bag
        try:
            for leftover in target.parent.glob(f".{target.name}.*.unfinished"):
                shutil.rmtree(leftover, ignore_errors=True)
            unfinished = target.with_name(f".{target.name}.{token}.unfinished")
            unfinished.mkdir(parents=True)
        except OSError as error:
            message = (
                f"{target}: cannot be written ({error.strerror}). Correct BATCH_PIPELINES_ARCHIVE or "
                "`archive: to` in the feed, or make room there, and run again."
            )
            raise ArchiveError(message) from None
        return FolderDraft(unfinished, target, bag)


@dataclass(frozen=True)
class FolderDraft:
    """A bag that is being written into a folder, beside where it will stand; see `Draft`.

    Attributes:
        folder: Where it is written.
        target: Where it will stand.
        bag: Its name.
    """

    folder: Path
    target: Path
    bag: str

    def secure(self) -> None:
        """Have all of it on the disk; see `Draft`."""
        for path in [self.folder, *self.folder.rglob("*")]:
            _sync(path)

    def seal(self) -> str:
        """Rename it; see `Draft`."""
        self.folder.rename(self.target)
        for folder in (self.target.parent, self.target.parent.parent, self.target.parents[2]):
            _sync(folder)
        return self.bag

    def discard(self) -> None:
        """Remove it; see `Draft`."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
