"""Reports for programs: JSON of the whole model, CSV of its tables."""

from __future__ import annotations

import csv
import dataclasses
import datetime as dt
import io
import json
import os
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from batch_pipelines.engine.reports.shown import visible

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from batch_pipelines.engine.reports.page import Cell, Table

# What spreadsheets take for the beginning of a formula, also in the full width of East Asian text
# (OWASP, "CSV Injection"; with blanks before it some of them still do).
_FORMULA = tuple("=+-@＝＋－＠")  # noqa: RUF001  # meant


def json_text(model: object) -> str:
    """Write a model as JSON; everything but ASCII is escaped, so nothing of it can steer a terminal.

    Args:
        model: A dataclass of plain values, times and other dataclasses.

    Returns:
        The text. Times are ISO 8601 with their zone; a decimal is a string of its digits.
    """
    return json.dumps(model, default=_plain, indent=1) + "\n"


def csv_text(table: Table) -> str:
    """Write a table as CSV (RFC 4180), all of its rows.

    A text that a spreadsheet would take for a formula gets an apostrophe before it; characters that
    cannot be seen are written `⟨U+202E⟩`. JSON has them as they are.

    Args:
        table: The table.

    Returns:
        The text. Times are ISO 8601 with their zone; nothing stands for none.
    """
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow([_safe(column.name) for column in table.columns])
    writer.writerows([_cell(value) for value in row] for row in table.rows)
    return out.getvalue()


def write_csv(folder: Path, tables: Iterable[Table]) -> list[Path]:
    """Write each table into a file of its own, named after it.

    Args:
        folder: The folder; it is made if it is not there.
        tables: The tables; those without rows have their head alone.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return [write(folder / f"{table.name}.csv", csv_text(table)) for table in tables]


def write(path: Path, text: str) -> Path:
    """Write a file whole or not at all, also where one stands there already.

    Args:
        path: The file; its folder is made if it is not there.
        text: What it is to hold.

    Returns:
        The file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text, encoding="utf-8", newline="")
    beside.replace(path)
    return path


def _cell(value: Cell) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case str():
            return _safe(value)
        case dt.date():
            return value.isoformat()
        case int() | float() | Decimal():
            return str(value)


def _safe(text: str) -> str:
    seen = visible(text, lines=True)
    return f"'{seen}" if seen.lstrip().startswith(_FORMULA) else seen


def _plain(value: Any) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    if isinstance(value, dt.date):
        return value.isoformat()
    return str(value)
