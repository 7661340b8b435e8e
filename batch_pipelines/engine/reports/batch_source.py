"""What a batch was made of: files and checksums, columns, records set aside, critical rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batch_pipelines.engine.reports.figures import rate, said
from batch_pipelines.engine.reports.page import Column, Section, Table

if TYPE_CHECKING:
    from batch_pipelines.engine.ledger.files import ChecksumRecord
    from batch_pipelines.engine.reports.batch_facts import BatchFacts


_MEGABYTE = 1e6


def files(facts: BatchFacts) -> Section:
    """Lay out what was received, and every checksum that was compared."""
    listed = Table(
        "files", "Files as they were received",
        (Column("file"), Column("table"), Column("bytes", "count"), Column("records", "count"),
         Column("CRC32C", "code"), Column("promised", "code"), Column("promised by"),
         Column("SHA-256", "code"), Column("problem")),
        tuple(
            (f.file_name, f.target_table, f.size, f.records, _hex(f.crc32c), _hex(f.expected_crc32c),
             f.expected_source or ", ".join(f.expected_digests) or None, f.sha256, f.problem)
            for f in facts.files
        ),
    )  # fmt: skip
    counts = Table(
        "checksum_counts", "All checksums that were computed, by what they were compared with",
        (Column("of"), Column("compared with"), Column("checksums", "count"), Column("valid", "count"),
         Column("invalid", "count"), Column("nothing to compare", "count"), Column("bytes", "count"),
         Column("MB/s", "number")),
        tuple(
            (c.entity_type, c.compared_with, c.checksums, c.valid, c.invalid, c.recorded, c.bytes,
             rate(c.bytes / _MEGABYTE, c.seconds))
            for c in facts.checksum_counts
        ),
    )  # fmt: skip
    singly = Table(
        "checksums", "Checksums of files, and the invalid ones of chunks and rows; CRC32C unless said",
        (Column("of"), Column("kind"), Column("compared with"), Column("expected", "code"),
         Column("computed", "code"), Column("is", "state"), Column("taken", "time"),
         Column("try", "count"),
         Column("why")),
        tuple(
            (c.entity_id, c.entity_type, _compared_with(c), *_digests(c), c.status, c.created_at,
             c.retry_count + 1, c.error_details)
            for c in facts.checksums
        ),
    )  # fmt: skip
    text = "" if facts.files else "No file of it was taken in."
    return Section("files", "Files and checksums", said(text), (listed, counts, singly))


def _compared_with(checksum: ChecksumRecord) -> str | None:
    if checksum.digest_algorithm is None:
        return checksum.expected_source
    return f"{checksum.expected_source or 'nothing'} ({checksum.digest_algorithm})"


def _digests(checksum: ChecksumRecord) -> tuple[str | None, str | None]:
    if checksum.digest_algorithm is not None:
        return checksum.expected_digest, checksum.computed_digest
    return _hex(checksum.expected_crc32), _hex(checksum.computed_crc32)


def columns(facts: BatchFacts) -> Section:
    """Lay out what the delivery brought, and how true the tables keep it."""
    brought = Table(
        "columns_delivered", "What the delivery brought, against the version in force",
        (Column("table"), Column("is", "state"), Column("version before", "count"),
         Column("loaded as version", "count"), Column("left out"), Column("compatibility hash", "code")),
        tuple(
            (e.target_table, e.verdict, e.previous_version, e.version, ", ".join(e.not_loaded) or None,
             e.signature_hash)
            for e in facts.signature_events
        ),
    )  # fmt: skip
    changes = Table(
        "column_changes", "Columns that changed",
        (Column("column"), Column("table"), Column("change"), Column("before"), Column("now"),
         Column("is", "state"), Column("policy")),
        tuple(
            (c.column, e.target_table, c.kind, c.before, c.after, c.verdict, c.policy)
            for e in facts.signature_events for c in e.changes
        ),
    )  # fmt: skip
    kept = Table(
        "column_fidelity", "Columns that do not keep the very value that is sent",
        (Column("column"), Column("table"), Column("is"), Column("because")),
        tuple(
            (c.column, table, c.kind, c.reason)
            for table, own in facts.columns.items() for c in own if c.kind != "exact"
        ),
    )  # fmt: skip
    written = Table(
        "signatures", "How rows were grouped by their columns and written",
        (Column("table"), Column("columns"), Column("rows", "count"), Column("together"),
         Column("statements", "count"), Column("searched singly"),
         Column("seconds", "number")),
        tuple(
            (s.target_table, ", ".join(s.columns), s.entries, s.bulk, s.statements, s.fallback,
             s.seconds)
            for s in facts.signatures
        ),
    )  # fmt: skip
    tables = (brought, changes, kept, written)
    text = "" if any(each.rows for each in tables) else "Nothing is known of its columns."
    return Section("columns", "Columns and signatures", said(text), tables)


def rejects(facts: BatchFacts, short: str) -> Section:
    """Lay out why records are set aside."""
    table = Table(
        "rejects", "Records by reason; one with two reasons counts for both",
        (Column("message"), Column("table"), Column("column"), Column("SQLSTATE", "code"),
         Column("constraint"), Column("records", "count")),
        tuple(
            (r.message, r.target_table, r.column_name, r.sqlstate, r.constraint_name, r.records)
            for r in facts.rejects
        ),
    )  # fmt: skip
    if not facts.rejects:
        return Section("rejects", "Records set aside", ("No record is set aside.",))
    return Section(
        "rejects", "Records set aside", (), (table,), commands=(f"batch-pipelines rejects {short}",)
    )


def critical_rows(facts: BatchFacts) -> Section:
    """Lay out how many rows people were told of at once, and how soon."""
    table = Table(
        "critical", "Critical rows by rule; seconds are from receipt until the last of them",
        (Column("rule"), Column("table"), Column("rows", "count"), Column("told before", "count"),
         Column("raised after s", "number"), Column("sent after s", "number")),
        tuple(
            (c.condition, c.target_table, c.records, c.told_before, c.raised_after, c.sent_after)
            for c in facts.critical
        ),
    )  # fmt: skip
    none = "No rule of the feed found a critical row."
    if facts.batch.critical_records is None:
        none = "The feed has no rule for critical rows, or none of its rows is visible."
    return Section("critical", "Critical rows", said("" if facts.critical else none), (table,))


def _hex(crc: int | None) -> str | None:
    return None if crc is None else f"{crc:08x}"
