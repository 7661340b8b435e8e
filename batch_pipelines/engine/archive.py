"""Archive: put a validated batch away in a bag, read the bag back, then clear staging.

A bag (BagIt, RFC 8493) holds the source files, the rejects, the row digests, the feed and an extract of
the ledger. It is written where nobody takes it for a whole one, synced, read back and compared with the
ledger, and only then named. Not here: what stands in a bag, how and where (`archiving`).
"""

from __future__ import annotations

import datetime as dt
import hashlib
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from batch_pipelines.engine.archiving import tags
from batch_pipelines.engine.archiving.archives import drafting
from batch_pipelines.engine.archiving.bag import REJECTS, opened
from batch_pipelines.engine.archiving.choosing import archive_of
from batch_pipelines.engine.archiving.contents import fill
from batch_pipelines.engine.archiving.fixity import check_fixity, validate_by_tool
from batch_pipelines.engine.archiving.folder import ArchiveFolder
from batch_pipelines.engine.archiving.leftovers import remove_leftovers
from batch_pipelines.engine.archiving.packing import Packing
from batch_pipelines.engine.audit import anchors
from batch_pipelines.engine.errors import ArchiveError
from batch_pipelines.engine.failpoints import failpoint
from batch_pipelines.engine.ledger import archives, files, rejects, stages, totals, values
from batch_pipelines.engine.ledger.archives import ArchiveRecord
from batch_pipelines.engine.ledger.reject_files import same_rejects
from batch_pipelines.engine.unfinished import clear_staging
from batch_pipelines.engine.work import batch_for, recorded

if TYPE_CHECKING:
    from batch_pipelines.engine.archiving.archives import Archive
    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.work import Work

_AGAIN = "Remove the bag and run again."
# Problems of a bag that an error names.
_NAMED = 5


@dataclass(frozen=True)
class ArchiveResult:
    """What archive did.

    Attributes:
        batch: The batch.
        worked: False where it was archived already.
        archive: Where its newest bag stands; None for a batch that has none (a duplicate).
        seconds: Time it took.
    """

    batch: Batch
    worked: bool
    archive: ArchiveRecord | None
    seconds: float


def archive(connection: Connection, work: Work) -> ArchiveResult:
    """Archive a validated batch, and clear staging of what the partition needs no more.

    Args:
        connection: A connection in autocommit mode.
        work: The run's work.

    Returns:
        Where the bag stands.

    Raises:
        ArchiveError: A staged file is gone, the archive cannot be written, or the bag did not read back
            equal; staging is kept.
        SettingsError: The feed asks for encryption, and there is no key.
        StageOrderError: There is no validated batch.
    """
    batch, to_do = batch_for(connection, work, "archive")
    began = time.perf_counter()
    if to_do:
        with recorded(connection, work, batch.batch_id, "archive"), ExitStack() as stack:
            if rejects.has_any(connection, batch.batch_id):
                # The bag gets them as they were delivered.
                look = values.opened(connection, batch.batch_id, "archive", work.requested_by)
                stack.enter_context(look)
            _archive(connection, work, batch)
    remove_leftovers(
        connection, archive_of(work.settings, work.feed), f"{work.feed.feed}/{work.key}"
    )
    clear_staging(connection, work.settings, work.feed.feed, work.key)
    # Here most batches end.
    totals.fold(connection)
    return ArchiveResult(
        batch,
        to_do,
        archives.bag(connection, batch.batch_id),
        time.perf_counter() - began,
    )


def _archive(connection: Connection, work: Work, batch: Batch) -> None:
    archive = archive_of(work.settings, work.feed)
    # A bag is never changed: what a replay has loaded since goes into another one.
    replays = len(rejects.replays(connection, batch.batch_id))
    name = f"{batch.feed}/{batch.partition_key}/{batch.batch_id}"
    name = f"{name}.replay-{replays}" if replays else name
    known = {record.place for record in archives.of_batch(connection, batch.batch_id)}
    bags = list(archive.named(name))
    left = next((bag for bag in bags if archive.place(bag) not in known), None)
    if left is None:
        # One that the ledger knows is whole: its run died before it had said that the stage is done.
        if not bags:
            _write(connection, work, batch, archive, name)
        return
    # An earlier try left it there and the ledger was not told; it may be years old.
    seal = _read_again(archive, left)
    record = _compare(connection, work, batch, archive, left, seal)
    with connection.transaction():
        work.lease.hold(connection)
        archives.record(connection, record)
        stages.end(connection, batch.batch_id, "archive")


def _write(connection: Connection, work: Work, batch: Batch, archive: Archive, name: str) -> None:
    # A run that hangs here may wake up while the one that took over writes its own.
    with drafting(archive, name, work.lease.token) as draft:
        packing = Packing.of_feed(work.settings, work.feed)
        anchor = anchors.head(connection)
        fill(connection, work, batch, packing, anchor, draft.folder / tags.DATA)
        what = f"Import batch {batch.name}, attempt {batch.attempt}"
        info = {
            **tags.about(batch.batch_id, what, dt.datetime.now(dt.UTC).date()),
            "Audit-Ledger": anchor.ledger_id,
            "Audit-Anchor": f"{anchor.seq} {anchor.hash}",
            **packing.tags,
        }
        seal = tags.write_tags(draft.folder, info)
        failpoint("archive.written", draft.folder)
        validate_by_tool(draft.folder)
        here = ArchiveFolder(draft.folder.parent)
        record = _compare(connection, work, batch, here, draft.folder.name, seal)
        draft.secure()
        failpoint("archive.secured", draft.folder)
        with connection.transaction():
            work.lease.hold(connection)
            place = failpoint("archive.sealed", archive.place(draft.seal()))
            archives.record(connection, replace(record, place=place))
            stages.end(connection, batch.batch_id, "archive")


def _read_again(archive: Archive, bag: str) -> str:
    """Read all of a bag that the ledger does not know, and give its seal."""
    found = check_fixity(archive, bag)
    if found.seal is None or found.problems:
        message = (
            f"{archive.place(bag)}: the bag did not read back ({'; '.join(found.problems[:_NAMED])}). "
            f"{_AGAIN}"
        )
        raise ArchiveError(message)
    return found.seal


def _compare(
    connection: Connection, work: Work, batch: Batch, archive: Archive, name: str, seal: str
) -> ArchiveRecord:
    """Hold the source files and rejects of a bag against the ledger, and say what to record of it."""
    with opened(work.settings, archive, name, seal) as bag:
        for file in files.of_batch(connection, batch.batch_id):
            if not bag.packing.keeps(file.place_in_bag):
                continue
            digest = hashlib.sha256()
            bag.read(file.place_in_bag, digest.update)
            if digest.hexdigest() != file.sha256:
                message = (
                    f"{bag.place}/{file.place_in_bag}: does not unpack to what was loaded. {_AGAIN}"
                )
                raise ArchiveError(message)
        kept = bag.path(REJECTS) if bag.has(REJECTS) else None
        if not same_rejects(connection, batch.batch_id, kept):
            message = f"{bag.place}/{REJECTS}: does not hold the rejects of the ledger. {_AGAIN}"
            raise ArchiveError(message)
    payload = [size for file, size in archive.files(name).items() if file.startswith(tags.DATA)]
    now = dt.datetime.now(dt.UTC)
    return ArchiveRecord(
        batch_id=batch.batch_id,
        kind="bag",
        place=archive.place(name),
        payload_files=len(payload),
        payload_bytes=sum(payload),
        tagmanifest_sha256=seal,
        strategy=bag.packing.strategy,
        key_id=bag.packing.key_id,
        state="VALID",
        verified_at=now,
        checked_at=now,
        problems=[],
    )
