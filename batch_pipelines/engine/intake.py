"""Intake: a delivery's files copied from landing into staging, with the checksums of what went by."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import TYPE_CHECKING

import crc32c

from batch_pipelines.engine.errors import DeliveryError
from batch_pipelines.engine.failpoints import failpoint
from batch_pipelines.engine.feeds import EVERY_TABLE
from batch_pipelines.engine.formats import COLUMNAR
from batch_pipelines.engine.ledger import files
from batch_pipelines.engine.ledger.files import UNREAD, Checksum, ImportFile
from batch_pipelines.engine.places.composite import CompositeCrc32c
from batch_pipelines.engine.places.place import Reading, changed_while_read
from batch_pipelines.engine.promises import OBJECT_METADATA, broken, promised_crc32c
from batch_pipelines.engine.reading.plain import COMPRESSIONS, only_member

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    from batch_pipelines.engine.landing.deliveries import Delivery
    from batch_pipelines.engine.places.place import LandedFile, Readable, StoredChecksum
    from batch_pipelines.engine.promises import Promise
    from batch_pipelines.engine.work import Work

FORMATS = {
    ".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet",
    ".arrow": "arrow", ".arrows": "arrow", ".feather": "arrow", ".orc": "orc",
}  # fmt: skip


def take_in(
    work: Work, batch_id: str, delivery: Delivery, promises: Mapping[str, Promise]
) -> tuple[list[ImportFile], list[Checksum]]:
    """Copy a delivery into staging, immutable.

    Args:
        work: The run's work.
        batch_id: The batch whose staging it goes to.
        delivery: The delivery.
        promises: What the sender says of its files.

    Returns:
        The files, and the checksums that were computed while they were copied.

    Raises:
        DeliveryError: The delivery is larger than the feed allows, a file changes while it is read, is
            wanted by no table, in no known format, called by what is no text, has another size than
            promised (unless the feed sets such files aside), or a table gets none.
    """
    size = sum(file.size for file in delivery.data)
    work.feed.limits.check(work.name, files=len(delivery.data), bytes=size)
    folder = work.staged_source(batch_id)
    shutil.rmtree(work.staging(batch_id), ignore_errors=True)
    folder.mkdir(parents=True)
    staged, checksums = [], []
    for file in delivery.data:
        _require_text(file.name)
        target = work.feed.target_of(file.name)
        promise = promises.get(file.name)
        copy = copy_staged(file, folder / file.name, promise.algorithms if promise else ())
        promised = promised_crc32c(file, promise, copy.stored)
        taken = ImportFile(
            file_name=file.name,
            target_table=target,
            size=copy.size,
            format=UNREAD,
            compression=None,
            crc32c=copy.crc32c,
            sha256=copy.digests["sha256"],
            expected_crc32c=promised.crc32c if promised else None,
            expected_source=promised.source if promised else None,
            expected_size=promise.size if promise else None,
            expected_digests=promise.digests if promise else {},
        )
        problems = [*broken(taken, size=copy.size, crc=copy.crc32c, digests=copy.digests)]
        problems += [seen.error_details for seen in copy.checksums if seen.error_details]
        if taken.expected_size not in {None, copy.size} and work.feed.on_bad_file == "fail":
            message = (
                f"{file}: {copy.size} bytes, but its manifest says {taken.expected_size}. "
                "Deliver the file, or its manifest, again."
            )
            raise DeliveryError(message)
        if work.feed.tables and (not problems or work.feed.on_bad_file == "fail"):
            file_format, compression = kind_of(file, folder / file.name)
            taken = replace(taken, format=file_format, compression=compression)
        if target == EVERY_TABLE and taken.format not in {"jsonl", UNREAD}:
            message = (
                f"{file}: the feed has a `table_field`, which only JSON lines have. "
                "Deliver *.jsonl, or give each table its `files:` pattern."
            )
            raise DeliveryError(message)
        whole, *parts = copy.checksums
        checksums += [replace(whole, entity_type=work.feed.entity_type), *parts]
        staged.append(replace(taken, problem="; ".join(problems) or None))
    filled = {file.target_table for file in staged}
    for table in work.feed.tables:
        if EVERY_TABLE not in filled and table.table not in filled:
            message = (
                f"{work.name}: the delivery has no file {table.files} for {table.table}. "
                "Deliver it too: what a delivery does not bring would be taken for removed."
            )
            raise DeliveryError(message)
    for file in delivery.control:
        copy_staged(file, folder / file.name)
    for file in delivery.tags:
        # Beside the payload, in which a file of the same name may be.
        copy_staged(file, folder / f"delivered-bag.{file.name}")
    sync_folder(folder)
    return staged, checksums


def _require_text(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        message = (
            f"{name!r}: the name of this file is not in UTF-8. Rename it, and deliver it again."
        )
        raise DeliveryError(message) from None


def kind_of(file: LandedFile, copy: Path) -> tuple[str, str | None]:
    """Tell format and compression by a file's suffixes; of `a.zip` by that of the file in it.

    Args:
        file: The file.
        copy: Its staged copy.

    Returns:
        A value of `FORMATS`, and one of `COMPRESSIONS` or None.

    Raises:
        DeliveryError: It is none that is known.
    """
    path = PurePath(file.name)
    compression = COMPRESSIONS.get(path.suffix.lower())
    name = PurePath(path.stem if compression else path.name)
    suffix = name.suffix.lower()
    if compression == "zip" and suffix not in FORMATS:
        suffix = PurePath(only_member(copy).filename).suffix.lower()
    if suffix not in FORMATS:
        texts = [each for each, kind in FORMATS.items() if kind not in COLUMNAR]
        message = (
            f"{file}: format {suffix!r} is not known; there are {', '.join(FORMATS)}, and "
            f"{', '.join(texts)} with {', '.join(COMPRESSIONS)} behind them."
        )
        raise DeliveryError(message)
    if compression and FORMATS[suffix] in COLUMNAR:
        kind = COLUMNAR[FORMATS[suffix]]
        message = f"{file}: {kind} is compressed inside. Deliver the file as it is."
        raise DeliveryError(message)
    return FORMATS[suffix], compression


@dataclass(frozen=True)
class StagedCopy:
    """What is known of a file that was copied into staging.

    Attributes:
        size: In bytes.
        crc32c: CRC32C of them.
        digests: Other digests of them, hex, by algorithm.
        checksums: All that was computed of them, the file's first.
        stored: What its place says of its checksum; compared already if it is one of parts.
    """

    size: int
    crc32c: int
    digests: Mapping[str, str]
    checksums: list[Checksum]
    stored: StoredChecksum | None


def copy_staged(file: LandedFile, target: Path, algorithms: Collection[str] = ()) -> StagedCopy:
    """Copy a file into staging.

    Args:
        file: The file.
        target: The copy, which is not there yet.
        algorithms: Digests that are wanted beside CRC32C and SHA-256.

    Returns:
        What is known of it.

    Raises:
        DeliveryError: It changes while it is read.
    """
    others = {name: hashlib.new(name) for name in algorithms if name != "sha256"}
    with file.open() as reading:
        stored = reading.stored
        composite = CompositeCrc32c(stored.parts if stored else ())
        watched = composite.watching(reading.read)
        # No further than the file went: a sender who goes on writing must not fill our disk.
        size, crc, sha256, found = write_staged(
            Reading(_hashing(watched, others.values())), target, most=file.size
        )
    if size != file.size:
        raise changed_while_read(file)
    if stored is not None and stored.parts:
        found.append(_compare_parts(file, composite.value(), stored, found[0].seconds))
    digests = {name: other.hexdigest() for name, other in others.items()}
    return StagedCopy(size, crc, {**digests, "sha256": sha256}, found, stored)


def _hashing(
    read: Callable[[int], bytes], hashers: Collection[hashlib._Hash]
) -> Callable[[int], bytes]:
    def piece(size: int) -> bytes:
        content = read(size)
        for hasher in hashers:
            hasher.update(content)
        return content

    return piece


def write_staged(
    reading: Readable, target: Path, *, most: int
) -> tuple[int, int, str, list[Checksum]]:
    """Write a staged file; size, CRC32C, SHA-256 and the checksums of chunks come from the same pass.

    Args:
        reading: What to write.
        target: The file, which is not there yet.
        most: Size in bytes, behind which no more is read.

    Returns:
        Its size in bytes, CRC32C, SHA-256, and all checksums, the file's first.
    """
    sha256 = hashlib.sha256()
    crc = size = 0
    chunks: list[Checksum] = []
    began = time.perf_counter()
    # SHA-256 takes as long as all the rest, and releases Python's lock.
    with target.open("xb") as writing, ThreadPoolExecutor(max_workers=1) as beside:
        while size <= most and (chunk := reading.read(files.CHUNK_BYTES)):
            started = time.perf_counter()
            hashed = beside.submit(sha256.update, chunk)
            crc = crc32c.crc32c(chunk, crc)
            own = crc32c.crc32c(chunk)
            writing.write(failpoint("ingest.copied", chunk))
            hashed.result()
            took = time.perf_counter() - started
            chunks.append(
                Checksum("chunk", files.chunk_id(target.name, size, len(chunk)), own, None, None,
                         len(chunk), took)
            )  # fmt: skip
            size += len(chunk)
        writing.flush()
        os.fsync(writing.fileno())
    target.chmod(0o444)
    whole = Checksum(
        "file", target.name, crc, None, None, size, max(time.perf_counter() - began, 1e-9)
    )
    # The one chunk of a small file would say the same thing twice.
    return size, crc, sha256.hexdigest(), [whole, *chunks] if len(chunks) > 1 else [whole]


def _compare_parts(
    file: LandedFile, computed: int, stored: StoredChecksum, seconds: float
) -> Checksum:
    problem = None
    if computed != stored.crc32c:
        problem = (
            f"{file.name}: composite CRC32C of its {len(stored.parts)} parts is {computed:08x}, but its "
            f"{OBJECT_METADATA} says {stored.crc32c:08x}"
        )
    return Checksum(
        files.COMPOSITE, file.name, computed, stored.crc32c, OBJECT_METADATA, file.size, seconds,
        problem,
    )  # fmt: skip


def sync_folder(folder: Path) -> None:
    """Make sure that the names of a folder's files outlast a crash of the machine."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
