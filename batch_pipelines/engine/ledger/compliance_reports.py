"""Compliance reports that were made: what each was about, its digests, and where its files are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping, Sequence

    from batch_pipelines.engine.postgres.database import Connection

Format = Literal["html", "json", "csv"]
SIGNED = "report.signed"
"""Action of the event that is a sign-off."""
RESOURCE = "compliance_report"
"""Type of the resource that events about a report name."""


@dataclass(frozen=True)
class ReportRecord:
    """A report that was made, as `compliance_report` has it; see docs/ledger.md."""

    report_id: str
    span: str
    range_start: dt.datetime
    range_end: dt.datetime
    time_zone: str
    as_of: dt.datetime
    regulation: str | None
    feed: str | None
    entity_type: str | None
    regulations: Mapping[str, Sequence[str]]
    content_sha256: str
    content_bytes: int
    seconds: float
    requested_by: str
    run_id: str | None

    @property
    def is_partial(self) -> bool:
        """Whether its range was not over when it was made."""
        return self.as_of < self.range_end


@dataclass(frozen=True)
class TypeRecord:
    """A type of report in a report; see `compliance_report_type`."""

    type: str
    records: int | None
    content_bytes: int | None
    content_sha256: str | None
    seconds: float
    error_details: str | None


@dataclass(frozen=True)
class FileRecord:
    """A file of a report; see `compliance_report_file`."""

    format: Format
    place: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Signature:
    """A sign-off.

    Attributes:
        principal_id: Who signed.
        created_at: When.
        statement: What he stated.
        content_sha256: The digest of what was signed.
    """

    principal_id: str
    created_at: dt.datetime
    statement: str
    content_sha256: str


_ADD = """
INSERT INTO batch_audit.compliance_report (report_id, span, range_start, range_end, time_zone, as_of,
    regulation, feed, entity_type, regulations, content_sha256, content_bytes, seconds, requested_by,
    run_id)
VALUES (%(report_id)s, %(span)s, %(range_start)s, %(range_end)s, %(time_zone)s, %(as_of)s,
    %(regulation)s, %(feed)s, %(entity_type)s, %(regulations)s, %(content_sha256)s, %(content_bytes)s,
    %(seconds)s, %(requested_by)s, %(run_id)s)
"""
_ADD_TYPE = """
INSERT INTO batch_audit.compliance_report_type (report_id, place, type, records, content_bytes,
    content_sha256, seconds, error_details)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
"""
_ADD_FILE = """
INSERT INTO batch_audit.compliance_report_file (report_id, format, place, bytes, sha256)
VALUES (%s, %s, %s, %s, %s)
"""
_REPORT = """
SELECT report_id::text, span, range_start, range_end, time_zone, as_of, regulation, feed, entity_type,
       regulations, content_sha256, content_bytes, seconds, requested_by, run_id::text
FROM batch_audit.compliance_report
"""
_BY_PREFIX = _REPORT + "WHERE report_id::text LIKE %s || '%%' ORDER BY report_id LIMIT 2"
_BY_FILE = _REPORT + (
    "WHERE report_id IN (SELECT report_id FROM batch_audit.compliance_report_file WHERE sha256 = %s)"
    " ORDER BY created_at LIMIT 1"
)
_NEWEST = _REPORT + "ORDER BY created_at DESC, report_id LIMIT %s"
_TYPES = """
SELECT type, records, content_bytes, content_sha256, seconds, error_details
FROM batch_audit.compliance_report_type WHERE report_id = %s ORDER BY place
"""
_FILES = """
SELECT format, place, bytes, sha256 FROM batch_audit.compliance_report_file
WHERE report_id = %s ORDER BY format
"""
_SIGNATURES = """
SELECT principal_id, created_at, details ->> 'statement' AS statement,
       details ->> 'content_sha256' AS content_sha256
FROM batch_audit.audit_event
WHERE resource_id = %s AND resource_type = %s AND action = %s AND status = 'SUCCESS'
ORDER BY seq
"""


def add(
    connection: Connection,
    report: ReportRecord,
    types: Sequence[TypeRecord],
    files: Sequence[FileRecord],
) -> None:
    """Keep a report that was made, in the transaction that is open."""
    given = {**report.__dict__, "regulations": Jsonb(dict(report.regulations))}
    connection.execute(_ADD, given)
    with connection.cursor() as cursor:
        cursor.executemany(
            _ADD_TYPE,
            [
                (report.report_id, place, *each.__dict__.values())
                for place, each in enumerate(types)
            ],
        )
        cursor.executemany(
            _ADD_FILE, [(report.report_id, *each.__dict__.values()) for each in files]
        )


def by_prefix(connection: Connection, prefix: str) -> list[ReportRecord]:
    """Find the reports whose id begins so; two at most, as one more than one is too many."""
    # Only what an id can hold: the prefix is the left side of a LIKE.
    if not prefix or not set(prefix) <= set("0123456789abcdef-"):
        return []
    with connection.cursor(row_factory=class_row(ReportRecord)) as cursor:
        return cursor.execute(_BY_PREFIX, (prefix,)).fetchall()


def by_file(connection: Connection, sha256: str) -> ReportRecord | None:
    """Find the report that a file is of, by its digest."""
    with connection.cursor(row_factory=class_row(ReportRecord)) as cursor:
        return cursor.execute(_BY_FILE, (sha256,)).fetchone()


def newest(connection: Connection, limit: int) -> list[ReportRecord]:
    """List the newest reports."""
    with connection.cursor(row_factory=class_row(ReportRecord)) as cursor:
        return cursor.execute(_NEWEST, (limit,)).fetchall()


def types(connection: Connection, report_id: str) -> list[TypeRecord]:
    """Read the types of a report, in their order."""
    with connection.cursor(row_factory=class_row(TypeRecord)) as cursor:
        return cursor.execute(_TYPES, (report_id,)).fetchall()


def files(connection: Connection, report_id: str) -> list[FileRecord]:
    """Read the files of a report."""
    with connection.cursor(row_factory=class_row(FileRecord)) as cursor:
        return cursor.execute(_FILES, (report_id,)).fetchall()


def signatures(connection: Connection, report_id: str) -> list[Signature]:
    """Read who signed a report, the first one first."""
    with connection.cursor(row_factory=class_row(Signature)) as cursor:
        return cursor.execute(_SIGNATURES, (report_id, RESOURCE, SIGNED)).fetchall()
