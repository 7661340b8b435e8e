"""What was delivered, file by file, and every checksum computed of it."""

from __future__ import annotations

from dataclasses import astuple, dataclass, field
from dataclasses import replace as changed
from typing import TYPE_CHECKING, Final

import crc32c
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from batch_pipelines.engine.ledger import checksum_sums

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable, Mapping

    from batch_pipelines.engine.postgres.database import Connection

# One read, one checksum chunk: large enough that Python's cost per call vanishes, small enough that
# a damaged place is narrowed down to a few megabytes and memory stays flat.
CHUNK_BYTES = 4 * 1024 * 1024
COMPOSITE: Final = "composite"
"""Type of an entity whose checksum is made of those of a file's parts, as its store has them."""
UNREAD: Final = "unread"
"""Format of a file that nobody looks into: a bad one, or one of a feed without tables."""


@dataclass(frozen=True)
class ImportFile:
    """A staged file.

    Attributes:
        file_name: Its name, without folder.
        target_table: The table it fills, `*` where each of its lines says its own, or `none`.
        size: In bytes.
        format: `csv`, `tsv`, `jsonl`, `arrow`, `orc` or `parquet`; `unread` where nobody looks into it.
        compression: None where it is not compressed.
        crc32c: CRC32C of all its bytes, as they were copied.
        sha256: SHA-256 of them, hex.
        expected_crc32c: What the sender promised, or None.
        expected_source: Where that stood: `manifest`, `sidecar` or `object_metadata`.
        records: How many, counted without the loading parser; None until `checksum` has run.
        table_records: How many of each table, where each line says its own.
        expected_size: The size in bytes that the sender promised, or None.
        expected_digests: Other digests that the sender promised, hex: by source and algorithm.
        problem: What of it is not as its sender or its store says, or None.
        set_aside: Whether the batch goes on without it; then none of its rows is ever parsed.
    """

    file_name: str
    target_table: str
    size: int
    format: str
    compression: str | None
    crc32c: int
    sha256: str
    expected_crc32c: int | None
    expected_source: str | None
    records: int | None = None
    table_records: dict[str, int] | None = None
    expected_size: int | None = None
    expected_digests: dict[str, dict[str, str]] = field(default_factory=dict)
    problem: str | None = None
    set_aside: bool = False

    @property
    def place_in_bag(self) -> str:
        """Where a bag has it, from its folder of data, before it is packed."""
        return f"{'quarantine/files' if self.set_aside else 'source'}/{self.file_name}"

    def of_table(self, table: str) -> ImportFile | None:
        """Give what the file brings for a table.

        Args:
            table: The table's name with schema.

        Returns:
            The file, with the number of the table's records; None where it does not fill the table,
            or nothing since it was set aside.
        """
        if self.set_aside:
            return None
        if self.target_table == table:
            return self
        if self.target_table != "*":
            return None
        records = None if self.table_records is None else self.table_records.get(table, 0)
        return changed(self, target_table=table, records=records)


@dataclass(frozen=True)
class Digest:
    """A digest of a file other than its CRC32C, held against what was promised.

    Attributes:
        algorithm: As hashlib names it, e.g. `sha256`.
        computed: Hex digits.
        expected: Hex digits.
    """

    algorithm: str
    computed: str
    expected: str


@dataclass(frozen=True)
class Checksum:
    """A row of `crc32_audit`.

    Attributes:
        entity_type: `file`, or what the feed calls its files; `chunk` or `composite`.
        entity_id: File name; for a chunk with `@first-last` byte behind it.
        computed: CRC32C that was computed.
        expected: What it should be, None where there was nothing to compare with.
        expected_source: `manifest`, `sidecar`, `object_metadata`, `ingest`, or None.
        bytes_processed: Size in bytes.
        seconds: Time it took to read and compute.
        error_details: What is wrong, None where nothing is.
        digest: The digest that was compared beside it, or None.
    """

    entity_type: str
    entity_id: str
    computed: int
    expected: int | None
    expected_source: str | None
    bytes_processed: int
    seconds: float
    error_details: str | None = None
    digest: Digest | None = None

    @property
    def status(self) -> str:
        """`valid`, `invalid`, or `recorded` where there was nothing to compare with."""
        if self.error_details is not None or self.expected not in {None, self.computed}:
            return "invalid"
        return "recorded" if self.expected is None and self.digest is None else "valid"

    @property
    def question(self) -> tuple[str, str, str | None, str | None]:
        """What was asked: equal for a later try of the same."""
        algorithm = None if self.digest is None else self.digest.algorithm
        return self.entity_type, self.entity_id, self.expected_source, algorithm


@dataclass(frozen=True)
class ChecksumRecord:
    """What the ledger keeps of a checksum, for people to look at."""

    entity_type: str
    entity_id: str
    computed_crc32: int
    expected_crc32: int | None
    expected_source: str | None
    status: str
    bytes_processed: int
    throughput_mbps: float | None
    error_details: str | None
    created_at: dt.datetime
    retry_count: int
    digest_algorithm: str | None
    computed_digest: str | None
    expected_digest: str | None


_FORGET = "DELETE FROM batch_audit.import_file WHERE batch_id = %s"
_ADD = """
INSERT INTO batch_audit.import_file (batch_id, file_name, target_table, size, format, compression,
    crc32c, sha256, expected_crc32c, expected_source, records, expected_size, expected_digests,
    problem)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""
_FILES = """
SELECT file_name, target_table, size, format, compression, crc32c, sha256, expected_crc32c,
       expected_source, records, table_records, expected_size, expected_digests, problem, set_aside
FROM batch_audit.import_file WHERE batch_id = %s ORDER BY file_name
"""
_COUNTED = """
UPDATE batch_audit.import_file SET records = %s, table_records = %s
WHERE batch_id = %s AND file_name = %s
"""
_JUDGED = """
UPDATE batch_audit.import_file SET problem = %s, set_aside = %s
WHERE batch_id = %s AND file_name = %s
"""
_AUDIT = """
INSERT INTO batch_audit.crc32_audit (batch_id, entity_type, entity_id, computed_crc32,
    expected_crc32, expected_source, status, bytes_processed, processing_time_ms, throughput_mbps,
    hardware_utilized, simd_instructions, error_details, retry_count, digest_algorithm,
    computed_digest, expected_digest)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""
_TRIES = """
SELECT entity_type, entity_id, expected_source, digest_algorithm, max(retry_count) + 1
FROM batch_audit.crc32_audit WHERE batch_id = %s AND entity_type <> 'row' GROUP BY 1, 2, 3, 4
"""
_CHECKSUMS = """
SELECT entity_type, entity_id, computed_crc32, expected_crc32, expected_source, status,
       bytes_processed, throughput_mbps, error_details, created_at, retry_count, digest_algorithm,
       computed_digest, expected_digest
FROM batch_audit.crc32_audit WHERE batch_id = %s AND entity_type <> 'row' ORDER BY created_at, id
"""


def chunk_id(file_name: str, offset: int, length: int) -> str:
    """Name a chunk of a file in the audit trail.

    Args:
        file_name: Name of the file.
        offset: Where the chunk begins, in bytes.
        length: Its size in bytes.

    Returns:
        `name@first-last`, the places of its first and last byte.
    """
    return f"{file_name}@{offset}-{offset + length - 1}"


def replace(connection: Connection, batch_id: str, files: Iterable[ImportFile]) -> None:
    """Write down the files of a batch, in place of what an earlier try of ingest left."""
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute(_FORGET, (batch_id,))
        rows = [
            (batch_id, f.file_name, f.target_table, f.size, f.format, f.compression, f.crc32c,
             f.sha256, f.expected_crc32c, f.expected_source, f.records, f.expected_size,
             Jsonb(f.expected_digests), f.problem)
            for f in files
        ]  # fmt: skip
        cursor.executemany(_ADD, rows)


def of_batch(connection: Connection, batch_id: str) -> list[ImportFile]:
    """Read the files of a batch, by name."""
    with connection.cursor(row_factory=class_row(ImportFile)) as cursor:
        return cursor.execute(_FILES, (batch_id,)).fetchall()


def record_records(
    connection: Connection,
    batch_id: str,
    counts: Mapping[str, int],
    by_table: Mapping[str, Mapping[str, int]],
) -> None:
    """Keep how many records each file has, and of each table where its lines say their own."""
    rows = [
        (n, Jsonb({**by_table[name]}) if name in by_table else None, batch_id, name)
        for name, n in counts.items()
    ]
    with connection.cursor() as cursor:
        cursor.executemany(_COUNTED, rows)


def record_judgement(
    connection: Connection, batch_id: str, problems: Mapping[str, str | None]
) -> None:
    """Keep what of each file is not as promised; the batch goes on without those."""
    rows = [(why, why is not None, batch_id, name) for name, why in problems.items()]
    with connection.cursor() as cursor:
        cursor.executemany(_JUDGED, rows)


def audit(connection: Connection, batch_id: str, checksums: Iterable[Checksum]) -> None:
    """Append checksums to the audit trail; what was asked before is a retry, and counted as one.

    `hardware_utilized` is what the crc32c package says of this processor. `simd_instructions` is
    derived: one CRC32 instruction of SSE 4.2 or ARMv8 takes 8 bytes.
    """
    hardware = bool(crc32c.hardware_based)
    asked = connection.execute(_TRIES, (batch_id,)).fetchall()
    tries = {tuple(question): int(count) for *question, count in asked}
    rows = [
        (
            batch_id,
            c.entity_type,
            c.entity_id,
            c.computed,
            c.expected,
            c.expected_source,
            c.status,
            c.bytes_processed,
            c.seconds * 1e3,
            c.bytes_processed / 1e6 / c.seconds if c.seconds > 0 else None,
            hardware,
            -(-c.bytes_processed // 8) if hardware else None,
            c.error_details,
            tries.get(c.question, 0),
            *((None, None, None) if c.digest is None else astuple(c.digest)),
        )
        for c in checksums
    ]
    with connection.transaction(), connection.cursor() as cursor:
        cursor.executemany(_AUDIT, rows)
        checksum_sums.refresh(connection, batch_id)


def checksums(connection: Connection, batch_id: str) -> list[ChecksumRecord]:
    """Read the checksums of a batch's files and chunks, oldest first; not those of its rows."""
    with connection.cursor(row_factory=class_row(ChecksumRecord)) as cursor:
        return cursor.execute(_CHECKSUMS, (batch_id,)).fetchall()
