"""Taking a query's rows into staging: immutable Parquet files, each with the checksums of its bytes.

The same rows make the same bytes, so that the same content is known again by its SHA-256.
"""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.parquet as pq

from batch_pipelines.engine.errors import DeliveryError
from batch_pipelines.engine.failpoints import failpoint
from batch_pipelines.engine.intake import sync_folder, write_staged
from batch_pipelines.engine.ledger.files import ImportFile
from batch_pipelines.engine.places.place import nobody
from batch_pipelines.engine.querying.connecting import open_snapshot
from batch_pipelines.engine.querying.ranges import read_ranges
from batch_pipelines.engine.querying.statements import statements_of
from batch_pipelines.engine.querying.waiting import fingerprint
from batch_pipelines.engine.reading.footers import parquet_records

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from batch_pipelines.engine.ledger.files import Checksum
    from batch_pipelines.engine.queries import Query
    from batch_pipelines.engine.querying.connecting import Snapshot
    from batch_pipelines.engine.querying.ranges import Range
    from batch_pipelines.engine.querying.statements import Statements
    from batch_pipelines.engine.work import Work

ACCOUNT: Final = "query.json"
"""File beside the staged ones that says what was asked, and which rows each of them holds."""
# Archiving packs the files again; this keeps staging small at hardly a cost.
_COMPRESSION: Final = {"compression": "zstd", "compression_level": 1}


def take_query(
    work: Work, batch_id: str, query: Query, seen: Callable[[str], object] = nobody
) -> tuple[list[ImportFile], list[Checksum], str]:
    """Read a query into staging, all of it in one snapshot.

    Args:
        work: The run's work.
        batch_id: The batch whose staging it goes to.
        query: The feed's query.
        seen: Is told the fingerprint of the partition's rows before they are read.

    Returns:
        The files, the checksums of what was written, and the fingerprint of the partition's rows.

    Raises:
        DeliveryError: The database refuses the query, rows have no key or share one, there are none for
            the partition or more than the feed allows, or a column cannot be kept exactly.
        FeedError: A column has no name of its own, or a key column is not there.
        SettingsError: The variable with the URL is not set, or the URL cannot be used.
        UnreachableError: The database does not answer.
    """
    shutil.rmtree(work.staging(batch_id), ignore_errors=True)
    folder = work.staged_source(batch_id)
    folder.mkdir(parents=True)
    with open_snapshot(query) as snapshot:
        mark = fingerprint(snapshot, query, work.key)
        seen(mark)
        statements = statements_of(snapshot, query, work.key)
        total = _total(work, query, statements)
        staged, checksums, ranges = [], [], []
        for part in read_ranges(statements, query.rows):
            file, computed = _stage(work, folder, part)
            staged.append(file)
            checksums += computed
            ranges.append(
                {
                    "file": file.file_name,
                    "first": part.first,
                    "last": part.last,
                    "counted": part.counted,
                }
            )
            work.feed.limits.check(work.name, files=len(staged), bytes=sum(f.size for f in staged))
            work.progress("ingest", part.last, total)
        read = sum(file.records or 0 for file in staged)
        if read != total:
            message = (
                f"{work.name}: the database of {query.url_variable} counts {total} rows, of which its "
                f"ranges hold {read}. Name columns as `key` that it orders as it compares them."
            )
            raise DeliveryError(message)
        _write_account(folder / ACCOUNT, query, work.key, snapshot, ranges)
    sync_folder(folder)
    return staged, checksums, mark


def _total(work: Work, query: Query, statements: Statements) -> int:
    total, without_key = statements.totals()
    key = ", ".join(query.key)
    if without_key:
        message = (
            f"{work.name}: {without_key} of {total} rows have no value in the key ({key}), and a range "
            "would pass over them. Leave them out in the SELECT, or name other columns as `key`."
        )
        raise DeliveryError(message)
    if not total and query.is_partitioned:
        message = (
            f"{work.name}: the query has no row for this partition. Check the key; a delivery "
            "without rows would take away all rows of an earlier one."
        )
        raise DeliveryError(message)
    work.feed.limits.check(work.name, records=total)
    return total


def _stage(work: Work, folder: Path, part: Range) -> tuple[ImportFile, list[Checksum]]:
    """Write a range; its name says which of all rows it holds, and nothing that is in them."""
    path = folder / f"rows-{part.first:012}-{part.last:012}.parquet"
    sink = pa.BufferOutputStream()
    pq.write_table(failpoint("ingest.range", part.rows), sink, **_COMPRESSION)
    written = sink.getvalue()
    size, crc, sha256, checksums = write_staged(pa.BufferReader(written), path, most=written.size)
    records = parquet_records(path)
    if records != part.counted:
        message = (
            f"{work.name}: {path.name} holds {records} rows, but the database counts {part.counted} in "
            "its range. Run again, and report it as a defect if it stays."
        )
        raise DeliveryError(message)
    file = ImportFile(
        file_name=path.name,
        target_table=work.feed.target_of(path.name),
        size=size,
        format="parquet",
        compression=None,
        crc32c=crc,
        sha256=sha256,
        expected_crc32c=None,
        expected_source=None,
        records=records,
    )
    return file, checksums


def _write_account(
    path: Path, query: Query, key: str, snapshot: Snapshot, ranges: list[dict[str, object]]
) -> None:
    account = {
        **query.model_dump(),
        "batch": key,
        "database": snapshot.server,
        "isolation": snapshot.isolation,
        "ranges": ranges,
    }
    with path.open("x", encoding="utf-8") as writing:
        json.dump(account, writing, indent=1)
        writing.flush()
        os.fsync(writing.fileno())
    path.chmod(0o444)
