"""The files of a report: HTML, JSON, and CSV of its tables in one archive; each with its digest."""

from __future__ import annotations

import hashlib
import io
import zipfile
from typing import TYPE_CHECKING, Final

from batch_pipelines.engine.compliance.rendering import model, page
from batch_pipelines.engine.ledger.compliance_reports import FileRecord
from batch_pipelines.engine.reports.export import csv_text, json_text
from batch_pipelines.engine.reports.html import page_html
from batch_pipelines.engine.reports.page import Column, Table

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from batch_pipelines.engine.compliance.reading import Read
    from batch_pipelines.engine.compliance.rendering import Header
    from batch_pipelines.engine.ledger.compliance_reports import Format

SUFFIXES: Final[dict[Format, str]] = {"html": ".html", "json": ".json", "csv": ".csv.zip"}
# The oldest time that a ZIP file can hold: the same tables are the same bytes.
_NO_TIME = (1980, 1, 1, 0, 0, 0)


def write_files(folder: Path, read: Read, header: Header) -> list[FileRecord]:
    """Write the files of a report.

    Args:
        folder: Where; it is made if it is not there.
        read: What was read of the ledger.
        header: By whom and when.

    Returns:
        Where each is, with size and SHA-256 of what was written.
    """
    shown = page(read, header)
    written: dict[Format, bytes] = {
        "html": page_html(shown).encode(),
        "json": json_text(model(read, header)).encode(),
        "csv": _tables([_figures(read), *shown.tables]),
    }
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for form, content in written.items():
        path = folder / f"{read.scope.span.name}-{header.report_id}{SUFFIXES[form]}"
        # The id is this report's own, so nothing else is there; a torn file is in no ledger.
        path.write_bytes(content)
        files.append(FileRecord(form, str(path), len(content), hashlib.sha256(content).hexdigest()))
    return files


def digest_of(path: Path) -> str:
    """Take the SHA-256 of a file, in hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _figures(read: Read) -> Table:
    rows = [
        (section.type, figure.name, figure.label, figure.value, figure.unit)
        for section in read.sections
        if section.content is not None
        for figure in section.content.figures
    ]
    heads = ("type", "figure", "label", "value", "unit")
    return Table("figures", "Figures", tuple(map(Column, heads)), tuple(rows))


def _tables(tables: Iterable[Table]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for table in tables:
            member = zipfile.ZipInfo(f"{table.name}.csv", _NO_TIME)
            member.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(member, csv_text(table))
    return out.getvalue()
