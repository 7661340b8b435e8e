"""Restaging: a batch's files back from its bag, for work on them after staging was cleared."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import zstandard

from batch_pipelines.engine.errors import ArchiveError
from batch_pipelines.engine.ledger import files, proofs

if TYPE_CHECKING:
    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.work import Work

_READ_BYTES = 1_000_000


def restage(connection: Connection, work: Work, batch: Batch) -> None:
    """Bring the files of a batch and their row digests back into staging, if they are not there.

    Args:
        connection: A connection.
        work: The run's work.
        batch: The batch.

    Raises:
        ArchiveError: There is no bag, or a file does not unpack to what was loaded.
    """
    source = work.staged_source(batch.batch_id)
    staged = files.of_batch(connection, batch.batch_id)
    if all((source / file.file_name).exists() for file in staged):
        return
    archived = proofs.archive(connection, batch.batch_id)
    if archived is None:
        message = (
            f"{batch.name}: its staged files are gone and it has no bag. "
            "Import the partition again with --force."
        )
        raise ArchiveError(message)
    bag = Path(archived.bag_path) / "data"
    folder = work.staging(batch.batch_id)
    shutil.rmtree(folder, ignore_errors=True)
    unfinished = folder / "unfinished"
    unfinished.mkdir(parents=True)
    for file in staged:
        packed = bag / file.place_in_bag
        if unpack(packed, unfinished / file.file_name) != file.sha256:
            message = (
                f"{packed}: gone, or does not unpack to what was loaded. "
                "Import the partition again with --force."
            )
            raise ArchiveError(message)
    shutil.copytree(bag / "row_digests", work.staged_digests(batch.batch_id))
    unfinished.rename(source)


def unpack(packed: Path, target: Path) -> str | None:
    """Unpack a file of a bag.

    Args:
        packed: The file.
        target: What it becomes.

    Returns:
        The SHA-256 of what it holds, in hex; None where it is gone or cannot be unpacked.
    """
    digest = hashlib.sha256()
    try:
        with packed.open("rb") as reading, target.open("wb") as writing:
            for piece in zstandard.ZstdDecompressor().read_to_iter(reading, _READ_BYTES):
                digest.update(piece)
                writing.write(piece)
    except (zstandard.ZstdError, FileNotFoundError):
        return None
    return digest.hexdigest()
