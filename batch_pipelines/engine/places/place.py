"""What every place can do, and what is known of a file that lies there."""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from batch_pipelines.engine.errors import DeliveryError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from contextlib import AbstractContextManager

_SINGLE = re.compile(r"[^*?\[]*\*[^*?\[]*")


@dataclass(frozen=True)
class StoredChecksum:
    """The CRC32C that a place keeps of a file.

    Attributes:
        crc32c: Of all bytes of the file; or, where there are parts, of the parts' own CRC32C.
        parts: Sizes in bytes of the parts it was uploaded in, in order; none where it is the file's own.
    """

    crc32c: int
    parts: tuple[int, ...] = ()


class Readable(Protocol):
    """What can be read in pieces."""

    @property
    def read(self) -> Callable[[int], bytes]:
        """Gives at most so many bytes; none at the end."""


@dataclass(frozen=True)
class Reading:
    """A file's bytes, in order.

    Attributes:
        read: Gives at most so many bytes; none at the end.
        stored: The checksum that the place keeps of them, or None.
    """

    read: Callable[[int], bytes]
    stored: StoredChecksum | None = None


class LandedFile(Protocol):
    """A file as it was when its place was listed; as text, its full path or URL."""

    @property
    def path(self) -> str:
        """Its path from where the feed's path starts, parted by slashes."""

    @property
    def name(self) -> str:
        """The last part of its path."""

    @property
    def size(self) -> int:
        """In bytes."""

    @property
    def changed(self) -> float:
        """When it was last changed: seconds since 1970 by this machine's clock."""

    @property
    def state(self) -> tuple[str | int, ...]:
        """What is another one, beside name and size, once the file has other content."""

    def open(self) -> AbstractContextManager[Reading]:
        """Read it, as it was when it was listed.

        Returns:
            Its bytes, for the length of a block.

        Raises:
            DeliveryError: It is no longer what it was, at the latest at the end of the block; or it
                cannot be read.
        """


def anything(_: str) -> bool:
    """Want it all."""
    return True


def nobody(_: str) -> None:
    """Tell nobody."""


class Names:
    """Patterns of names, and what stands in the place of their `*`."""

    def __init__(self, patterns: Collection[str], wanted: Callable[[str], bool]) -> None:
        """Take the patterns.

        Args:
            patterns: As of a shell.
            wanted: Whether a text may stand in the place of a `*` that is a pattern's only wildcard.
        """
        self._wanted = wanted
        single = [] if wanted is anything else [p for p in patterns if _SINGLE.fullmatch(p)]
        self._single = [pattern.split("*") for pattern in single]
        others = [fnmatch.translate(p) for p in patterns if p not in single]
        self._others = re.compile("|".join(others)) if others else None

    def match(self, name: str) -> bool:
        """Say whether a name matches one of them and is wanted."""
        for before, after in self._single:
            if (
                len(name) >= len(before) + len(after)
                and name.startswith(before)
                and name.endswith(after)
                and self._wanted(name[len(before) : len(name) - len(after)])
            ):
                return True
        return self._others is not None and self._others.match(name) is not None


class Place(Protocol):
    """Where a feed's path starts."""

    def files(
        self,
        folder: str,
        names: Collection[str],
        *,
        wanted: Callable[[str], bool] = anything,
        problem: Callable[[str], object] = nobody,
    ) -> Iterator[LandedFile]:
        """List files.

        Args:
            folder: Path of their folder, or of several by a `*` in it.
            names: Patterns of which their names must match one.
            wanted: Whether to look at what has this text in the place of the folder's `*`; where the
                folder has none, in that of a pattern with one `*` and no other wildcard.
            problem: Is told of a folder that is not there or may not be looked into.

        Returns:
            The files, each once, in any order.

        Raises:
            DeliveryError: The place cannot be listed.
        """


def name_of(path: str) -> str:
    """Give the last part of a path."""
    return path.rpartition("/")[2]


def changed_while_read(file: LandedFile) -> DeliveryError:
    """Make the error of a file that is no longer what was listed."""
    return DeliveryError(
        f"{file}: it changed while it was read; run again when its sender is done."
    )
