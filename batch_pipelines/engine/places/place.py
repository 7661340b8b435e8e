"""What every place can do, and what is known of a file that lies there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from batch_pipelines.engine.errors import DeliveryError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from contextlib import AbstractContextManager


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


class Place(Protocol):
    """Where a feed's path starts."""

    def files(self, folder: str, names: Collection[str]) -> Iterator[LandedFile]:
        """List files.

        Args:
            folder: Path of their folder, or of several by a `*` in it.
            names: Patterns of which their names must match one.

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
