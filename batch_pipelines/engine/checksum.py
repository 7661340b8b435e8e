"""Checksum: read the staged copy again and compare it with what was seen and what was promised.

Each file's CRC32C, and each chunk's, against the one ingest computed in flight; the file's also,
and every other digest that is promised, against the sender's sidecar or manifest, or what its store
keeps. The same pass counts the records. A staged copy that is not what ingest saw fails the batch. So
does a file that is not what was promised, unless the feed sets such files aside: then none of its
records is read, and the batch goes on with the others.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import crc32c

from batch_pipelines.engine.bad_files import require_enough
from batch_pipelines.engine.digests.crc import joined
from batch_pipelines.engine.errors import StagedCopyError
from batch_pipelines.engine.failpoints import failpoint
from batch_pipelines.engine.ledger import batches, files
from batch_pipelines.engine.ledger.files import COMPOSITE, UNREAD, Checksum, Digest
from batch_pipelines.engine.promises import broken, differs
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
        DeliveryError: A file differs from what ingest copied, or from what was promised where the feed
            does not go on without it (the message names it and both checksums), or does not unpack.
        ThresholdError: More files are bad than the feed tolerates.
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
    # Of parts in a store nothing is left to compute here: the staged copy is what ingest saw.
    composite = {c.entity_id: c.error_details for c in by_ingest if c.entity_type == COMPOSITE}
    found: list[Checksum] = []
    damaged: list[str] = []
    counts: dict[str, int] = {}
    by_table: dict[str, dict[str, int]] = {}
    judged: list[ImportFile] = []
    routes = work.feed.routes
    folder = work.staged_source(batch.batch_id)
    unpacking = Unpacking(folder, work.feed)
    for file in files.of_batch(connection, batch.batch_id):
        path = folder / file.file_name
        if not path.exists():
            message = f"{path}: the staged copy is gone. Run the whole partition, from ingest."
            raise StagedCopyError(message)
        form = work.feed.form_of(file.target_table)
        # What is read as it was delivered is counted on the way; of what is bad nothing is.
        unread = file.format == UNREAD
        scan = scan_of(form, file.format) if not unread and is_plain(folder, file, form) else None
        read = read_file(path, file, work.feed.entity_type, seen, scan)
        found += read.checksums
        damaged += read.damaged
        problems = [*read.broken, *filter(None, [composite.get(file.file_name)])]
        judged.append(replace(file, problem="; ".join(problems) or None))
        if not (unread or problems or damaged):
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
    if damaged:
        why = "; ".join([*damaged, *(file.problem for file in judged if file.problem)])
        message = f"{why}. Nothing was written. Deliver what is right, and run again."
        raise StagedCopyError(message)
    require_enough(connection, work, judged)
    work.feed.limits.check(work.name, records=sum(counts.values()))
    with connection.transaction():
        problems_by_name = {file.file_name: file.problem for file in judged}
        files.record_judgement(connection, batch.batch_id, problems_by_name)
        files.record_records(connection, batch.batch_id, counts, by_table)
        batches.record_source_records(connection, batch.batch_id, sum(counts.values()))


@dataclass(frozen=True)
class FileRead:
    """What was found of a staged file.

    Attributes:
        checksums: All that were computed.
        damaged: Where the file is not what ingest saw.
        broken: Where it is not what was promised.
    """

    checksums: tuple[Checksum, ...]
    damaged: tuple[str, ...]
    broken: tuple[str, ...]


def read_file(
    path: Path,
    file: ImportFile,
    kind: str,
    seen: Mapping[str, int],
    scan: CsvScan | LineScan | None,
) -> FileRead:
    """Read a staged file once: chunks against ingest, the file against ingest and sender.

    Args:
        path: The staged copy.
        file: What ingest and the sender say of it.
        kind: What it is called in the audit trail.
        seen: CRC32C of each chunk as ingest saw it, by its name.
        scan: Is fed what is read, to count its records; or None.

    Returns:
        The checksums: of chunks that ingest saw, and of the file; and what is wrong.
    """
    crc = size = 0
    checksums: list[Checksum] = []
    promised = {name for told in file.expected_digests.values() for name in told}
    hashers = {name: hashlib.new(name) for name in promised}
    began = time.perf_counter()
    with path.open("rb") as reading:
        while chunk := failpoint("checksum.read", reading.read(files.CHUNK_BYTES)):
            started = time.perf_counter()
            # Each byte is gone over once: the chunks' checksums give the file's.
            own = crc32c.crc32c(chunk)
            crc = joined(crc, own, len(chunk)) if size else own
            took = time.perf_counter() - started
            for hasher in hashers.values():
                hasher.update(chunk)
            if scan is not None:
                scan.feed(chunk)
            name = files.chunk_id(file.file_name, size, len(chunk))
            size += len(chunk)
            if name in seen:
                checksums.append(
                    _compare("chunk", name, own, seen[name], "ingest", len(chunk), took)
                )
    took = max(time.perf_counter() - began, 1e-9)
    whole = _compare(kind, file.file_name, crc, file.crc32c, "ingest", size, took)
    digests = {name: hasher.hexdigest() for name, hasher in hashers.items()}
    kept = [*_promises(file, kind, crc, digests, size, took)]
    return FileRead(
        (*checksums, whole, *kept),
        tuple(filter(None, [whole.error_details])),
        tuple(broken(file, size=size, crc=crc, digests=digests)),
    )


def _promises(
    file: ImportFile, kind: str, crc: int, digests: Mapping[str, str], size: int, seconds: float
) -> Iterator[Checksum]:
    """Hold a file against each thing that was promised of it."""
    name = file.file_name
    if file.expected_size not in {None, size}:
        yield Checksum(
            kind, name, crc, None, "manifest", size, seconds,
            f"{name}: {size} bytes, but its manifest says {file.expected_size}",
        )  # fmt: skip
    if file.expected_crc32c is not None:
        yield _compare(kind, name, crc, file.expected_crc32c, file.expected_source, size, seconds)
    for source, told in file.expected_digests.items():
        for algorithm, expected in told.items():
            computed = digests[algorithm]
            problem = None
            if computed != expected:
                problem = differs(name, algorithm, computed, expected, source)
            digest = Digest(algorithm, computed, expected)
            yield Checksum(kind, name, crc, None, source, size, seconds, problem, digest)


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
