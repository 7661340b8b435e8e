"""Reprocessing: a batch's source out of its bag, taken into staging as the delivery of a new batch.

From there on it is a delivery as any other: it supersedes what is in force of its partition. Not here:
bringing the rows of an archived batch back as they were (`restoring`).
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

from batch_pipelines.engine.archiving.bag import SOURCE, open_bag
from batch_pipelines.engine.errors import ArchiveError, DeliveryError
from batch_pipelines.engine.feeds import EVERY_TABLE
from batch_pipelines.engine.intake import sync_folder, write_staged
from batch_pipelines.engine.ledger import archives, batches, erasures, files
from batch_pipelines.engine.promises import broken
from batch_pipelines.engine.sources import Taken

if TYPE_CHECKING:
    from pathlib import Path

    from batch_pipelines.engine.archiving.bag import Bag
    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.ledger.files import Checksum, ImportFile
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.settings import Settings
    from batch_pipelines.engine.work import Work


def require_source(connection: Connection, settings: Settings, batch: Batch) -> Batch:
    """Find the batch whose bag has the source of a batch, before anything is begun.

    Args:
        connection: A connection.
        settings: Hold the keys, and say where files are unpacked.
        batch: The batch, in any state.

    Returns:
        The batch; of a duplicate, the one that it is one of.

    Raises:
        ArchiveError: It has no bag, or one without source.
    """
    if batch.duplicate_of is not None:
        batch = batches.by_id(connection, batch.duplicate_of)
    erasures.require_none_under_way(connection, batch.batch_id)
    if archives.bag(connection, batch.batch_id) is None:
        message = (
            f"Batch {batch.batch_id} ({batch.name}) is {batch.status} and has no bag, so it cannot be "
            "imported again from there. Where its delivery lies in landing still: batch-pipelines "
            f"import {batch.feed} --batch {batch.partition_key} --force"
        )
        raise ArchiveError(message)
    with open_bag(connection, settings, batch.batch_id) as bag:
        for file in files.of_batch(connection, batch.batch_id):
            if not bag.has(file.place_in_bag):
                # It says what is missing, and why.
                bag.read(file.place_in_bag, lambda _: None)
    return batch


def retake(connection: Connection, work: Work, batch_id: str, origin_id: str) -> Taken:
    """Take the source of an earlier batch into staging, immutable, with checksums of its bytes.

    What its sender had promised of the files is kept, and will be compared again. It has no fingerprint:
    what lies in landing is not looked at, and is as new or old as before.

    Args:
        connection: A connection.
        work: The run's work.
        batch_id: The new batch, whose staging it goes to.
        origin_id: The earlier one.

    Returns:
        What was taken.

    Raises:
        ArchiveError: The earlier batch has no bag, its bag no source, or it is damaged.
        DeliveryError: The earlier batch is of another partition, is larger than its feed allows today,
            or the feed has a table today for which it brings nothing.
    """
    origin = batches.by_id(connection, origin_id)
    if (origin.feed, origin.partition_key) != (work.feed.feed, work.key):
        message = f"Batch {origin_id} is of {origin.name}, and this run is of {work.name}."
        raise DeliveryError(message)
    erasures.require_none_under_way(connection, origin_id)
    delivered = files.of_batch(connection, origin_id)
    size = sum(file.size for file in delivered)
    work.feed.limits.check(work.name, files=len(delivered), bytes=size)
    folder = work.staged_source(batch_id)
    shutil.rmtree(work.staging(batch_id), ignore_errors=True)
    folder.mkdir(parents=True)
    taken, checksums = [], []
    with open_bag(connection, work.settings, origin_id) as bag:
        for file in delivered:
            one, found = _retake(work, bag, file, folder)
            taken.append(one)
            checksums += found
        data = {file.place_in_bag for file in delivered}
        # What is no data file is the sender's word on them.
        for name in bag.under(SOURCE):
            if name not in data:
                bag.copy(name, folder / name.removeprefix(f"{SOURCE}/"))
    _require_all_tables(work, taken)
    sync_folder(folder)
    return Taken(taken, checksums, "")


def _retake(
    work: Work, bag: Bag, file: ImportFile, folder: Path
) -> tuple[ImportFile, list[Checksum]]:
    path = bag.path(file.place_in_bag)
    with path.open("rb") as reading:
        size, crc, sha256, checksums = write_staged(
            reading, folder / file.file_name, most=file.size
        )
    if sha256 != file.sha256:
        message = f"{bag.place}: {file.place_in_bag} does not unpack to what was loaded."
        raise ArchiveError(message)
    whole, *parts = checksums
    query = work.feed.source.query is not None
    one = replace(
        file,
        target_table=file.target_table if query else work.feed.target_of(file.file_name),
        crc32c=crc,
        records=None,
        table_records=None,
        set_aside=False,
    )
    promised = {name for told in file.expected_digests.values() for name in told}
    digests = {"sha256": sha256}
    for algorithm in promised - {"sha256"}:
        with path.open("rb") as reading:
            digests[algorithm] = hashlib.file_digest(reading, algorithm).hexdigest()
    problems = [*broken(one, size=size, crc=crc, digests=digests)]
    one = replace(one, problem="; ".join(problems) or None)
    return one, [replace(whole, entity_type=work.feed.entity_type), *parts]


def _require_all_tables(work: Work, taken: list[ImportFile]) -> None:
    filled = {file.target_table for file in taken}
    for table in work.feed.tables:
        if EVERY_TABLE not in filled and table.table not in filled:
            message = (
                f"{work.name}: the batch's source has no file {table.files} for {table.table}, which "
                "the feed fills today. What it does not bring would be taken for removed."
            )
            raise DeliveryError(message)
