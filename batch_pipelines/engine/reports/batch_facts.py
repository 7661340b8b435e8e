"""What the ledger knows of a batch, read in one snapshot: the model of its report, and its JSON.

Whatever the ledger has a reader for is read by that; here is what only a report asks for. No key and no
value of a row is taken: rows are told of by file and record.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, LiteralString, TypeVar

from psycopg.rows import class_row

from batch_pipelines.engine.audit import anchors
from batch_pipelines.engine.ledger import (
    archives,
    batches,
    columns,
    critical,
    files,
    proofs,
    rejects,
    rollbacks,
    signatures,
    staged_tables,
    stages,
    verifications,
)
from batch_pipelines.engine.reports.trends import RecentBatch, recent_batches

if TYPE_CHECKING:
    import datetime as dt

    from batch_pipelines.engine.audit.anchors import Anchor
    from batch_pipelines.engine.fidelity import ColumnFidelity
    from batch_pipelines.engine.ledger.archives import ArchiveRecord
    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.ledger.critical import CriticalCount
    from batch_pipelines.engine.ledger.files import ChecksumRecord, ImportFile
    from batch_pipelines.engine.ledger.proofs import Check, Signature, TableBalance
    from batch_pipelines.engine.ledger.rejects import RejectCount
    from batch_pipelines.engine.ledger.rollbacks import TableRollback
    from batch_pipelines.engine.ledger.signatures import SignatureEvent
    from batch_pipelines.engine.ledger.stages import StageRecord
    from batch_pipelines.engine.ledger.verifications import Difference, TableVerification
    from batch_pipelines.engine.postgres.database import Connection

RECENT = 20
"""Batches of a feed that are compared in a picture."""

_T = TypeVar("_T")
_SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"
_RUNS = """
SELECT run_id::text, attached_at FROM batch_audit.batch_run WHERE batch_id = %s
ORDER BY attached_at, run_id
"""
_VOLUME = """
SELECT source_bytes, wal_bytes FROM batch_audit.import_history WHERE batch_id = %s
"""
# Each kind of question apart: a file is read by several of them.
_CHECKSUM_COUNTS = """
SELECT entity_type, coalesce(expected_source, 'nothing') AS compared_with, count(*) AS checksums,
       count(*) FILTER (WHERE status = 'valid') AS valid,
       count(*) FILTER (WHERE status = 'invalid') AS invalid,
       count(*) FILTER (WHERE status = 'recorded') AS recorded,
       sum(bytes_processed)::bigint AS bytes, sum(processing_time_ms) / 1e3 AS seconds
FROM batch_audit.crc32_audit WHERE batch_id = %s GROUP BY 1, 2 ORDER BY 1, 2
"""
# Of chunks and rows there may be millions: those alone that are not what they should be.
_CHECKSUMS = """
SELECT entity_type, entity_id, computed_crc32, expected_crc32, expected_source, status,
       bytes_processed, throughput_mbps, error_details, created_at, retry_count, digest_algorithm,
       computed_digest, expected_digest
FROM batch_audit.crc32_audit
WHERE batch_id = %s AND (entity_type NOT IN ('chunk', 'row') OR status = 'invalid')
ORDER BY status <> 'invalid', created_at, id
"""
_VALIDATIONS = """
SELECT target_table, status, started_at, completed_at, exception
FROM batch_audit.validation_log WHERE batch_id = %s ORDER BY id
"""
_ALERTS = """
SELECT alert_id, kind, severity, subject, raised_at, escalated_at, acknowledged_at, acknowledged_by,
       acknowledgement_note, resolved_at,
       ARRAY(SELECT format('%%s: %%s', d.channel, d.status) FROM batch_audit.alert_delivery AS d
             WHERE d.alert_id = a.alert_id ORDER BY d.escalation, d.channel) AS deliveries
FROM batch_audit.alert_told AS a WHERE batch_id = %s ORDER BY raised_at, alert_id
"""
_EVENTS = """
SELECT seq, encode(hash, 'hex') AS hash, created_at, principal_id, action, status, details
FROM batch_audit.audit_event WHERE resource_id = %s AND resource_type = 'batch' ORDER BY seq
"""


@dataclass(frozen=True)
class RunRecord:
    """A run that worked on the batch, and since when."""

    run_id: str
    attached_at: dt.datetime


@dataclass(frozen=True)
class Volume:
    """How much was read, and how much write-ahead log the publish took; in bytes."""

    source_bytes: int | None
    wal_bytes: int | None


@dataclass(frozen=True)
class ChecksumCount:
    """How many checksums of a kind were computed, chunks and rows among them, and what came of them."""

    entity_type: str
    compared_with: str
    checksums: int
    valid: int
    invalid: int
    recorded: int
    bytes: int
    seconds: float


@dataclass(frozen=True)
class ValidationTry:
    """A time that a table was validated."""

    target_table: str
    status: str
    started_at: dt.datetime
    completed_at: dt.datetime | None
    exception: str | None


@dataclass(frozen=True)
class DifferingRow:
    """A row that differs from its source, by its place; its key is left out."""

    kind: str
    file_name: str | None
    record: int | None
    columns: list[str] | None


@dataclass(frozen=True)
class Validated:
    """What validation found last in a table; extras to matches are None where rows were not compared."""

    target_table: str
    status: str
    src_records: int
    tgt_records: int
    src_extras: int | None
    tgt_extras: int | None
    mismatches: int | None
    matches: int | None
    checks: tuple[Check, ...]
    differing: tuple[DifferingRow, ...]


@dataclass(frozen=True)
class Verified:
    """What was found when the batch was last proven again in a table."""

    target_table: str
    status: str
    started_at: dt.datetime
    expected_rows: int | None
    actual_rows: int | None
    replaced: int | None
    changed: int | None
    missing: int | None
    added: int | None
    duplicated: int | None
    not_covered: tuple[str, ...]
    exception: str | None
    differing: tuple[DifferingRow, ...]


@dataclass(frozen=True)
class AlertLine:
    """An alert about the batch; its details, which may name rows, are left out."""

    alert_id: int
    kind: str
    severity: str
    subject: str
    raised_at: dt.datetime
    escalated_at: dt.datetime | None
    acknowledged_at: dt.datetime | None
    acknowledged_by: str | None
    acknowledgement_note: str | None
    resolved_at: dt.datetime | None
    deliveries: list[str]

    @property
    def is_open(self) -> bool:
        """Whether somebody should still look at it."""
        return self.severity != "info" and not (self.acknowledged_at or self.resolved_at)


@dataclass(frozen=True)
class EventLine:
    """An entry of the audit trail about the batch, with its number in the chain and its SHA-256."""

    seq: int
    hash: str
    created_at: dt.datetime
    principal_id: str
    action: str
    status: str
    details: dict[str, object]


@dataclass(frozen=True)
class BatchFacts:
    """All that is reported of a batch.

    `waiting` is how many rows wait for validation in each table. `checksums` are those of files, and of
    chunks and rows the invalid ones. `chain_end` is the end of the whole audit trail. `recent` are the
    feed's batches up to this one.
    """

    made_at: dt.datetime
    made_by: str
    batch: Batch
    duplicate_of: Batch | None
    last_attempt: Batch | None
    runs: tuple[RunRecord, ...]
    stages: tuple[StageRecord, ...]
    volume: Volume
    files: tuple[ImportFile, ...]
    checksum_counts: tuple[ChecksumCount, ...]
    checksums: tuple[ChecksumRecord, ...]
    tables: tuple[TableBalance, ...]
    waiting: dict[str, int]
    signatures: tuple[Signature, ...]
    signature_events: tuple[SignatureEvent, ...]
    columns: dict[str, tuple[ColumnFidelity, ...]]
    rejects: tuple[RejectCount, ...]
    critical: tuple[CriticalCount, ...]
    validation_tries: tuple[ValidationTry, ...]
    validations: tuple[Validated, ...]
    verifications: tuple[Verified, ...]
    alerts: tuple[AlertLine, ...]
    archives: tuple[ArchiveRecord, ...]
    rollback: tuple[TableRollback, ...]
    events: tuple[EventLine, ...]
    chain_end: Anchor
    recent: tuple[RecentBatch, ...]


def read_batch(
    connection: Connection, batch_id: str, *, made_at: dt.datetime, made_by: str
) -> BatchFacts:
    """Read what is known of a batch, all of it as of one moment.

    Args:
        connection: A connection in autocommit mode.
        batch_id: The batch.
        made_at: Now.
        made_by: The program, with its version.

    Returns:
        The facts.

    Raises:
        FeedError: There is no such batch.
    """
    with connection.transaction():
        connection.execute(_SNAPSHOT)
        batch = batches.by_id(connection, batch_id)
        (volume,) = _read(connection, Volume, _VOLUME, batch_id)
        return BatchFacts(
            made_at=made_at,
            made_by=made_by,
            batch=batch,
            duplicate_of=None
            if batch.duplicate_of is None
            else batches.by_id(connection, batch.duplicate_of),
            last_attempt=batches.last_attempt(connection, batch.feed, batch.partition_key),
            runs=_read(connection, RunRecord, _RUNS, batch_id),
            stages=tuple(stages.of_batch(connection, batch_id).values()),
            volume=volume,
            files=tuple(files.of_batch(connection, batch_id)),
            checksum_counts=_read(connection, ChecksumCount, _CHECKSUM_COUNTS, batch_id),
            checksums=_read(connection, files.ChecksumRecord, _CHECKSUMS, batch_id),
            tables=tuple(proofs.tables(connection, batch_id)),
            waiting={
                each.target_table: each.digest.rows
                for each in staged_tables.of_batch(connection, batch_id)
            },
            signatures=tuple(proofs.signatures(connection, batch_id)),
            signature_events=tuple(signatures.events(connection, batch_id)),
            columns=columns.of_batch(connection, batch_id),
            rejects=tuple(rejects.summary(connection, batch_id)),
            critical=tuple(critical.of_batch(connection, batch_id)),
            validation_tries=_read(connection, ValidationTry, _VALIDATIONS, batch_id),
            validations=tuple(validated(each) for each in proofs.validations(connection, batch_id)),
            verifications=tuple(
                _verified(each) for each in verifications.newest(connection, batch_id)
            ),
            alerts=_read(connection, AlertLine, _ALERTS, batch_id),
            archives=tuple(archives.of_batch(connection, batch_id)),
            rollback=tuple(rollbacks.of_batch(connection, batch_id)),
            events=_read(connection, EventLine, _EVENTS, batch_id),
            chain_end=anchors.head(connection),
            recent=recent_batches(connection, batch.feed, batch.started_at, RECENT),
        )


def validated(found: proofs.TableValidation) -> Validated:
    """Take what a report tells of a validation.

    Args:
        found: As the ledger has it.

    Returns:
        The same without keys of rows.
    """
    rows = found.rows
    return Validated(
        target_table=found.target_table,
        status=found.status,
        src_records=found.src_records,
        tgt_records=found.tgt_records,
        src_extras=None if rows is None else rows.src_extras,
        tgt_extras=None if rows is None else rows.tgt_extras,
        mismatches=None if rows is None else rows.mismatches,
        matches=None if rows is None else rows.matches,
        checks=found.checks,
        differing=() if rows is None else _places(rows.details),
    )


def _verified(found: TableVerification) -> Verified:
    return Verified(
        found.target_table, found.status, found.started_at, found.expected_rows, found.actual_rows,
        found.replaced, found.changed, found.missing, found.added, found.duplicated,
        tuple(found.not_covered), found.exception, _places(found.details),
    )  # fmt: skip


def _places(details: list[Difference]) -> tuple[DifferingRow, ...]:
    return tuple(DifferingRow(d.kind, d.file_name, d.record, d.columns) for d in details)


def _read(
    connection: Connection, kind: type[_T], query: LiteralString, batch_id: str
) -> tuple[_T, ...]:
    with connection.cursor(row_factory=class_row(kind)) as cursor:
        return tuple(cursor.execute(query, (batch_id,)).fetchall())
