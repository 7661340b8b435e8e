"""Making a report: read, written into files, and kept in the ledger with the digest of each file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from batch_pipelines.engine.compliance.files import write_files
from batch_pipelines.engine.compliance.reading import chosen, read
from batch_pipelines.engine.compliance.rendering import Header
from batch_pipelines.engine.ledger import compliance_reports, events
from batch_pipelines.engine.ledger.compliance_reports import RESOURCE, ReportRecord, TypeRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from batch_pipelines.engine.compliance.model import Section
    from batch_pipelines.engine.compliance.reading import Read
    from batch_pipelines.engine.compliance.scope import Scope
    from batch_pipelines.engine.ledger.compliance_reports import FileRecord, Format
    from batch_pipelines.engine.postgres.database import Connection


@dataclass(frozen=True)
class Maker:
    """Who makes a report, and by what means.

    Attributes:
        folder: Where the files of reports are written.
        requested_by: Who asked for it.
        made_by: The program, with its version.
        new_id: Makes the id of a report, a UUID.
        monotonic: Tells how long things take, in seconds.
        run_id: The Dagster run that makes it; None on the command line.
    """

    folder: Path
    requested_by: str
    made_by: str
    new_id: Callable[[], str]
    monotonic: Callable[[], float]
    run_id: str | None = None


@dataclass(frozen=True)
class Made:
    """A report that was made.

    Attributes:
        record: What the ledger keeps of it.
        read: What it says.
        files: Its files.
    """

    record: ReportRecord
    read: Read
    files: tuple[FileRecord, ...] = field(default=())

    def place(self, form: Format) -> Path:
        """Say where its file of a format is."""
        return next(Path(each.place) for each in self.files if each.format == form)


def make(connection: Connection, scope: Scope, types: Sequence[str], maker: Maker) -> Made:
    """Make a report and keep it.

    Args:
        connection: A connection in autocommit mode.
        scope: What it is about.
        types: Which types; see `reading.chosen`.
        maker: Who makes it.

    Returns:
        The report. Types that failed say so in it, and in the ledger.

    Raises:
        ReportError: There is no such type of report.
    """
    report_id, wanted = maker.new_id(), chosen(types)
    about = {
        "span": scope.span.name, "regulation": scope.regulation, "feed": scope.feed,
        "entity_type": scope.entity_type, "types": [*wanted], "partial": scope.is_partial,
    }  # fmt: skip

    def event(action: str, status: str, **details: object) -> events.Event:
        applies = {} if scope.regulation is None else {"regulation": scope.regulation}
        session = {} if maker.run_id is None else {"run_id": maker.run_id}
        return events.Event(
            maker.requested_by, action, status, RESOURCE, report_id, correlation_id=report_id,
            details=details, session_context=session, compliance_context=applies,
        )  # fmt: skip

    with connection.transaction():
        events.append(connection, event("report.started", "IN_PROGRESS", **about))
    found = read(connection, scope, wanted, maker.monotonic)
    header = Header(report_id, maker.requested_by, scope.as_of, maker.made_by)
    files = write_files(maker.folder / scope.span.name, found, header)
    record = _record(found, header, maker.run_id)
    # Files first: what the ledger says is there, is.
    with connection.transaction():
        compliance_reports.add(connection, record, [*map(_type, found.sections)], files)
        for each in found.failed:
            failed = event("report.type.failed", "FAILED", type=each.type, why=each.failure)
            events.append(connection, failed)
        outcome = "FAILED" if found.failed else "SUCCESS"
        made = event(
            "report.made", outcome, **about, content_sha256=found.content_sha256,
            content_bytes=found.content_bytes, seconds=round(found.seconds, 3),
            failed=[each.type for each in found.failed],
            records=sum(each.content.records for each in found.sections if each.content),
            files={each.format: each.sha256 for each in files},
        )  # fmt: skip
        events.append(connection, made)
    return Made(record, found, tuple(files))


def _record(found: Read, header: Header, run_id: str | None) -> ReportRecord:
    scope = found.scope
    return ReportRecord(
        report_id=header.report_id, span=scope.span.name, range_start=scope.span.start,
        range_end=scope.span.end, time_zone=scope.span.timezone, as_of=scope.as_of,
        regulation=scope.regulation, feed=scope.feed, entity_type=scope.entity_type,
        regulations={name: [*words] for name, words in scope.regulations.items()},
        content_sha256=found.content_sha256, content_bytes=found.content_bytes, seconds=found.seconds,
        requested_by=header.requested_by, run_id=run_id,
    )  # fmt: skip


def _type(section: Section) -> TypeRecord:
    content = section.content
    if content is None:
        return TypeRecord(section.type, None, None, None, section.seconds, section.failure)
    return TypeRecord(
        section.type, content.records, len(content.canonical), content.sha256, section.seconds, None
    )
