"""Ingest: copy a delivery into staging, immutable, and write down what it is.

Size, SHA-256 and CRC32C come from the same pass over the bytes. What the sender promised (sidecar,
manifest) is kept for `checksum` to compare. Not here: reading what the files mean.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import crc32c

from batch_pipelines.engine.errors import DeliveryError
from batch_pipelines.engine.failpoints import failpoint
from batch_pipelines.engine.landing import MANIFEST, find_delivery
from batch_pipelines.engine.ledger import batches, files
from batch_pipelines.engine.ledger.files import Checksum, ImportFile
from batch_pipelines.engine.promises import read_promises
from batch_pipelines.engine.work import recorded

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from batch_pipelines.engine.landing import Delivery
    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.promises import Promise
    from batch_pipelines.engine.work import Work

FORMATS = {".csv": "csv", ".parquet": "parquet"}


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


def ingest(connection: Connection, work: Work, *, force: bool = False) -> IngestResult:
    """Stage the delivery of a partition as a new batch.

    A batch of this partition whose run died is failed first. A delivery that is in force already
    makes the new batch a `DUPLICATE`; where that earlier batch has stages left (it was published and
    then its run died), the run is attached to it and finishes it.

    Args:
        connection: A connection in autocommit mode.
        work: The run's work; the batch gets its run id.
        force: Load the delivery even though it is in force already.

    Returns:
        The batch to go on with.

    Raises:
        DeliveryError: The delivery is missing, changes while it is read, has a file that no table
            wants, or is not what its manifest says.
    """
    dead = _fail_dead_batch(connection, work)
    batch = batches.of_run(connection, work.run_id)
    if batch is None:
        batch = batches.start(
            connection, work.feed, work.key, work.run_id,
            requested_by=work.requested_by, correlation_id=work.correlation_id,
        )  # fmt: skip
    for failed in batches.failed(connection, work.feed.feed, work.key):
        _clear(work.staging(failed))  # a new attempt begins; nobody goes on with these
    with recorded(connection, work, batch.batch_id, "ingest"), _cleared(work, batch.batch_id):
        delivery = find_delivery(work.feed, work.key, work.settings.root)
        if delivery is None:
            pattern = work.feed.pattern(work.key, work.settings.root)
            message = f"{work.name}: there is no file {pattern}. Deliver it and run again."
            raise DeliveryError(message)
        promises = read_promises(delivery)
        staged, checksums = _stage(work, batch.batch_id, delivery, promises)
        identity = _identity(work, staged)
        earlier = None if force else batches.same_content(connection, work.feed.feed, identity)
        with connection.transaction():
            files.replace(connection, batch.batch_id, staged)
            files.audit(connection, batch.batch_id, checksums)
            batches.record_identity(
                connection, batch.batch_id, identity=identity, fingerprint=delivery.fingerprint
            )
            if earlier is not None:
                batches.mark_duplicate(connection, batch.batch_id, earlier.batch_id)
        if earlier is not None:
            _clear(work.staging(batch.batch_id))
            own = earlier.partition_key == work.key
            if own and "archive" not in _done(connection, earlier):
                batches.attach(connection, work.run_id, earlier)
    now = batches.of_run(connection, work.run_id) or batch
    return IngestResult(
        now, None if earlier is None else earlier.batch_id, tuple(staged), tuple(dead)
    )


@contextmanager
def _cleared(work: Work, batch_id: str) -> Iterator[None]:
    """Give the room back where ingest fails: on a full disk the next try needs it."""
    try:
        yield
    except BaseException:
        _clear(work.staging(batch_id))
        raise


def _fail_dead_batch(connection: Connection, work: Work) -> list[str]:
    """Fail the partition's batch in progress: we hold the lease, so its run is not alive."""
    dead = batches.newest(connection, work.feed.feed, work.key)
    if dead is None or dead.status != "IN_PROGRESS" or dead.batch_id == work.run_id:
        return []
    why = f"Its run ended without a word; run {work.run_id} took the partition over."
    with connection.transaction():
        for record in batches.stages(connection, dead.batch_id).values():
            if record.status == "IN_PROGRESS":
                batches.end_stage(connection, dead.batch_id, record.stage, why)  # type: ignore[arg-type]
        batches.mark_failed(connection, dead.batch_id, why)
    _clear(work.staging(dead.batch_id))
    return batches.runs(connection, dead.batch_id)


def _done(connection: Connection, batch: Batch) -> set[str]:
    records = batches.stages(connection, batch.batch_id)
    return {name for name, record in records.items() if record.status == "SUCCESS"}


def _stage(
    work: Work, batch_id: str, delivery: Delivery, promises: Mapping[str, Promise]
) -> tuple[list[ImportFile], list[Checksum]]:
    folder = work.staged_source(batch_id)
    _clear(work.staging(batch_id))
    folder.mkdir(parents=True)
    staged, checksums = [], []
    for path in delivery.data:
        table = work.feed.table_of(path.name)
        suffix = path.suffix.lower()
        if suffix not in FORMATS:
            message = f"{path}: format {suffix!r} is not known; there are {', '.join(FORMATS)}."
            raise DeliveryError(message)
        size, crc, sha256, seen = _copy(path, folder / path.name)
        checksums += seen
        promise = promises.get(path.name)
        if promise is not None and promise.size not in {None, size}:
            message = (
                f"{path}: {size} bytes, but {MANIFEST} says {promise.size}. "
                "Deliver the file, or its manifest, again."
            )
            raise DeliveryError(message)
        promised = promise if promise is not None and promise.crc32c is not None else None
        staged.append(
            ImportFile(
                file_name=path.name,
                target_table=table.table,
                size=size,
                format=FORMATS[suffix],
                compression=None,
                crc32c=crc,
                sha256=sha256,
                expected_crc32c=promised.crc32c if promised else None,
                expected_source=promised.source if promised else None,
            )
        )
    filled = {file.target_table for file in staged}
    for table in work.feed.tables:
        if table.table not in filled:
            message = (
                f"{work.name}: the delivery has no file {table.files} for {table.table}. "
                "Deliver it too: what a delivery does not bring would be taken for removed."
            )
            raise DeliveryError(message)
    for path in delivery.control:
        _copy(path, folder / path.name)
    _sync_folder(folder)
    return staged, checksums


def _copy(source: Path, target: Path) -> tuple[int, int, str, list[Checksum]]:
    """Copy a file; size, CRC32C, SHA-256 and the checksums of chunks come from the same pass."""
    before = source.stat()
    sha256 = hashlib.sha256()
    crc = size = 0
    chunks: list[Checksum] = []
    began = time.perf_counter()
    with source.open("rb") as reading, target.open("xb") as writing:
        # No further than the file went: a sender who goes on writing must not fill our disk.
        while size <= before.st_size and (chunk := reading.read(files.CHUNK_BYTES)):
            started = time.perf_counter()
            sha256.update(chunk)
            crc = crc32c.crc32c(chunk, crc)
            own = crc32c.crc32c(chunk)
            writing.write(failpoint("ingest.copied", chunk))
            took = time.perf_counter() - started
            chunks.append(
                Checksum("chunk", files.chunk_id(source.name, size, len(chunk)), own, None, None,
                         len(chunk), took)
            )  # fmt: skip
            size += len(chunk)
        writing.flush()
        os.fsync(writing.fileno())
    after = source.stat()
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) or (
        size != after.st_size
    ):
        message = f"{source}: it changed while it was read; run again when its sender is done."
        raise DeliveryError(message)
    target.chmod(0o444)
    whole = Checksum(
        "file", source.name, crc, None, None, size, max(time.perf_counter() - began, 1e-9)
    )
    # The one chunk of a small file would say the same thing twice.
    return size, crc, sha256.hexdigest(), [whole, *chunks] if len(chunks) > 1 else [whole]


def _identity(work: Work, staged: Sequence[ImportFile]) -> str:
    # File names are left out: the same bytes under a new name are the same delivery.
    content = sorted((file.target_table, file.sha256) for file in staged)
    key = work.key if work.feed.identity == "partition" else None
    text = json.dumps([work.feed.feed, work.feed.version, key, content])
    return hashlib.sha256(text.encode()).hexdigest()


def _clear(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
