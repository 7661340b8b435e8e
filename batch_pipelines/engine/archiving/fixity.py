"""Fixity: is all of a bag as it was when it was sealed, nothing gone, nothing changed, nothing added?

Every byte is read. What is found is told by path in the bag, never with what stands there.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batch_pipelines.engine.archiving import tags
from batch_pipelines.engine.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from batch_pipelines.engine.archiving.archives import Archive

_READ_BYTES = 1024 * 1024
_DATA = f"{tags.DATA}/"


@dataclass(frozen=True)
class Fixity:
    """What was found of a bag.

    Attributes:
        problems: What is not as it was sealed; none where everything is.
        files: Files of its payload that are there.
        size: Their bytes.
        seal: SHA-256, hex, of the tag manifest as it stands there; None where it is gone.
    """

    problems: tuple[str, ...]
    files: int
    size: int
    seal: str | None


def validate_by_tool(folder: Path) -> None:
    """Validate a bag by the tool of those who made the format.

    Args:
        folder: The bag, on this machine.

    Raises:
        ArchiveError: It is none that they would take for valid.
    """
    import bagit  # noqa: PLC0415  # a tenth of a second to import, which few need

    try:
        bagit.Bag(str(folder)).validate(processes=1)
    except bagit.BagError as error:
        kind = type(error).__name__
        message = f"{folder}: the bag did not read back ({kind}). Remove the bag and run again."
        raise ArchiveError(message) from None


def check_fixity(archive: Archive, bag: str, seal: str | None = None) -> Fixity:
    """Read all of a bag, and hold it against what it was sealed with.

    Args:
        archive: Where it stands.
        bag: Its name.
        seal: SHA-256 of its tag manifest, hex, as the ledger has it; None where the ledger has none:
            then the bag is held against itself alone.

    Returns:
        What was found; a bag of which nothing is there has no files and no seal.

    Raises:
        ArchiveError: It cannot be reached.
        OSError: A disk cannot be read.
    """
    present = archive.files(bag)
    payload = {name: size for name, size in present.items() if name.startswith(_DATA)}
    content = _content(archive, bag, tags.SEAL) if tags.SEAL in present else None
    found = None if content is None else hashlib.sha256(content).hexdigest()
    problems = [*_of_seal(found, seal), *_of_files(archive, bag, present, _listed(content))]
    return Fixity(tuple(problems), len(payload), sum(payload.values()), found)


def _of_seal(found: str | None, expected: str | None) -> Iterator[str]:
    if found is None:
        yield f"{tags.SEAL} is missing"
    elif expected not in {None, found}:
        yield f"{tags.SEAL} is changed"


def _of_files(
    archive: Archive, bag: str, present: Mapping[str, int], sealed: Mapping[str, str]
) -> Iterator[str]:
    listed: Mapping[str, str] = {}
    for name, digest in sealed.items():
        if name not in present:
            yield f"{name} is missing"
        elif _sha256(archive, bag, name) != digest:
            yield f"{name} is changed"
        elif name == tags.PAYLOAD:
            listed = _listed(_content(archive, bag, name))
    if not listed:
        # Without a manifest to be believed nothing can be said of what it lists.
        yield f"{_DATA} cannot be checked without {tags.PAYLOAD}"
        return
    for name, digest in listed.items():
        if name not in present:
            yield f"{name} is missing"
        elif _sha256(archive, bag, name) != digest:
            yield f"{name} is changed"
    for name in sorted(present.keys() - sealed.keys() - listed.keys() - {tags.SEAL}):
        yield f"{name} was added"


def _listed(manifest: bytes | None) -> Mapping[str, str]:
    try:
        return tags.listed(manifest or b"")
    except ValueError:
        return {}


def _content(archive: Archive, bag: str, file: str) -> bytes:
    with archive.read(bag, file) as reading:
        return b"".join(iter(lambda: reading.read(_READ_BYTES), b""))


def _sha256(archive: Archive, bag: str, file: str) -> str:
    digest = hashlib.sha256()
    with archive.read(bag, file) as reading:
        while piece := reading.read(_READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()
