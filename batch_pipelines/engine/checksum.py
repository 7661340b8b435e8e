"""Checksum: read the staged copy again and compare it with what was seen and what was promised.

Each file's CRC32C, and each chunk's, against the one ingest computed in flight; the file's also
against the sender's sidecar or manifest, or what its store keeps. The same pass counts the records. A
difference fails the batch before anything is written to a target table.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import crc32c

from batch_pipelines.engine.digests.crc import joined
from batch_pipelines.engine.errors import DeliveryError
from batch_pipelines.engine.failpoints import failpoint
from batch_pipelines.engine.ledger import batches, files
from batch_pipelines.engine.ledger.files import COMPOSITE, Checksum
from batch_pipelines.engine.reading.count import (
    CsvScan,
    LineScan,
    records_by_table,
    records_of,
    scan_of,
)
from batch_pipelines.engine.reading.plain import Unpacking, is_plain
from batch_pipelines.engine.work import batch_for, recorded

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.ledger.files import ImportFile
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.work import Work


@dataclass(frozen=True)
class ChecksumResult:
    """What checksum found.

    Attributes:
        batch: The batch.
        worked: False where the stage had nothing to do and reports what the ledger holds.
        files: The staged files, with their record counts.
        bytes_processed: Bytes read.
        seconds: Time it took.
    """

    batch: Batch
    worked: bool
    files: tuple[ImportFile, ...]
    bytes_processed: int
    seconds: float


def checksum(connection: Connection, work: Work) -> ChecksumResult:
    """Prove that the staged files are what was delivered.

    Args:
        connection: A connection in autocommit mode.
        work: The run's work.

    Returns:
        What was found; everything was equal.

    Raises:
        DeliveryError: A file differs from what ingest copied or the sender promised (the message names
            it and both checksums), or does not unpack.
        StageOrderError: There is no ingested batch.
    """
    batch, to_do = batch_for(connection, work, "checksum")
    began = time.perf_counter()
    if to_do:
        with recorded(connection, work, batch.batch_id, "checksum"):
            _check(connection, work, batch)
    staged = files.of_batch(connection, batch.batch_id)
    size = sum(file.size for file in staged)
    return ChecksumResult(batch, to_do, tuple(staged), size, time.perf_counter() - began)


def _check(connection: Connection, work: Work, batch: Batch) -> None:
    by_ingest = files.checksums(connection, batch.batch_id)
    seen = {
        record.entity_id: record.computed_crc32
        for record in by_ingest
        if record.entity_type == "chunk" and record.status == "recorded"
    }
    found: list[Checksum] = []
    counts: dict[str, int] = {}
    by_table: dict[str, dict[str, int]] = {}
    routes = work.feed.routes
    folder = work.staged_source(batch.batch_id)
    unpacking = Unpacking(folder, work.feed)
    for file in files.of_batch(connection, batch.batch_id):
        path = folder / file.file_name
        if not path.exists():
            message = f"{path}: the staged copy is gone. Run the whole partition, from ingest."
            raise DeliveryError(message)
        form = work.feed.form_of(file.target_table)
        # What is read as it was delivered is counted on the way.
        scan = scan_of(form, file.format) if is_plain(folder, file, form) else None
        found += read_file(path, file, seen, scan)
        if all(c.status == "valid" for c in found):
            plain = unpacking.readable(file)
            counts[file.file_name] = (
                records_of(plain, file.format, form)
                if scan is None
                else scan.records(file.file_name)
            )
            if routes:
                by_table[file.file_name] = records_by_table(plain, routes)
    # The findings are kept even where they fail the batch: they are the reason.
    files.audit(connection, batch.batch_id, found)
    # Of parts in a store nothing is left to compute here: the staged copy is what ingest saw.
    composite = {c.entity_id: c.error_details for c in by_ingest if c.entity_type == COMPOSITE}
    problems = [c.error_details for c in found if c.error_details and c.entity_type == "file"]
    problems += filter(None, composite.values())
    if problems:
        message = (
            "; ".join(problems) + ". Nothing was written. Deliver what is right, and run again."
        )
        raise DeliveryError(message)
    work.feed.limits.check(work.name, records=sum(counts.values()))
    with connection.transaction():
        files.record_records(connection, batch.batch_id, counts, by_table)
        batches.record_source_records(connection, batch.batch_id, sum(counts.values()))


def read_file(
    path: Path, file: ImportFile, seen: Mapping[str, int], scan: CsvScan | LineScan | None
) -> Iterator[Checksum]:
    """Read a staged file once: chunks against ingest, the file against ingest and sender.

    Args:
        path: The staged copy.
        file: What ingest and the sender say of it.
        seen: CRC32C of each chunk as ingest saw it, by its name.
        scan: Is fed what is read, to count its records; or None.

    Yields:
        The checksums: of chunks that ingest saw, and of the file.
    """
    crc = size = 0
    began = time.perf_counter()
    with path.open("rb") as reading:
        while chunk := failpoint("checksum.read", reading.read(files.CHUNK_BYTES)):
            started = time.perf_counter()
            # Each byte is gone over once: the chunks' checksums give the file's.
            own = crc32c.crc32c(chunk)
            crc = joined(crc, own, len(chunk)) if size else own
            took = time.perf_counter() - started
            if scan is not None:
                scan.feed(chunk)
            name = files.chunk_id(file.file_name, size, len(chunk))
            size += len(chunk)
            if name in seen:
                yield _compare("chunk", name, own, seen[name], "ingest", len(chunk), took)
    took = max(time.perf_counter() - began, 1e-9)
    yield _compare("file", file.file_name, crc, file.crc32c, "ingest", size, took)
    if file.expected_crc32c is not None:
        yield _compare(
            "file", file.file_name, crc, file.expected_crc32c, file.expected_source, size, took
        )


def _compare(
    entity_type: str, entity_id: str, computed: int, expected: int, source: str | None, size: int,
    seconds: float,
) -> Checksum:  # fmt: skip
    problem = None
    if computed != expected:
        problem = (
            f"{entity_id}: CRC32C is {computed:08x}, but its {source} says {expected:08x}"
            if source != "ingest"
            else f"{entity_id}: CRC32C of the staged copy is {computed:08x}, ingest saw {expected:08x}"
        )
    return Checksum(entity_type, entity_id, computed, expected, source, size, seconds, problem)
