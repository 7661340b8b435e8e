"""Entries of sealed months in bags: how they stand there, and how they are read again.

A line of JSON an entry; of the fields that are hashed as PostgreSQL's text of a `jsonb` the line has
that text, so that the same hash comes out of it. Not here: when a month goes (`retention.trail`).
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Final

from batch_pipelines.engine.archiving import tags
from batch_pipelines.engine.archiving.bag import opened
from batch_pipelines.engine.archiving.choosing import place_of
from batch_pipelines.engine.archiving.folder import ArchiveFolder
from batch_pipelines.engine.audit.chain import Walk, add_to_root
from batch_pipelines.engine.audit.entry import Entry
from batch_pipelines.engine.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from batch_pipelines.engine.archiving.archives import Archive
    from batch_pipelines.engine.audit.segments import Segment
    from batch_pipelines.engine.settings import Settings

ENTRIES: Final = "records/audit_event.jsonl"
SEGMENT: Final = "segment.json"


@dataclass(frozen=True)
class SegmentBags:
    """Where bags of removed months are looked for.

    Attributes:
        settings: Hold the keys, and say how archives are reached.
        folder: They are looked for anywhere below it, by their seals.
        everywhere: Whether those that are not there are read where the ledger says they stand.
    """

    settings: Settings
    folder: Path
    everywhere: bool = False
    _below: dict[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for file in self.folder.rglob(tags.SEAL):
            self._below[hashlib.sha256(file.read_bytes()).hexdigest()] = file.parent

    def has(self, segment: Segment) -> bool:
        """Say whether a month's bag is to be read."""
        return self.everywhere or segment.tagmanifest_sha256 in self._below

    @contextmanager
    def entries(self, segment: Segment) -> Iterator[Iterable[Entry]]:
        """Read a removed month from its bag.

        Args:
            segment: The month.

        Yields:
            Its entries, in order; they are those with which it was sealed.

        Raises:
            ArchiveError: The bag is gone, damaged, cannot be reached, or has other entries.
        """
        seal, place = str(segment.tagmanifest_sha256), str(segment.place)
        below = self._below.get(seal)
        archive: Archive
        if below is None:
            archive, name = place_of(self.settings, place)
        else:
            archive, name = ArchiveFolder(below.parent), below.name
        with proven(self.settings, archive, name, seal, segment) as found:
            yield found


@contextmanager
def proven(
    settings: Settings, archive: Archive, name: str, seal: str, segment: Segment
) -> Iterator[Iterable[Entry]]:
    """Open the bag of a month, and compute all again that seals it.

    Args:
        settings: Hold the keys, and say where files are unpacked.
        archive: Where it stands.
        name: The bag.
        seal: SHA-256 of its tag manifest, hex.
        segment: The month.

    Yields:
        Its entries, which were all read once and hold.

    Raises:
        ArchiveError: It is gone, damaged, or has other entries than were sealed.
    """
    with opened(settings, archive, name, seal) as bag:
        file = bag.path(ENTRIES)
        walk = Walk(segment.first_seq - 1, segment.first_prev_hash, {})
        root = b""
        for entry in _read(file):
            walk.step(entry)
            root = add_to_root(root, entry.hash)
        ends = (walk.after, walk.hash, walk.entries, root)
        if walk.count or ends != (
            segment.last_seq, segment.last_hash, segment.entries, segment.root
        ):  # fmt: skip
            why = f": {walk.findings[0].message}" if walk.findings else ""
            message = (
                f"{bag.place}: it has other entries of {segment.name} than were sealed{why}. Restore it "
                "from a backup."
            )
            raise ArchiveError(message)
        yield _read(file)


def line_of(entry: Entry) -> bytes:
    """Write an entry as a line."""
    told = asdict(entry)
    told["prev_hash"], told["hash"] = entry.prev_hash.hex(), entry.hash.hex()
    told["created_at"] = entry.created_at.astimezone(dt.UTC).isoformat()
    return json.dumps(told, ensure_ascii=False).encode() + b"\n"


def _read(file: Path) -> Iterator[Entry]:
    with file.open("rb") as lines:
        for line in lines:
            told = json.loads(line)
            told["prev_hash"], told["hash"] = map(bytes.fromhex, (told["prev_hash"], told["hash"]))
            told["created_at"] = dt.datetime.fromisoformat(told["created_at"])
            yield Entry(**told)
