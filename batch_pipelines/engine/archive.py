"""Archive: put a validated batch away in a bag, read the bag back, then clear staging.

A bag (BagIt, RFC 8493) holds the source files compressed with zstd, the rejects, the row digests and an
extract of the ledger. It is written under a temporary name, synced, read back and compared with the
ledger, and only then renamed: a half-written bag is never taken for a whole one.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import json
import os
import shutil
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import zstandard

from batch_pipelines.engine.errors import ArchiveError
from batch_pipelines.engine.failpoints import failpoint
from batch_pipelines.engine.ledger import batches, columns, files, proofs, rejects, signatures
from batch_pipelines.engine.ledger.proofs import ArchiveRecord
from batch_pipelines.engine.ledger.reject_files import same_rejects, write_parquet
from batch_pipelines.engine.reading.prefetch import prefetched
from batch_pipelines.engine.unfinished import clear_staging
from batch_pipelines.engine.work import batch_for, recorded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.ledger.files import ImportFile
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.work import Work

# Of flights.csv it takes four fifths of the time of zstd's default, 3, for bags 2 % larger.
_LEVEL = 2
_REJECTS = Path("quarantine", "rejects.parquet")
_READ_BYTES = 1024 * 1024
_CR, _LF = "\r", "\n"


@dataclass(frozen=True)
class ArchiveResult:
    """What archive did.

    Attributes:
        batch: The batch.
        worked: False where it was archived already.
        archive: Where its bag stands; None for a batch that has none (a duplicate).
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
        ArchiveError: A staged file is gone, or the bag did not read back equal; staging is kept.
        StageOrderError: There is no validated batch.
    """
    batch, to_do = batch_for(connection, work, "archive")
    began = time.perf_counter()
    if to_do:
        with recorded(connection, work, batch.batch_id, "archive"):
            record = _archive(connection, work, batch)
            proofs.record_archive(connection, batch.batch_id, record)
    clear_staging(connection, work.settings, work.feed.feed, work.key)
    return ArchiveResult(
        batch,
        to_do,
        proofs.archive(connection, batch.batch_id),
        time.perf_counter() - began,
    )


def _archive(connection: Connection, work: Work, batch: Batch) -> ArchiveRecord:
    folder = work.settings.archive / batch.feed / batch.partition_key
    # A bag is never changed: what a replay has loaded since goes into another one.
    replays = len(rejects.replays(connection, batch.batch_id))
    bag = folder / (f"{batch.batch_id}.replay-{replays}" if replays else batch.batch_id)
    # A run that hangs here may wake up while the one that took over writes its own.
    unfinished = folder / f".{batch.batch_id}.{work.lease.token}.unfinished"
    staged = files.of_batch(connection, batch.batch_id)
    for leftover in folder.glob(f".{batch.batch_id}.*"):
        shutil.rmtree(leftover, ignore_errors=True)
    if not bag.exists():
        (unfinished / "data").mkdir(parents=True)
        _fill(connection, work, batch, unfinished / "data")
        _write_tags(batch, unfinished)
        failpoint("archive.written", unfinished)
        _read_back(connection, batch, unfinished, staged)
        _sync(unfinished)
        with connection.transaction():
            work.lease.hold(connection)
            unfinished.rename(bag)
        _sync_folder(folder)
    # Read under its last name too where an earlier try left it there: it may be years old.
    else:
        _read_back(connection, batch, bag, staged)
    payload = [path for path in (bag / "data").rglob("*") if path.is_file()]
    return ArchiveRecord(
        bag_path=str(bag),
        payload_files=len(payload),
        payload_bytes=sum(path.stat().st_size for path in payload),
        tagmanifest_sha256=hashlib.sha256(
            (bag / "tagmanifest-sha256.txt").read_bytes()
        ).hexdigest(),
        verified_at=dt.datetime.now(dt.UTC),
    )


def _fill(connection: Connection, work: Work, batch: Batch, folder: Path) -> None:
    digests = folder / "row_digests"
    places = {
        file.file_name: file.place_in_bag for file in files.of_batch(connection, batch.batch_id)
    }
    compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True)
    origin = work.staged_source(batch.batch_id)
    if not origin.is_dir():
        message = (
            f"{batch.name}: its staged files are gone, so it cannot be archived. "
            f"Import the partition again with --force."
        )
        raise ArchiveError(message)
    for path in sorted(origin.iterdir()):
        # What is no data file is the sender's word on them.
        packed = folder / places.get(path.name, f"source/{path.name}.zst")
        packed.parent.mkdir(parents=True, exist_ok=True)
        with path.open("rb") as reading, packed.open("wb") as writing:
            compressor.copy_stream(reading, writing, size=path.stat().st_size)
    shutil.copytree(work.staged_digests(batch.batch_id), digests)
    if rejects.has_any(connection, batch.batch_id):
        quarantine = folder / _REJECTS.parent
        quarantine.mkdir(exist_ok=True)
        write_parquet(connection, batch.batch_id, folder / _REJECTS)
    ledger = folder / "ledger"
    ledger.mkdir()
    for name, content in _extract(connection, batch).items():
        text = json.dumps(content, default=str, indent=1, sort_keys=True)
        (ledger / f"{name}.json").write_text(text, encoding="utf-8")


def _extract(connection: Connection, batch: Batch) -> dict[str, object]:
    """Take what the ledger says of a batch, as plain values."""

    def plain(records: Sequence[object]) -> list[object]:
        return [dataclasses.asdict(record) for record in records]  # type: ignore[call-overload]

    batch_id = batch.batch_id
    return {
        "import_history": dataclasses.asdict(batches.by_id(connection, batch_id)),
        "batch_run": batches.runs(connection, batch_id),
        "batch_stage": plain([*batches.stages(connection, batch_id).values()]),
        "import_file": plain(files.of_batch(connection, batch_id)),
        "crc32_audit": plain(files.checksums(connection, batch_id)),
        "batch_table": plain(proofs.tables(connection, batch_id)),
        "batch_column": {
            table: plain(own) for table, own in columns.of_batch(connection, batch_id).items()
        },
        "signature_event": plain(signatures.events(connection, batch_id)),
        "import_reject_summary": plain(rejects.summary(connection, batch_id)),
        "validation_summary": plain(proofs.validations(connection, batch_id)),
    }


def _write_tags(batch: Batch, folder: Path) -> None:
    """Write the tag files of a bag whose payload is complete.

    Not with `bagit.make_bag`: it changes the process's working folder, and where two threads archive
    at once, it moves that folder's files into a bag.
    """
    payload = sorted(path for path in (folder / "data").rglob("*") if path.is_file())
    size = sum(path.stat().st_size for path in payload)
    info = {
        "Bagging-Date": dt.datetime.now(dt.UTC).date().isoformat(),
        "External-Description": f"Import batch {batch.name}, attempt {batch.attempt}",
        "External-Identifier": batch.batch_id,
        "Payload-Oxum": f"{size}.{len(payload)}",
        "Source-Organization": "batch-pipelines",
    }
    tags = {
        "bagit.txt": "BagIt-Version: 0.97\nTag-File-Character-Encoding: UTF-8\n",
        "bag-info.txt": "".join(f"{name}: {value}\n" for name, value in info.items()),
        "manifest-sha256.txt": _manifest(folder, payload),
    }
    for name, text in tags.items():
        (folder / name).write_text(text, encoding="utf-8")
    manifest = _manifest(folder, [folder / name for name in tags])
    (folder / "tagmanifest-sha256.txt").write_text(manifest, encoding="utf-8")


def _manifest(folder: Path, paths: Sequence[Path]) -> str:
    lines = []
    for path in paths:
        with path.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        name = path.relative_to(folder).as_posix()
        lines.append(f"{digest}  {name.replace(_CR, '%0D').replace(_LF, '%0A')}\n")
    return "".join(lines)


def _read_back(
    connection: Connection, batch: Batch, folder: Path, staged: Sequence[ImportFile]
) -> None:
    """Validate the bag as any BagIt tool would, its source files and rejects against the ledger."""
    import bagit  # noqa: PLC0415  # a tenth of a second to import, which only this stage needs

    try:
        bagit.Bag(str(folder)).validate(processes=1)
    except bagit.BagError as error:
        kind = type(error).__name__
        message = f"{folder}: the bag did not read back ({kind}). Remove it and run again."
        raise ArchiveError(message) from None
    for file in staged:
        digest = hashlib.sha256()
        path = folder / "data" / file.place_in_bag
        try:
            with path.open("rb") as packed:
                pieces = zstandard.ZstdDecompressor().read_to_iter(packed, _READ_BYTES)
                with closing(prefetched(pieces)) as ahead:
                    for piece in ahead:
                        digest.update(piece)
        except (zstandard.ZstdError, OSError):
            digest = hashlib.sha256()
        if digest.hexdigest() != file.sha256:
            message = f"{path}: does not unpack to what was loaded. Remove the bag and run again."
            raise ArchiveError(message)
    kept = folder / "data" / _REJECTS
    if not same_rejects(connection, batch.batch_id, kept):
        message = f"{kept}: does not hold the rejects of the ledger. Remove the bag and run again."
        raise ArchiveError(message)


def _sync(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir():
            _sync_folder(path)
        else:
            with path.open("rb") as handle:
                os.fsync(handle.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
