"""Ingest: copy a delivery into staging, immutable, and write down what it is.

Size, SHA-256 and CRC32C come from the same pass over the bytes. What the sender promised (sidecar,
manifest) is kept for `checksum` to compare. Not here: reading what the files mean.
"""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batch_pipelines.engine.archiving.keys import require_keys
from batch_pipelines.engine.feeds import NO_TABLE
from batch_pipelines.engine.ledger import batches, events, files, pauses, stages
from batch_pipelines.engine.ledger.batch_events import tell
from batch_pipelines.engine.ledger.events import Event
from batch_pipelines.engine.reprocessing import retake
from batch_pipelines.engine.sources import take_in
from batch_pipelines.engine.unfinished import clear_staging, fail_unfinished
from batch_pipelines.engine.work import recorded

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.ledger.files import ImportFile
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.work import Work


@dataclass(frozen=True)
class IngestResult:
    """What ingest did.

    Attributes:
        batch: The batch the run goes on with.
        duplicate_of: Id of the batch that loaded the same delivery already, or None.
        files: The staged files.
        dead_runs: Runs found dead on this partition, whose batch has been failed.
    """

    batch: Batch
    duplicate_of: str | None
    files: tuple[ImportFile, ...]
    dead_runs: tuple[str, ...]


def ingest(
    connection: Connection, work: Work, *, force: bool = False, reprocess: str | None = None
) -> IngestResult:
    """Stage the delivery of a partition as a new batch.

    A batch of this partition whose run died is failed first. A delivery that is in force already
    makes the new batch a `DUPLICATE`; where that earlier batch has stages left (it was published and
    then its run died), the run is attached to it and finishes it.

    Args:
        connection: A connection in autocommit mode.
        work: The run's work; the batch gets its run id.
        force: Load the delivery even though it is in force already.
        reprocess: Id of an earlier batch of the partition whose source, out of its bag, is the delivery
            in place of what lies in landing; it is loaded even though it is in force already.

    Returns:
        The batch to go on with.

    Raises:
        FeedPausedError: The feed is paused; nothing is recorded of the run.
        DeliveryError: The delivery is missing, changes while it is read, has a file that no table
            wants, or is not what its manifest says.
        ArchiveError: The earlier batch has no bag, or none with its source as it was.
        LeaseLostError: Another run has taken the partition over.
        SettingsError: The feed asks for encryption, and there is no key.
    """
    require_keys(work.settings, work.feed)
    # Before anything is decided: a run that was taken over would take its successor's batch for dead.
    work.lease.record_worker(connection)
    dead = _fail_dead_batches(connection, work)
    batch = batches.of_run(connection, work.run_id)
    if batch is None:
        # Runs that were queued before the pause end here, too.
        pauses.require_running(connection, work.feed.feed)
        batch = batches.start(
            connection, work.feed, work.key, work.run_id,
            requested_by=work.requested_by, correlation_id=work.correlation_id,
        )  # fmt: skip
    clear_staging(connection, work.settings, work.feed.feed, work.key)
    with recorded(connection, work, batch.batch_id, "ingest"), _cleared(work, batch.batch_id):
        # First of all: a delivery that fails here has been tried, too.
        seen = functools.partial(batches.record_fingerprint, connection, batch.batch_id)
        if reprocess is None:
            taken = take_in(work, batch.batch_id, seen)
        else:
            taken = retake(connection, work, batch.batch_id, reprocess)
        anyway = force or reprocess is not None
        identity = _identity(work, taken.files)
        same = batches.same_content(connection, work.feed.feed, identity)
        earlier = None if anyway else same
        with connection.transaction():
            files.replace(connection, batch.batch_id, taken.files)
            files.audit(connection, batch.batch_id, taken.checksums)
            batches.record_identity(connection, batch.batch_id, identity)
            if force:
                overruled = None if same is None else same.batch_id
                tell(connection, batch.batch_id, "ingest.forced", "SUCCESS", same_content=overruled)
            if reprocess is not None:
                events.append(connection, _reprocessed(work, batch, reprocess))
            if earlier is not None:
                batches.mark_duplicate(connection, batch.batch_id, earlier.batch_id)
        if earlier is not None:
            _clear(work.staging(batch.batch_id))
            own = earlier.partition_key == work.key
            if own and "archive" not in _done(connection, earlier):
                batches.attach(connection, work.run_id, earlier)
    now = batches.of_run(connection, work.run_id) or batch
    return IngestResult(
        now, None if earlier is None else earlier.batch_id, tuple(taken.files), tuple(dead)
    )


@contextmanager
def _cleared(work: Work, batch_id: str) -> Iterator[None]:
    """Give the room back where ingest fails: on a full disk the next try needs it."""
    try:
        yield
    except BaseException:
        _clear(work.staging(batch_id))
        raise


def _fail_dead_batches(connection: Connection, work: Work) -> list[str]:
    """Fail the partition's batches in progress: we hold the lease, so their runs are not alive."""
    why = f"Its run ended without a word; run {work.run_id} took the partition over."
    name = work.feed.feed
    dead = fail_unfinished(connection, name, work.key, why, "dead_run", but=work.run_id)
    return [run for batch in dead for run in batches.runs(connection, batch.batch_id)]


def _reprocessed(work: Work, batch: Batch, origin: str) -> Event:
    return Event(
        work.requested_by, "batch.reprocess.started", "IN_PROGRESS", "batch", batch.batch_id,
        correlation_id=work.correlation_id, details={"source_of": origin},
    )  # fmt: skip


def _done(connection: Connection, batch: Batch) -> set[str]:
    records = stages.of_batch(connection, batch.batch_id)
    return {name for name, record in records.items() if record.status == "SUCCESS"}


def _identity(work: Work, staged: Sequence[ImportFile]) -> str:
    # File names are left out: the same bytes under a new name are the same delivery. A bad file may be
    # the right one all the same, and its manifest what is corrected: then it is another delivery. Files
    # that are entities themselves are what their names say, too.
    content: list[tuple[str, ...]] = sorted(
        (
            file.target_table,
            file.sha256,
            *([] if file.problem is None else ["bad"]),
            *([file.file_name] if file.target_table == NO_TABLE else []),
        )
        for file in staged
    )
    key = work.key if work.feed.identity == "partition" else None
    text = json.dumps([work.feed.feed, work.feed.version, key, content])
    return hashlib.sha256(text.encode()).hexdigest()


def _clear(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
