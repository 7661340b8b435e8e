"""Ingest: copy a delivery into staging, immutable, and write down what it is.

Size, SHA-256 and CRC32C come from the same pass over the bytes. What the sender promised (sidecar,
manifest) is kept for `checksum` to compare. Not here: reading what the files mean.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import crc32c

from batch_pipelines.engine.errors import DeliveryError
from batch_pipelines.engine.failpoints import failpoint
from batch_pipelines.engine.feeds import check_key
from batch_pipelines.engine.ledger import batches, files
from batch_pipelines.engine.ledger.files import Checksum, ImportFile
from batch_pipelines.engine.work import recorded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.work import Work

MANIFEST = "manifest.csv"
SIDECAR_SUFFIX = ".crc32c"
FORMATS = {".csv": "csv", ".parquet": "parquet"}


@dataclass(frozen=True)
class Delivery:
    """The files of a delivery as they lie in landing.

    Attributes:
        data: Files to load, by name.
        control: The sender's manifest and sidecars.
        fingerprint: SHA-256 over names, sizes and times of all of them.
        newest_mtime: Latest change of any of them, seconds since 1970.
    """

    data: tuple[Path, ...]
    control: tuple[Path, ...]
    fingerprint: str
    newest_mtime: float


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


@dataclass(frozen=True)
class _Promise:
    crc32c: int | None
    size: int | None
    source: str


def find_delivery(feed: Feed, key: str, root: Path) -> Delivery | None:
    """Look for a partition's delivery in landing.

    Args:
        feed: The feed.
        key: Partition key.
        root: Folder where relative paths start.

    Returns:
        Its files, or None where there is none.

    Raises:
        DeliveryError: The key is not a valid one.
    """
    pattern = feed.pattern(check_key(key), root)
    folder = pattern.parent
    found = sorted(p for p in folder.glob(pattern.name) if p.is_file()) if folder.is_dir() else []
    data = tuple(p for p in found if not _is_control(p.name))
    if not data:
        return None
    sidecars = (p.with_name(p.name + SIDECAR_SUFFIX) for p in data)
    control = tuple(p for p in (*sidecars, folder / MANIFEST) if p.is_file())
    stats = [(p.name, p.stat()) for p in (*data, *control)]
    seen = json.dumps([(name, s.st_size, s.st_mtime_ns) for name, s in stats])
    newest = max(s.st_mtime for _, s in stats)
    return Delivery(data, control, hashlib.sha256(seen.encode()).hexdigest(), newest)


def find_keys(feed: Feed, root: Path) -> list[str]:
    """List the partition keys that have something in landing.

    Args:
        feed: The feed.
        root: Folder where relative paths start.

    Returns:
        The valid keys, sorted; a name that is no valid key is passed over.
    """
    anchor = feed.pattern("*", root)
    base, *rest = _split_at_wildcard(anchor)
    found = base.glob("/".join(rest)) if base.is_dir() else iter(())
    keys = {feed.key_of(path, root) for path in found if not _is_control(path.name)}
    return sorted(key for key in keys if key is not None)


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
    with recorded(connection, work, batch.batch_id, "ingest"):
        delivery = find_delivery(work.feed, work.key, work.settings.root)
        if delivery is None:
            pattern = work.feed.pattern(work.key, work.settings.root)
            message = f"{work.name}: there is no file {pattern}. Deliver it and run again."
            raise DeliveryError(message)
        promises = _read_promises(delivery)
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
    work: Work, batch_id: str, delivery: Delivery, promises: Mapping[str, _Promise]
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
        while chunk := reading.read(files.CHUNK_BYTES):
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


def _read_promises(delivery: Delivery) -> dict[str, _Promise]:
    """Read what the sender says of the files; a sidecar and a manifest must not contradict."""
    promises: dict[str, _Promise] = {}
    for path in delivery.control:
        if path.name == MANIFEST:
            promises |= _read_manifest(path, delivery.data)
    for path in delivery.control:
        if path.name == MANIFEST:
            continue
        name = path.name.removesuffix(SIDECAR_SUFFIX)
        words = path.read_text(encoding="utf-8", errors="replace").split()
        crc = _parse_crc(words[0] if words else "", str(path))
        other = promises.get(name)
        if other is not None and other.crc32c not in {None, crc}:
            message = f"{path}: contradicts {MANIFEST}. Deliver one of the two again."
            raise DeliveryError(message)
        promises[name] = _Promise(crc, other.size if other else None, "sidecar")
    return promises


def _read_manifest(path: Path, data: Sequence[Path]) -> dict[str, _Promise]:
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as lines:
        rows = csv.DictReader(lines)
        if rows.fieldnames is None or "file_name" not in rows.fieldnames:
            message = (
                f"{path}:1: expected a header with file_name and any of size (bytes), crc32c (hex); "
                "deliver the manifest again."
            )
            raise DeliveryError(message)
        promises = {}
        for row in rows:
            where = f"{path}:{rows.line_num}"
            crc, size = (row.get("crc32c") or "").strip(), (row.get("size") or "").strip()
            if size and not size.isdecimal():
                message = f"{where}: size must be a number of bytes. Deliver the manifest again."
                raise DeliveryError(message)
            promises[row["file_name"]] = _Promise(
                _parse_crc(crc, where) if crc else None, int(size) if size else None, "manifest"
            )
    present = {p.name for p in data}
    problems = [f"{name} is listed but was not delivered" for name in promises.keys() - present]
    problems += [f"{name} was delivered but is not listed" for name in present - promises.keys()]
    if problems:
        message = f"{path}: {'; '.join(sorted(problems))}. Deliver what is missing, or correct it."
        raise DeliveryError(message)
    return promises


def _parse_crc(text: str, where: str) -> int:
    digits = text.lower().removeprefix("0x")
    if len(digits) == 8 and set(digits) <= set("0123456789abcdef"):  # noqa: PLR2004  # 32 bits
        return int(digits, 16)
    message = f"{where}: expected a CRC32C as 8 hex digits. Deliver it again."
    raise DeliveryError(message)


def _identity(work: Work, staged: Sequence[ImportFile]) -> str:
    # File names are left out: the same bytes under a new name are the same delivery.
    content = sorted((file.target_table, file.sha256) for file in staged)
    key = work.key if work.feed.identity == "partition" else None
    text = json.dumps([work.feed.feed, work.feed.version, key, content])
    return hashlib.sha256(text.encode()).hexdigest()


def _is_control(name: str) -> bool:
    return name == MANIFEST or name.endswith(SIDECAR_SUFFIX)


def _split_at_wildcard(pattern: Path) -> tuple[Path, *tuple[str, ...]]:
    parts = pattern.parts
    first = next(i for i, part in enumerate(parts) if "*" in part)
    return (type(pattern)(*parts[:first]), *parts[first:])


def _clear(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
