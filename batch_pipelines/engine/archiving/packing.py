"""How files are packed in a bag: compressed with zstd, encrypted with age, both or neither.

Any tool that knows the formats opens them: `zstd -d`, `age -d`.
"""

from __future__ import annotations

import shutil
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import pyrage
import zstandard

from batch_pipelines.engine.archiving.keys import Keys, read_keys
from batch_pipelines.engine.feed_parts.archiving import DEFAULT_LEVEL, Strategy
from batch_pipelines.engine.reading.prefetch import prefetched

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.places.place import Readable
    from batch_pipelines.engine.settings import Settings

_READ_BYTES = 1024 * 1024
_STRATEGY, _KEY = "Archive-Strategy", "Archive-Key"
# What holds values of rows; what of it is not compressed by its own format.
_SECRET = ("source/", "quarantine/", "row_digests/", "rows/", "records/")
_DELIVERED = ("source/", "quarantine/files/")
_TEXT = (*_DELIVERED, "records/")


class PackedError(Exception):
    """Bytes are not what they were packed as."""


@dataclass(frozen=True)
class Packing:
    """How the files of a bag are packed.

    Attributes:
        strategy: What is kept of the source.
        level: Of zstd.
        key_id: The key for which it is encrypted; None where it is not.
        keys: The keys there are.
    """

    strategy: Strategy
    level: int
    key_id: str | None
    keys: Keys

    @classmethod
    def of_feed(cls, settings: Settings, feed: Feed) -> Packing:
        """Say how a feed's bags are packed from now on."""
        keys = read_keys(settings.archive_key)
        chosen = feed.archive
        return cls(chosen.strategy, chosen.level, keys.newest if chosen.encrypt else None, keys)

    @classmethod
    def of_tags(cls, tags: Mapping[str, str], settings: Settings) -> Packing:
        """Read how a bag is packed from its `bag-info.txt`.

        Raises:
            ValueError: It says what nobody knows.
        """
        strategy = tags.get(_STRATEGY, "compress")
        if strategy not in get_args(Strategy):
            raise ValueError(strategy)
        keys = read_keys(settings.archive_key) if _KEY in tags else Keys(None, {})
        return cls(strategy, DEFAULT_LEVEL, tags.get(_KEY), keys)  # type: ignore[arg-type]

    @property
    def tags(self) -> dict[str, str]:
        """What `bag-info.txt` says of it."""
        return {_STRATEGY: self.strategy} | ({} if self.key_id is None else {_KEY: self.key_id})

    def keeps(self, name: str) -> bool:
        """Say whether a bag has a file at all: what was set aside is kept in any case."""
        return self.strategy != "digests_only" or not name.startswith(_DELIVERED[0])

    def stored(self, name: str) -> str:
        """Say what a file is called in the bag.

        Args:
            name: Its path from the bag's folder of data, e.g. `source/a.csv`.
        """
        zst = ".zst" if self._is_compressed(name) else ""
        age = ".age" if self._is_encrypted(name) else ""
        return f"{name}{zst}{age}"

    def is_plain(self, name: str) -> bool:
        """Say whether a file stands in the bag as it is."""
        return self.stored(name) == name

    def pack(self, name: str, origin: Path, target: Path) -> None:
        """Pack a file.

        Args:
            name: Its path in the bag, before packing.
            origin: The file.
            target: What it becomes.
        """
        with ExitStack() as stack:
            reading: Any = stack.enter_context(origin.open("rb"))
            writing = stack.enter_context(target.open("wb"))
            if self._is_compressed(name):
                # Nothing else is at work then: all cores.
                compressor = zstandard.ZstdCompressor(
                    level=self.level, write_checksum=True, threads=-1
                )
                size = origin.stat().st_size
                reading = stack.enter_context(compressor.stream_reader(reading, size=size))
            if self._is_encrypted(name):
                recipient = self.keys.secret(str(self.key_id), name).to_public()
                pyrage.encrypt_io(reading, writing, [recipient])
            else:
                shutil.copyfileobj(reading, writing, _READ_BYTES)

    def unpack(self, name: str, reading: Readable, write: Callable[[bytes], object]) -> None:
        """Unpack a file.

        Args:
            name: Its path in the bag, before packing.
            reading: Its bytes as they stand in the bag.
            write: Is handed the unpacked bytes piece by piece.

        Raises:
            ArchiveError: The key is not in the environment.
            PackedError: It cannot be unpacked.
        """
        compressed = self._is_compressed(name)
        try:
            if self._is_encrypted(name):
                secret = self.keys.secret(str(self.key_id), name)
                stream = zstandard.ZstdDecompressor().decompressobj() if compressed else None
                pyrage.decrypt_io(reading, _Writer(write, stream), [secret])
                return
            pieces = iter(lambda: reading.read(_READ_BYTES), b"")
            if compressed:
                pieces = zstandard.ZstdDecompressor().read_to_iter(reading, _READ_BYTES)  # type: ignore[arg-type]  # it only reads
            with closing(prefetched(pieces)) as ahead:
                for piece in ahead:
                    write(piece)
        except (pyrage.DecryptError, zstandard.ZstdError) as error:
            raise PackedError(type(error).__name__) from None
        except OSError as error:
            # So says age's library of a piece that was changed or cut off; others have a number.
            if error.errno is not None:
                raise
            raise PackedError(str(error)) from None

    def _is_compressed(self, name: str) -> bool:
        return self.strategy != "copy" and name.startswith(_TEXT)

    def _is_encrypted(self, name: str) -> bool:
        return self.key_id is not None and name.startswith(_SECRET)


class _Writer:
    """Where decrypted bytes go: a file, as age's library wants one."""

    def __init__(
        self, write: Callable[[bytes], object], stream: zstandard.ZstdDecompressionObj | None
    ) -> None:
        self._write, self._stream = write, stream

    def write(self, piece: bytes) -> int:
        """Take the next bytes."""
        self._write(piece if self._stream is None else self._stream.decompress(piece))
        return len(piece)

    def flush(self) -> None:
        """Nothing is held back."""
