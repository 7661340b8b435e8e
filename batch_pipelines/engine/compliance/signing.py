"""Proving a report that was handed over, and signing one; a signature is an event of the audit trail."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from batch_pipelines.engine.compliance.files import digest_of
from batch_pipelines.engine.compliance.reading import read
from batch_pipelines.engine.compliance.scope import Scope, Span
from batch_pipelines.engine.errors import ReportError
from batch_pipelines.engine.ledger import compliance_reports, events
from batch_pipelines.engine.ledger.compliance_reports import RESOURCE, SIGNED

if TYPE_CHECKING:
    from collections.abc import Callable

    from batch_pipelines.engine.ledger.compliance_reports import (
        FileRecord,
        ReportRecord,
        Signature,
        TypeRecord,
    )
    from batch_pipelines.engine.postgres.database import Connection


@dataclass(frozen=True)
class Checked:
    """What the ledger knows of a report.

    Attributes:
        report: What it is about.
        types: Its types.
        files: Its files.
        signatures: Who signed it.
        problems: Files that are not what was written; none where all are.
        changed: Types of which the ledger says something else now; None where that was not asked.
    """

    report: ReportRecord
    types: tuple[TypeRecord, ...]
    files: tuple[FileRecord, ...]
    signatures: tuple[Signature, ...]
    problems: tuple[str, ...]
    changed: tuple[str, ...] | None = None


def find(connection: Connection, reference: str) -> ReportRecord:
    """Find a report by its id, a unique prefix of it, or one of its files.

    Args:
        connection: A connection.
        reference: The id, its beginning, or the path of a file.

    Returns:
        The report.

    Raises:
        ReportError: There is none, or several; or the file is none that was made here, as it is now.
    """
    path = Path(reference)
    if path.is_file():
        digest = digest_of(path)
        found = compliance_reports.by_file(connection, digest)
        if found is None:
            message = (
                f"{reference} is no report of this ledger as it was made: no file with its SHA-256 "
                f"{digest} was written here. It was changed since, or comes from elsewhere."
            )
            raise ReportError(message)
        return found
    several = compliance_reports.by_prefix(connection, reference)
    if len(several) != 1:
        message = (
            f"There is no report, or more than one, whose id begins with {reference!r}, and no file of "
            "that name. `batch-pipelines report list` lists them."
        )
        raise ReportError(message)
    return several[0]


def check(
    connection: Connection, reference: str, *, again: Callable[[], float] | None = None
) -> Checked:
    """Hold a report against the ledger.

    Args:
        connection: A connection in autocommit mode.
        reference: See `find`.
        again: Where what it says is to be read once more, tells how long things take, in seconds.

    Returns:
        What is known of it.

    Raises:
        ReportError: See `find`.
    """
    report = find(connection, reference)
    types = compliance_reports.types(connection, report.report_id)
    files = compliance_reports.files(connection, report.report_id)
    changed = None
    if again is not None:
        now = read(connection, _scope_of(report), [each.type for each in types], again)
        before = {each.type: each.content_sha256 for each in types}
        changed = tuple(
            each.type
            for each in now.sections
            if (each.content.sha256 if each.content else None) != before[each.type]
        )
    return Checked(
        report, tuple(types), tuple(files),
        tuple(compliance_reports.signatures(connection, report.report_id)), _problems(files), changed,
    )  # fmt: skip


def sign(connection: Connection, reference: str, *, statement: str, by: str) -> Checked:
    """Sign a report.

    Args:
        connection: A connection in autocommit mode.
        reference: See `find`.
        statement: What is stated.
        by: Who signs, as the operating system has it.

    Returns:
        The report with its signatures.

    Raises:
        ReportError: See `find`; or a file of it is no longer what was made, and nobody can sign that.
    """
    found = check(connection, reference)
    report = found.report
    details: dict[str, object] = {
        "statement": statement, "content_sha256": report.content_sha256, "span": report.span,
        "partial": report.is_partial, "failed": [e.type for e in found.types if e.error_details],
        "files": {each.format: each.sha256 for each in found.files},
    }  # fmt: skip
    applies = {} if report.regulation is None else {"regulation": report.regulation}
    refused = bool(found.problems)
    with connection.transaction():
        events.append(
            connection,
            events.Event(
                by, SIGNED, "FAILED" if refused else "SUCCESS", RESOURCE, report.report_id,
                correlation_id=report.report_id, compliance_context=applies,
                details={**details, "problems": [*found.problems]} if refused else details,
            ),
        )  # fmt: skip
    if refused:
        message = (
            f"Report {report.report_id} was not signed: {'; '.join(found.problems)}. Make the report "
            "again, and sign that."
        )
        raise ReportError(message)
    return check(connection, report.report_id)


def _problems(files: list[FileRecord]) -> tuple[str, ...]:
    found = []
    for each in files:
        try:
            digest = digest_of(Path(each.place))
        except OSError as error:
            found.append(f"{each.place} cannot be read ({error.strerror})")
            continue
        if digest != each.sha256:
            found.append(f"{each.place} is not what was made: its SHA-256 is {digest}")
    return tuple(found)


def _scope_of(report: ReportRecord) -> Scope:
    span = Span(report.span, report.range_start, report.range_end, report.time_zone)
    regulations = {name: tuple(words) for name, words in report.regulations.items()}
    return Scope(
        span, report.as_of, report.regulation, report.feed, report.entity_type, regulations
    )
