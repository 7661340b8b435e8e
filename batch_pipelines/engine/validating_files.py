"""Validating the files of a feed without tables: they are there, all of them, and are what was promised.

Everything is read a second time, manifests too. Not here: what is compared of rows (`validate`).
"""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING

import crc32c

from batch_pipelines.engine.feeds import NO_TABLE
from batch_pipelines.engine.landing.deliveries import MANIFESTS
from batch_pipelines.engine.ledger.files import CHUNK_BYTES
from batch_pipelines.engine.ledger.proofs import Check, TableValidation
from batch_pipelines.engine.places.folder import Folder
from batch_pipelines.engine.promises import broken
from batch_pipelines.engine.statements import read_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from batch_pipelines.engine.ledger.files import ImportFile
    from batch_pipelines.engine.ledger.proofs import Verdict


def validate_files(staged: Sequence[ImportFile], folder: Path) -> TableValidation:
    """Hold staged files against the ledger and the sender's word, once more.

    Args:
        staged: The files as the ledger has them.
        folder: Where their copies are.

    Returns:
        What was found; counts are files, those that were set aside left out.

    Raises:
        DeliveryError: A manifest cannot be read any more.
    """
    kept = [file for file in staged if not file.set_aside]
    there = [file for file in kept if (folder / file.file_name).is_file()]
    checks = (
        _check("files", time.perf_counter(), sorted(f.file_name for f in kept),
               sorted(f.file_name for f in there)),
        *_manifests(staged, folder),
        *_contents(there, folder),
    )  # fmt: skip
    return TableValidation(NO_TABLE, len(kept), len(there), checks)


def _manifests(staged: Sequence[ImportFile], folder: Path) -> Iterator[Check]:
    """Compare each manifest's list with the files of the batch, bad ones among them."""
    present = sorted(file.file_name for file in staged)
    for path in Folder(folder).files("", MANIFESTS):
        began = time.perf_counter()
        listed = sorted(statement.file_name for statement in read_manifest(path))
        yield _check(f"manifest.{path.name}", began, listed, present)


def _contents(there: Sequence[ImportFile], folder: Path) -> Iterator[Check]:
    """Compute every digest again: against what was staged, and what was promised."""
    began = time.perf_counter()
    names = sorted(file.file_name for file in there)
    same, promised, right = [], [], []
    for file in there:
        algorithms = {name for told in file.expected_digests.values() for name in told}
        hashers = {name: hashlib.new(name) for name in {*algorithms, "sha256"}}
        crc = size = 0
        with (folder / file.file_name).open("rb") as reading:
            while chunk := reading.read(CHUNK_BYTES):
                crc, size = crc32c.crc32c(chunk, crc), size + len(chunk)
                for hasher in hashers.values():
                    hasher.update(chunk)
        digests = {name: hasher.hexdigest() for name, hasher in hashers.items()}
        if (size, crc, digests["sha256"]) == (file.size, file.crc32c, file.sha256):
            same.append(file.file_name)
        if file.expected_crc32c is not None or file.expected_digests:
            promised.append(file.file_name)
            if not any(broken(file, size=size, crc=crc, digests=digests)):
                right.append(file.file_name)
    yield _check("checksums", began, names, sorted(same))
    missing = len(promised) < len(names)
    yield _check("promises", began, sorted(promised), sorted(right), unverified=missing)


def _check(
    name: str,
    began: float,
    expected: Sequence[str],
    actual: Sequence[str],
    *,
    unverified: bool = False,
) -> Check:
    """Compare names of files; how many there are is kept, and which of them differ."""
    status: Verdict = "FAILED" if expected != actual else "UNVERIFIED" if unverified else "SUCCESS"
    differing = sorted({*expected} ^ {*actual})
    named = f": {', '.join(differing)}" if differing else ""
    return Check(
        name=name,
        sql="",
        expected=f"{len(expected)} files",
        actual=f"{len(actual)} files" + (f"; differing{named}" if named else ""),
        status=status,
        seconds=round(time.perf_counter() - began, 6),
    )
