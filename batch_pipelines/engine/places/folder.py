"""Folders of this machine as places."""

from __future__ import annotations

import fnmatch
import stat
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batch_pipelines.engine.places.place import Reading, changed_while_read, name_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path


@dataclass(frozen=True)
class Folder:
    """A folder.

    Attributes:
        root: Where paths start.
    """

    root: Path

    def files(self, folder: str, names: Collection[str]) -> Iterator[FolderFile]:
        """List files; see `Place`."""
        folders = self.root.glob(folder) if "*" in folder else [self.root / folder]
        for each in folders:
            present: list[Path] = []
            # What is not there, is no folder or may not be looked into holds nothing for us.
            with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                present = list(each.iterdir())
            for location in present:
                if any(fnmatch.fnmatchcase(location.name, name) for name in names):
                    yield from self._file(location)

    def _file(self, location: Path) -> Iterator[FolderFile]:
        try:
            found = location.stat()
        except FileNotFoundError:
            # Gone again, or a link that leads nowhere.
            return
        if stat.S_ISREG(found.st_mode):
            path = location.relative_to(self.root).as_posix()
            yield FolderFile(location, path, found.st_size, found.st_mtime_ns)


@dataclass(frozen=True)
class FolderFile:
    """A file in a folder; see `LandedFile`.

    Attributes:
        location: Its full path.
        path: The same from the place's root.
        size: In bytes.
        changed_ns: When it was last changed, nanoseconds since 1970.
    """

    location: Path
    path: str
    size: int
    changed_ns: int

    def __str__(self) -> str:
        return str(self.location)

    @property
    def name(self) -> str:
        """The last part of its path."""
        return name_of(self.path)

    @property
    def changed(self) -> float:
        """When it was last changed, seconds since 1970."""
        return self.changed_ns / 1e9

    @property
    def state(self) -> tuple[int]:
        """When it was last changed."""
        return (self.changed_ns,)

    @contextmanager
    def open(self) -> Iterator[Reading]:
        """Read it, as it was when it was listed; see `LandedFile`."""
        try:
            stream = self.location.open("rb")
        except FileNotFoundError:
            raise changed_while_read(self) from None
        with stream:
            yield Reading(stream.read)
        try:
            now = self.location.stat()
        except FileNotFoundError:
            raise changed_while_read(self) from None
        if (now.st_size, now.st_mtime_ns) != (self.size, self.changed_ns):
            raise changed_while_read(self)
