"""Restaging: a batch's files back from its bag, for work on them after staging was cleared."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from batch_pipelines.engine.archiving.bag import DIGESTS, open_bag
from batch_pipelines.engine.archiving.contents import FEED
from batch_pipelines.engine.errors import ArchiveError
from batch_pipelines.engine.ledger import archives, erasures, files

if TYPE_CHECKING:
    from pathlib import Path

    from batch_pipelines.engine.archiving.bag import Bag
    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.ledger.files import ImportFile
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.work import Work


def restage(connection: Connection, work: Work, batch: Batch) -> None:
    """Bring the files of a batch and their row digests back into staging, if they are not there.

    Args:
        connection: A connection.
        work: The run's work.
        batch: The batch.

    Raises:
        ArchiveError: There is no bag, it has no source, or a file does not unpack to what was loaded.
    """
    source = work.staged_source(batch.batch_id)
    staged = files.of_batch(connection, batch.batch_id)
    if all((source / file.file_name).exists() for file in staged):
        return
    erasures.require_none_under_way(connection, batch.batch_id)
    there = archives.bag(connection, batch.batch_id) or archives.deleted_bag(
        connection, batch.batch_id
    )
    if there is None:
        message = (
            f"{batch.name}: its staged files are gone and it has no bag. "
            "Import the partition again with --force."
        )
        raise ArchiveError(message)
    folder = work.staging(batch.batch_id)
    shutil.rmtree(folder, ignore_errors=True)
    unfinished = folder / "unfinished"
    unfinished.mkdir(parents=True)
    with open_bag(connection, work.settings, batch.batch_id) as bag:
        for file in staged:
            unpack(bag, file, unfinished)
        for kept, target in (
            (DIGESTS, work.staged_digests(batch.batch_id)),
            (FEED, work.staged_feed(batch.batch_id)),
        ):
            target.mkdir()
            for name in bag.under(kept):
                bag.copy(name, target / name.removeprefix(f"{kept}/"))
    unfinished.rename(source)


def unpack(bag: Bag, file: ImportFile, folder: Path) -> None:
    """Unpack a source file of a bag.

    Args:
        bag: The bag.
        file: The file.
        folder: Where it is put under its name.

    Raises:
        ArchiveError: It is not in the bag, or does not unpack to what was loaded.
    """
    if bag.copy(file.place_in_bag, folder / file.file_name) != file.sha256:
        message = (
            f"{bag.place}: {file.place_in_bag} does not unpack to what was loaded. "
            "Import the partition again with --force."
        )
        raise ArchiveError(message)
