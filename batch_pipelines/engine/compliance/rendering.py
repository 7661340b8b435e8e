"""How a compliance report looks: the page, and the model that its JSON is."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from batch_pipelines.engine.reports import page as pages
from batch_pipelines.engine.reports.charts import Chart, Series, draw
from batch_pipelines.engine.reports.figures import said
from batch_pipelines.engine.reports.page import Attention, Column, Fact, Page

if TYPE_CHECKING:
    from batch_pipelines.engine.compliance.model import Figure, Section, Table
    from batch_pipelines.engine.compliance.reading import Read
    from batch_pipelines.engine.compliance.scope import Scope
    from batch_pipelines.engine.reports.charts import Picture
    from batch_pipelines.engine.reports.page import Cell, Level

# What there is to type about a finding.
_REMEDIES = {
    "failed": "batch-pipelines rerun-failed",
    "validation_failed": "batch-pipelines batches --status VALIDATION_FAILED",
    "unvalidated": "batch-pipelines batches --status PUBLISHED",
    "unverified": "batch-pipelines verify --all",
    "differing": "batch-pipelines verify --all",
    "damaged_bags": "batch-pipelines archive verify --all",
    "unacknowledged": "batch-pipelines alerts --open",
    "dead_runs": "batch-pipelines batches --status IN_PROGRESS",
}
# A picture is as wide as a phone: a day needs some of that. One day says nothing by a picture.
_DRAWN, _FEWEST = 62, 2
# The range ends before its end.
_A_MOMENT = dt.timedelta(microseconds=1)
_CLAIMS = (
    "This report says what the ledger of batch imports holds; it supports an audit and is no statement "
    "that any regulation is complied with. It holds no values of rows, and of people their principals "
    "alone."
)
_COUNTING = (
    "A batch counts, with its files, records and rejects, where it began; a checksum where it was "
    "computed, an alert where it was raised, a deed where it was done. Open findings are of any age."
)
_SIGNING = (
    "A sign-off is an event of the audit trail: who the operating system says that he is, what he "
    "states, and the digest of what he signs. Nothing is written into this file, so that its own "
    "digest stays what the ledger has."
)
_BY_HAND = "Reviewed by: ______________________________    Date: ______________"


@dataclass(frozen=True)
class Header:
    """What differs when the same is reported again.

    Attributes:
        report_id: Its id.
        requested_by: Who asked for it.
        made_at: When.
        made_by: The program, with its version.
    """

    report_id: str
    requested_by: str
    made_at: dt.datetime
    made_by: str


def model(read: Read, header: Header) -> dict[str, Any]:
    """Make what the JSON of a report is.

    Args:
        read: What was read of the ledger.
        header: By whom and when.

    Returns:
        Plain values: a header, what the report is about, and what each type found.
    """
    scope = read.scope
    return {
        "header": {
            "report_id": header.report_id, "requested_by": header.requested_by,
            "made_at": header.made_at, "made_by": header.made_by, "seconds": round(read.seconds, 3),
            "seconds_by_type": {each.type: round(each.seconds, 3) for each in read.sections},
        },
        "range": {
            "name": scope.span.name, "start": scope.span.start, "end": scope.span.end,
            "timezone": scope.span.timezone, "as_of": scope.as_of, "partial": scope.is_partial,
        },
        "filters": {
            "regulation": scope.regulation, "feed": scope.feed, "entity_type": scope.entity_type,
        },
        "content_sha256": read.content_sha256,
        "sections": [_section_model(each) for each in read.sections],
    }  # fmt: skip


def _section_model(section: Section) -> dict[str, Any]:
    content = section.content
    head = {"type": section.type, "title": section.title, "failure": section.failure}
    if content is None:
        return head
    return {
        **head,
        "records": content.records,
        "bytes": len(content.canonical),
        "sha256": content.sha256,
        "figures": {each.name: each.value for each in content.figures},
        "tables": {
            each.name: {
                "total": each.total,
                "columns": [column.name for column in each.columns],
                "rows": each.rows,
            }
            for each in content.tables
        },
    }


def page(read: Read, header: Header) -> Page:
    """Lay a report out for people.

    Args:
        read: What was read of the ledger.
        header: By whom and when.

    Returns:
        The page.
    """
    scope = read.scope
    level, verdict = _verdict(read)
    filters = [scope.regulation, scope.feed and f"feed {scope.feed}"]
    return Page(
        kind="Compliance report",
        title=", ".join([scope.span.name, *[each for each in filters if each]]),
        level=level, verdict=verdict, facts=_facts(read, header), attention=_attention(read),
        sections=(*[_section(scope, each) for each in read.sections], _made(read), _sign_off(header)),
        made_at=header.made_at, made_by=header.made_by,
    )  # fmt: skip


def _verdict(read: Read) -> tuple[Level, str]:
    partial = "" if not read.scope.is_partial else (
        f"Partial: {read.scope.span.name} is not over before {read.scope.span.end:%Y-%m-%d %H:%M} UTC. "
    )  # fmt: skip
    if read.failed:
        types = ", ".join(each.type for each in read.failed)
        return "bad", f"{partial}Incomplete: {types} could not be made."
    findings = _figures(read, "findings").get("open")
    if findings is None:
        return "plain", f"{partial}Open findings were not asked for."
    if findings:
        told = "1 open finding" if findings == 1 else f"{findings:,} open findings"
        return "warn", f"{partial}{told}."
    return "warn" if partial else "good", f"{partial}No open finding."


def _figures(read: Read, kind: str) -> dict[str, int | float | None]:
    return {
        figure.name: figure.value
        for each in read.sections
        if each.type == kind and each.content is not None
        for figure in each.content.figures
    }


def _facts(read: Read, header: Header) -> tuple[Fact, ...]:
    scope = read.scope
    return (
        Fact("from", scope.span.start, "time"),
        Fact("until, not included", scope.span.end, "time"),
        Fact("time zone of the range", scope.span.timezone),
        Fact("as the ledger was at", scope.as_of, "time"),
        Fact("regulation", scope.regulation or "all"),
        Fact("feed", scope.feed or "all"),
        Fact("entity type, of checksums", scope.entity_type or "all"),
        Fact("asked for by", header.requested_by),
        Fact("report", header.report_id, "code"),
        Fact("SHA-256 of what it says", read.content_sha256, "code"),
    )


def _attention(read: Read) -> tuple[Attention, ...]:
    failed = [
        Attention("bad", f"{each.title} could not be made: {each.failure}") for each in read.failed
    ]
    open_ = [
        Attention("warn", f"{figure.label}: {figure.value:,}", _REMEDIES[figure.name])
        for each in read.sections
        if each.type == "findings" and each.content is not None
        for figure in each.content.figures
        if figure.name in _REMEDIES and figure.value
    ]
    return (*failed, *open_)


def _section(scope: Scope, section: Section) -> pages.Section:
    content = section.content
    if content is None:
        why = f"This part could not be made: {section.failure} The others are not affected."
        return pages.Section(section.type, section.title, (why,))
    figures = tuple(Fact(each.label, _written(each)) for each in content.figures)
    tables = tuple(_table(section.type, each) for each in content.tables)
    text = "" if any(table.rows for table in tables) else "There is nothing to list."
    pictures = _pictures(scope, content.tables) if section.type == "summary" else ()
    return pages.Section(section.type, section.title, said(text), tables, pictures, facts=figures)


def _table(kind: str, table: Table) -> pages.Table:
    listed = f"the first {len(table.rows):,} of {table.total:,}"
    caption = f"{table.title} ({listed})" if table.total > len(table.rows) else table.title
    if table.note:
        caption = f"{caption}. {table.note}"
    return pages.Table(f"{kind}-{table.name}", caption, table.columns, table.rows)


def _written(figure: Figure) -> str | None:
    if figure.value is None:
        return None
    number = f"{figure.value:,}" if isinstance(figure.value, int) else f"{figure.value:,.2f}"
    return f"{number} {figure.unit}".strip()


def _pictures(scope: Scope, tables: tuple[Table, ...]) -> tuple[Picture, ...]:
    """Draw how the days went, those without any batch, too."""
    (found,) = [table.rows for table in tables if table.name == "by_day"]
    rows = {str(row[0]): row for row in found}
    days = _days(scope)
    if not rows or len(days) > _DRAWN or len(days) < _FEWEST:
        return ()

    def column(place: int) -> tuple[float, ...]:
        return tuple(_number(rows[day][place]) if day in rows else 0.0 for day in days)

    batches, ended, good, records, aside = (column(place) for place in (1, 2, 3, 5, 6))
    bad = tuple(each - ok for each, ok in zip(ended, good, strict=True))
    other = tuple(each - done for each, done in zip(batches, ended, strict=True))
    share = tuple(100 * each / of if of else None for each, of in zip(aside, records, strict=True))
    return (
        draw(Chart("days-batches", "Batches a day, by how they ended", days, (
            Series("succeeded", "good", good), Series("failed", "bad", bad),
            Series("duplicate, or not ended", "other", other),
        ))),
        draw(Chart("days-records", "Records a day", days, (Series("records", "plain", records),))),
        draw(Chart("days-rejected", "Records set aside, in % of those of the day", days, (
            Series("% set aside", "partial", share),
        ))),
    )  # fmt: skip


def _days(scope: Scope) -> tuple[str, ...]:
    zone = ZoneInfo(scope.span.timezone)
    day = scope.span.start.astimezone(zone).date()
    last = (scope.until - _A_MOMENT).astimezone(zone).date()
    return tuple(
        (day + dt.timedelta(days=number)).isoformat() for number in range((last - day).days + 1)
    )


def _number(cell: Cell) -> float:
    return float(cell) if isinstance(cell, int | float) else 0.0


def _made(read: Read) -> pages.Section:
    rows: list[tuple[Cell, ...]] = [
        (each.type, each.content.records, len(each.content.canonical), each.seconds,
         each.content.sha256)
        if each.content is not None
        else (each.type, None, None, each.seconds, "could not be made")
        for each in read.sections
    ]  # fmt: skip
    table = pages.Table(
        "made-types", "What it says, by type",
        (Column("type"), Column("rows of the ledger counted", "count"), Column("bytes", "count"),
         Column("seconds", "number"), Column("SHA-256", "code")),
        tuple(rows),
    )  # fmt: skip
    how = (
        f"It says {read.content_bytes:,} bytes, read in {read.seconds:.2f} seconds in one snapshot of "
        "the ledger. The chain of the audit trail was not verified for it: "
        "`batch-pipelines verify --audit` does so."
    )
    return pages.Section("made", "How this was made", (_CLAIMS, _COUNTING, how), (table,))


def _sign_off(header: Header) -> pages.Section:
    short = header.report_id[:8]
    return pages.Section(
        "sign-off", "Sign-off", (_SIGNING, _BY_HAND),
        commands=(
            f'batch-pipelines report sign {short} --statement "Reviewed."',
            "batch-pipelines report check FILE",
        ),
    )  # fmt: skip
