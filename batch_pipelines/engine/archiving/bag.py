"""A bag, opened to be read: nothing of it is handed out that is not what the ledger has sealed.

Its seal must be the one in the ledger, its manifest the one that the seal covers, and each file the one
that the manifest lists. Not here: whether all of a bag is as it was (`fixity`).
"""

from __future__ import annotations

import hashlib
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from batch_pipelines.engine.archiving import tags
from batch_pipelines.engine.archiving.choosing import place_of
from batch_pipelines.engine.archiving.packing import PackedError, Packing
from batch_pipelines.engine.errors import ArchiveError
from batch_pipelines.engine.ledger import archives

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from batch_pipelines.engine.archiving.archives import Archive
    from batch_pipelines.engine.places.place import Readable
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.settings import Settings

_READ_BYTES = 1024 * 1024
SOURCE, QUARANTINE_FILES = "source", "quarantine/files"
DIGESTS = "row_digests"
REJECTS = "quarantine/rejects.parquet"
"""Where things stand in a bag, from its folder of data."""


@dataclass(frozen=True)
class Bag:
    """An open bag; files are named by their paths from its folder of data, as they were before packing.

    Attributes:
        place: Its full path or URL.
        packing: How its files are packed.
        files: SHA-256 of all its files as they stand in it, hex, by path.
        info: What it says of itself, by tag.
    """

    place: str
    packing: Packing
    files: Mapping[str, str]
    info: Mapping[str, str]
    _archive: Archive
    _name: str
    _folder: Path

    def has(self, name: str) -> bool:
        """Say whether a file is in it."""
        return self._stored(name) in self.files

    def read(self, name: str, write: Callable[[bytes], object]) -> None:
        """Read a file, unpacked.

        Args:
            name: The file.
            write: Is handed its bytes piece by piece; not to be believed before this has returned.

        Raises:
            ArchiveError: It is not in the bag, is not what the bag was sealed with, cannot be reached,
                or the key for it is missing.
        """
        stored = self._stored(name)
        place = f"{self.place}/{stored}"
        if stored not in self.files:
            message = f"{place}: the bag has no such file."
            if name.startswith(f"{SOURCE}/") and self.packing.strategy == "digests_only":
                message = (
                    f"{self.place}: it has no source, since its feed kept digests alone (`archive: "
                    "strategy: digests_only`). Have the sender deliver again."
                )
            raise ArchiveError(message)
        with self._archive.read(self._name, stored) as reading:
            proven = _Proven(reading)
            try:
                self.packing.unpack(name, proven, write)
                whole = True
            except PackedError:
                whole = False
            if proven.sha256() != self.files[stored] or not whole:
                raise ArchiveError(_damaged(place))

    def copy(self, name: str, target: Path) -> str:
        """Copy a file, unpacked.

        Args:
            name: The file.
            target: What it becomes; its folder is there.

        Returns:
            SHA-256 of what it holds, hex.

        Raises:
            ArchiveError: As for `read`; the target is gone then.
        """
        digest = hashlib.sha256()
        try:
            with target.open("wb") as writing:

                def write(piece: bytes) -> None:
                    digest.update(piece)
                    writing.write(piece)

                self.read(name, write)
        except BaseException:
            target.unlink(missing_ok=True)
            raise
        return digest.hexdigest()

    def take_over(self, stored: str, target: Path) -> None:
        """Copy a file as it stands in the bag, packed as it is.

        Args:
            stored: One of `files`.
            target: What it becomes; its folder is there.

        Raises:
            ArchiveError: It is not what the bag was sealed with, or cannot be reached.
        """
        with self._archive.read(self._name, stored) as reading, target.open("wb") as writing:
            proven = _Proven(reading)
            while piece := proven.read():
                writing.write(piece)
            digest = proven.sha256()
        if digest != self.files[stored]:
            target.unlink()
            raise ArchiveError(_damaged(f"{self.place}/{stored}"))

    def path(self, name: str) -> Path:
        """Have a file on this machine, unpacked and proven, for as long as the bag is open.

        Args:
            name: The file.

        Returns:
            Where it stands: in the bag itself where it is not packed.

        Raises:
            ArchiveError: As for `read`.
        """
        own = self._archive.path(self._name, self._stored(name))
        if own is not None and self.packing.is_plain(name):
            self.read(name, lambda _: None)
            return own
        target = self._folder / name
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            self.copy(name, target)
        return target

    def under(self, folder: str) -> list[str]:
        """List the files of a folder, by name."""
        start = f"{tags.DATA}/{folder}/"
        packed = self.packing.stored(f"{folder}/").removeprefix(f"{folder}/")
        return sorted(
            f"{folder}/{path.removeprefix(start).removesuffix(packed)}"
            for path in self.files
            if path.startswith(start)
        )

    def _stored(self, name: str) -> str:
        return f"{tags.DATA}/{self.packing.stored(name)}"


def _damaged(place: str) -> str:
    return (
        f"{place}: damaged: it is not what the bag was sealed with. Restore it from a backup; "
        "`batch-pipelines archive verify` tells what else is."
    )


class _Proven:
    """Bytes that are read, and the SHA-256 of all of them."""

    def __init__(self, reading: Readable) -> None:
        self._reading, self._digest = reading, hashlib.sha256()

    def read(self, size: int = _READ_BYTES) -> bytes:
        """Give at most so many bytes; none at the end."""
        piece = self._reading.read(size)
        self._digest.update(piece)
        return piece

    def sha256(self) -> str:
        """Read what is left, and give the digest of all, hex."""
        while self.read():
            pass
        return self._digest.hexdigest()


@contextmanager
def open_bag(connection: Connection, settings: Settings, batch_id: str) -> Iterator[Bag]:
    """Open the newest bag of a batch.

    Args:
        connection: A connection.
        settings: Hold the keys, and say where files are unpacked.
        batch_id: The batch.

    Yields:
        The bag.

    Raises:
        ArchiveError: The batch has none, or it is gone, damaged or cannot be reached.
    """
    record = archives.bag(connection, batch_id)
    if record is None:
        message = f"Batch {batch_id} has no bag: it is not archived."
        deleted = archives.deleted_bag(connection, batch_id)
        if deleted is not None:
            message = (
                f"Batch {batch_id} has no bag any more: {deleted.place} was deleted on "
                f"{deleted.checked_at:%Y-%m-%d}, when its time was over. Have the sender deliver again."
            )
        raise ArchiveError(message)
    archive, name = place_of(settings, record.place)
    with opened(settings, archive, name, record.tagmanifest_sha256) as bag:
        yield bag


@contextmanager
def opened(settings: Settings, archive: Archive, name: str, seal: str) -> Iterator[Bag]:
    """Open a bag by its name.

    Args:
        settings: Hold the keys, and say where files are unpacked.
        archive: Where it stands.
        name: The bag.
        seal: SHA-256 of its tag manifest, hex.

    Yields:
        The bag.

    Raises:
        ArchiveError: It is gone, or not the one that was sealed.
    """

    def proven(file: str, expected: str | None) -> bytes:
        with archive.read(name, file) as reading:
            content = b"".join(iter(lambda: reading.read(_READ_BYTES), b""))
        if hashlib.sha256(content).hexdigest() != expected:
            raise ValueError(file)
        return content

    try:
        sealed = tags.listed(proven(tags.SEAL, seal))
        files = tags.listed(proven(tags.PAYLOAD, sealed.get(tags.PAYLOAD)))
        info = tags.read_info(proven(tags.INFO, sealed.get(tags.INFO)))
        packing = Packing.of_tags(info, settings)
    except ValueError:
        message = (
            f"{archive.place(name)}: damaged: it is not what the ledger has sealed. Restore it from a "
            "backup; `batch-pipelines archive verify` tells what of it is damaged."
        )
        raise ArchiveError(message) from None
    settings.home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bag-", dir=settings.home) as folder:
        yield Bag(archive.place(name), packing, files, info, archive, name, Path(folder))
