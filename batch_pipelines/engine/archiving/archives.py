"""Archives: where bags stand. What each kind can do; `choosing` opens one by its address.

A bag's name is `FEED/KEY/BATCH`, with `.replay-N` for what a replay has left, and in a bucket with
`.TOKEN` of the lease behind it. It stands there whole or not at all: what is being written has another
name, or lacks the file that seals it.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

from batch_pipelines.engine.errors import ArchiveError, DeliveryError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from batch_pipelines.engine.places.place import Readable


TRAIL: Final = "audit-trail"
"""In place of FEED: months of the audit trail. No feed has such a name."""


LEFT: Final = ".unfinished", ".deleted"
"""Ends of the names of what is left in a folder of a bag not written, or not deleted, to its end."""


class Draft(Protocol):
    """A bag that is being written; nobody takes it for a whole one."""

    @property
    def folder(self) -> Path:
        """Folder of this machine to write it in; it is there, and empty."""

    def secure(self) -> None:
        """Bring the bag, which is complete, where it survives a crash, and read it there.

        Raises:
            ArchiveError: It cannot be written, or is not read as it was written.
        """

    def seal(self) -> str:
        """Make it a whole one, in one short step.

        Returns:
            The bag's name.

        Raises:
            ArchiveError: It cannot be written.
        """

    def discard(self) -> None:
        """Remove it as far as that can be done, unless it has become a whole one."""


class Archive(Protocol):
    """A folder or a part of a bucket in which bags stand."""

    def place(self, bag: str) -> str:
        """Give a bag's full path or URL."""

    def bags(self) -> Iterator[str]:
        """List the names of whole bags, in any order.

        Raises:
            ArchiveError: It cannot be listed.
        """

    def named(self, bag: str) -> Iterator[str]:
        """List the whole bags that were written under a name.

        Raises:
            ArchiveError: It cannot be listed.
        """

    def unfinished(self, partition: str | None) -> Iterator[str]:
        """List what is left of bags that were not written, or not deleted, to their end.

        Args:
            partition: Of this one alone, FEED/KEY.

        Yields:
            Names as for `remove`; also of bags that somebody is writing now.

        Raises:
            ArchiveError: It cannot be listed.
        """

    def files(self, bag: str) -> Mapping[str, int]:
        """List the files of a bag: sizes in bytes by their paths in it; none where it is gone.

        Raises:
            ArchiveError: It cannot be listed.
        """

    def read(self, bag: str, file: str) -> AbstractContextManager[Readable]:
        """Read a file of a bag.

        Raises:
            ArchiveError: It is gone, or cannot be read.
        """

    def path(self, bag: str, file: str) -> Path | None:
        """Give the path of a file of a bag, where it stands on this machine; else None."""

    def remove(self, bag: str) -> None:
        """Delete a bag; from the first step on nobody takes what is left of it for a whole one.

        Args:
            bag: Its name; of one that is gone, or half gone, the rest is deleted.

        Raises:
            ArchiveError: It cannot be deleted.
        """

    def draft(self, bag: str, token: int) -> Draft:
        """Begin to write a bag, in place of what other tries have left unfinished.

        Args:
            bag: Its name.
            token: Of the lease under which it is written: a run that hangs and wakes up again never
                writes into another one's.

        Raises:
            ArchiveError: It cannot be written.
        """


@contextmanager
def drafting(archive: Archive, bag: str, token: int) -> Iterator[Draft]:
    """Write a bag; what cannot be written to its end takes no room.

    Args:
        archive: Where it will stand.
        bag: Its name.
        token: As for `Archive.draft`.

    Yields:
        The draft. A process that is killed leaves what it has written: see `leftovers`.

    Raises:
        ArchiveError: It cannot be written.
    """
    draft = archive.draft(bag, token)
    try:
        yield draft
    except Exception:
        draft.discard()
        raise


@contextmanager
def of_archive() -> Iterator[None]:
    """Turn what goes wrong with a bucket into errors of the archive.

    Yields:
        Nothing.

    Raises:
        ArchiveError: A block raised a DeliveryError.
    """
    try:
        yield
    except DeliveryError as error:
        raise ArchiveError(str(error)) from None
