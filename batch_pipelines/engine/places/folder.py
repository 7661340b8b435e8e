"""Folders of this machine as places."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batch_pipelines.engine.errors import DeliveryError
from batch_pipelines.engine.places.place import (
    Names,
    Reading,
    anything,
    changed_while_read,
    nobody,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

# Gone again, or a link that leads nowhere.
_NOWHERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


@dataclass(frozen=True)
class Folder:
    """A folder.

    Attributes:
        root: Where paths start.
        within: Files that lie elsewhere, to which links lead, are not read; None for any.
    """

    root: Path
    within: Path | None = None

    def files(
        self,
        folder: str,
        names: Collection[str],
        *,
        wanted: Callable[[str], bool] = anything,
        problem: Callable[[str], object] = nobody,
    ) -> Iterator[FolderFile]:
        """List files; see `Place`."""
        deep = "*" in folder
        matching = Names(names, anything if deep else wanted)
        for path in self._folders(folder, wanted, problem) if deep else [folder]:
            for entry in self._entries(path, problem, below=deep):
                if matching.match(entry.name):
                    yield from self._file(path, entry, problem)

    def _folders(
        self, folder: str, wanted: Callable[[str], bool], problem: Callable[[str], object]
    ) -> Iterator[str]:
        """Give the paths that a path with one `*` in it leads to."""
        head, _, tail = folder.partition("*")
        above, _, before = head.rpartition("/")
        after, slash, beneath = tail.partition("/")
        matching = Names([f"{before}*{after}"], wanted)
        for entry in self._entries(above, problem, below=False):
            if entry.is_dir() and matching.match(entry.name):
                yield f"{above}/{entry.name}{slash}{beneath}".removeprefix("/")

    def _entries(
        self, folder: str, problem: Callable[[str], object], *, below: bool
    ) -> Iterator[os.DirEntry[str]]:
        """List a folder; one of many, `below`, does not keep the others from being listed."""
        place = os.path.join(self.root, folder)  # noqa: PTH118  # a tenth of a Path's time
        try:
            with os.scandir(place) as entries:
                yield from entries
        except (FileNotFoundError, NotADirectoryError):
            if not below:
                problem(f"There is no folder {place!r}. Make it, or correct `source.path`.")
        except PermissionError:
            problem(f"{place!r} may not be looked into. Correct its permissions.")
        except OSError as error:
            message = f"{place!r} cannot be read ({error.strerror}). Check its file system."
            if not below:
                raise DeliveryError(message) from None
            problem(message)

    def _file(
        self, folder: str, entry: os.DirEntry[str], problem: Callable[[str], object]
    ) -> Iterator[FolderFile]:
        try:
            found = entry.stat()
        except PermissionError:
            problem(f"{entry.path!r} may not be looked at. Correct the permissions of its folder.")
            return
        except OSError as error:
            if error.errno in _NOWHERE:
                return
            message = f"{entry.path!r} cannot be read ({error.strerror}). Check its file system."
            raise DeliveryError(message) from None
        if stat.S_ISREG(found.st_mode):
            path = f"{folder}/{entry.name}" if folder else entry.name
            yield FolderFile(
                self.root, path, entry.name, found.st_size, found.st_mtime_ns, found.st_ctime_ns,
                self.within,
            )  # fmt: skip


@dataclass(frozen=True)
class FolderFile:
    """A file in a folder; see `LandedFile`.

    Attributes:
        root: Where its path starts.
        path: The same from the place's root.
        name: The last part of it.
        size: In bytes.
        modified_ns: When its content was last changed, nanoseconds since 1970. Senders may set it.
        changed_ns: When anything of it was last changed, by the clock of its file system.
        within: Where it has to lie in the end, by whatever links; None for anywhere.
    """

    root: Path
    path: str
    name: str
    size: int
    modified_ns: int
    changed_ns: int
    within: Path | None = None

    def __str__(self) -> str:
        return str(self.location)

    @property
    def location(self) -> Path:
        """Its full path."""
        return self.root / self.path

    @property
    def changed(self) -> float:
        """When anything of it was last changed, seconds since 1970.

        Not when its content was: tar, rsync and `cp -p` set that to what it was elsewhere, before all
        of a delivery is there.
        """
        return self.changed_ns / 1e9

    @property
    def state(self) -> tuple[int]:
        """When its content was last changed."""
        return (self.modified_ns,)

    @contextmanager
    def open(self) -> Iterator[Reading]:
        """Read it, as it was when it was listed; see `LandedFile`."""
        if self.within is not None and not self.location.resolve().is_relative_to(
            self.within.resolve()
        ):
            # Whoever may write there could have anything read that we may read.
            message = (
                f"{self}: is a link that leads out of {self.within}. Deliver the file itself, or have "
                "`source.path` begin where it lies."
            )
            raise DeliveryError(message)
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
        if (now.st_size, now.st_mtime_ns) != (self.size, self.modified_ns):
            raise changed_while_read(self)
