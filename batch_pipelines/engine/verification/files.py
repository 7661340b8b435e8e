"""Verify a batch that fills no table: its files, read again where they are kept, against the ledger.

Fixity, as archivists call it: all of the bag against its seal in the ledger, then every file of the
batch, unpacked, against the SHA-256 that was computed when it was taken in.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

from batch_pipelines.engine.archiving import tags
from batch_pipelines.engine.archiving.bag import SOURCE, opened
from batch_pipelines.engine.archiving.choosing import place_of
from batch_pipelines.engine.archiving.fixity import check_fixity
from batch_pipelines.engine.errors import ArchiveError
from batch_pipelines.engine.ledger import archives, files
from batch_pipelines.engine.ledger.verifications import Difference
from batch_pipelines.engine.work import explain

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from batch_pipelines.engine.archiving.bag import Bag
    from batch_pipelines.engine.archiving.fixity import Fixity
    from batch_pipelines.engine.ledger.archives import ArchiveRecord
    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.ledger.files import ImportFile
    from batch_pipelines.engine.ledger.verifications import TableVerification
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.settings import Settings

_MOST_NAMED = 1_000
_SEALS = frozenset({f"{name} is {how}" for name in (tags.SEAL, tags.PAYLOAD, tags.INFO)
                    for how in ("missing", "changed")})  # fmt: skip


def verify_files(
    connection: Connection, settings: Settings, batch: Batch, found: TableVerification
) -> TableVerification:
    """Hold the kept files of a batch against the ledger.

    Args:
        connection: A connection.
        settings: Say where bags and staging are.
        batch: The batch.
        found: What is known before: nothing.

    Returns:
        What was found; counts are files, and what else is wrong with the bag is the exception.
    """
    known = files.of_batch(connection, batch.batch_id)
    found = replace(found, expected_rows=len(known))
    staged = settings.staging / batch.batch_id / SOURCE
    if staged.is_dir():
        return _told(found, known, [*_differing_staged(staged, known)], None)
    record = archives.bag(connection, batch.batch_id)
    if record is None:
        why = f"Batch {batch.batch_id} has no bag, and staging has nothing of it."
        return replace(found, exception=why)
    try:
        return _verify_bag(settings, record, known, found)
    except (ArchiveError, OSError) as error:
        return replace(found, exception=explain(error))


def _verify_bag(
    settings: Settings, record: ArchiveRecord, known: Sequence[ImportFile], found: TableVerification
) -> TableVerification:
    archive, name = place_of(settings, record.place)
    fixity = check_fixity(archive, name, record.tagmanifest_sha256)
    if _SEALS & {*fixity.problems}:
        broken = f"{record.place}: its manifests are not those that the ledger vouches for"
        return _told(found, known, [], broken)
    with opened(settings, archive, name, record.tagmanifest_sha256) as bag:
        if not all(bag.packing.keeps(file.place_in_bag) for file in known):
            return replace(found, exception=f"{record.place}: its feed kept digests alone")
        differing = [*_differing(bag, fixity, known)]
        own = {_stored(bag, file) for file in known}
    # A problem begins with the path that it is about.
    other = [each for each in fixity.problems if each.rpartition(" is ")[0] not in own]
    why = None
    if other:
        named = ", ".join(each.removesuffix(" was added") for each in other[:5])
        why = f"{record.place}: {len(other)} other files are not as they were written: {named}"
    return _told(found, known, differing, why)


def _told(
    found: TableVerification,
    known: Sequence[ImportFile],
    differing: Sequence[Difference],
    why: str | None,
) -> TableVerification:
    missing = sum(each.kind == "missing" for each in differing)
    return replace(
        found, status="FAILED" if differing or why else "SUCCESS", actual_rows=len(known) - missing,
        replaced=0, changed=len(differing) - missing, missing=missing, added=0, duplicated=0,
        exception=why, details=[*differing[:_MOST_NAMED]],
    )  # fmt: skip


def _differing(bag: Bag, fixity: Fixity, known: Sequence[ImportFile]) -> Iterator[Difference]:
    """Find the files in a bag that are gone, or are not what was taken in."""
    for file in known:
        stored = _stored(bag, file)
        if f"{stored} is missing" in fixity.problems:
            yield Difference("missing", None, file.file_name, None, None, None)
        elif f"{stored} is changed" in fixity.problems or _unpacked(bag, file) != file.sha256:
            yield Difference("changed", None, file.file_name, None, None, None)


def _stored(bag: Bag, file: ImportFile) -> str:
    return f"{tags.DATA}/{bag.packing.stored(file.place_in_bag)}"


def _unpacked(bag: Bag, file: ImportFile) -> str:
    digest = hashlib.sha256()
    bag.read(file.place_in_bag, digest.update)
    return digest.hexdigest()


def _differing_staged(folder: Path, known: Sequence[ImportFile]) -> Iterator[Difference]:
    """Find the files in staging that are gone, or are not what was taken in."""
    for file in known:
        path = folder / file.file_name
        if not path.is_file():
            yield Difference("missing", None, file.file_name, None, None, None)
            continue
        with path.open("rb") as content:
            found = hashlib.file_digest(content, "sha256").hexdigest()
        if found != file.sha256:
            yield Difference("changed", None, file.file_name, None, None, None)
