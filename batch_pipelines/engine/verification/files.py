"""Verify a batch that fills no table: its files, read again where they are kept, against the ledger.

Fixity, as archivists call it: the bag's own chain of SHA-256 up to the one in the ledger, then every
file of the batch, unpacked, against the SHA-256 that was computed when it was taken in.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import zstandard

from batch_pipelines.engine.errors import ArchiveError
from batch_pipelines.engine.ledger import files
from batch_pipelines.engine.ledger.verifications import Difference
from batch_pipelines.engine.verification.evidence import evidence_of, sealed, sha256

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.ledger.files import ImportFile
    from batch_pipelines.engine.ledger.proofs import ArchiveRecord
    from batch_pipelines.engine.ledger.verifications import TableVerification
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.settings import Settings
    from batch_pipelines.engine.verification.evidence import Evidence

_READ_BYTES = 1024 * 1024
_MOST_NAMED = 1_000
_UNREADABLE = (OSError, zstandard.ZstdError)


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
    try:
        evidence = evidence_of(connection, settings, batch.batch_id)
    except ArchiveError as error:
        return replace(found, exception=str(error))
    differing = [*_differing(evidence, known)]
    why = None if evidence.archive is None else _broken_seal(evidence.archive, known)
    missing = sum(each.kind == "missing" for each in differing)
    return replace(
        found, status="FAILED" if differing or why else "SUCCESS", actual_rows=len(known) - missing,
        replaced=0, changed=len(differing) - missing, missing=missing, added=0, duplicated=0,
        exception=why, details=differing[:_MOST_NAMED],
    )  # fmt: skip


def _differing(evidence: Evidence, known: Sequence[ImportFile]) -> Iterator[Difference]:
    """Find the files of a batch that are gone, or are not what was taken in."""
    for file in known:
        if evidence.archive is None:
            path = evidence.folder / "source" / file.file_name
        else:
            path = evidence.folder / file.place_in_bag
        if not path.is_file():
            yield Difference("missing", None, file.file_name, None, None, None)
        elif _content_sha256(path, packed=evidence.archive is not None) != file.sha256:
            yield Difference("changed", None, file.file_name, None, None, None)


def _content_sha256(path: Path, *, packed: bool) -> str | None:
    """Compute the SHA-256 of what a file holds; None where it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as reading:
            pieces = (
                zstandard.ZstdDecompressor().read_to_iter(reading, _READ_BYTES)
                if packed
                else iter(lambda: reading.read(_READ_BYTES), b"")
            )
            for piece in pieces:
                digest.update(piece)
    except _UNREADABLE:
        return None
    return digest.hexdigest()


def _broken_seal(archive: ArchiveRecord, known: Sequence[ImportFile]) -> str | None:
    """Say what of a bag, beside the batch's own files, is not as it was written; None where all is."""
    bag = Path(archive.bag_path)
    try:
        listed = sealed(bag, archive)
    except (OSError, ValueError, KeyError):
        return f"{bag}: its manifests are not those that the ledger vouches for"
    own = {f"data/{file.place_in_bag}" for file in known}
    there = {
        path.relative_to(bag).as_posix() for path in (bag / "data").rglob("*") if path.is_file()
    }
    wrong = sorted(
        name
        for name in ({*listed} | there) - own
        if name not in listed or name not in there or sha256(bag / name) != listed[name]
    )
    if not wrong:
        return None
    return f"{bag}: {len(wrong)} other files are not as they were written: {', '.join(wrong[:5])}"
