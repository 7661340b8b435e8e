"""Where a report goes: a page, JSON, CSV files; the options are the same for all reports."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from batch_pipelines.engine.reports.export import json_text, write, write_csv
from batch_pipelines.engine.reports.html import page_html

if TYPE_CHECKING:
    from batch_pipelines.engine.reports.page import Page

HtmlFile = Annotated[
    Path | None, typer.Option(help="Write the page here; by default below the home folder.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of writing a page.")]
CsvFolder = Annotated[
    Path | None, typer.Option(help="Write its tables into this folder, one CSV file each.")
]


def put_out(
    page: Page, facts: object, default: Path, *, html: HtmlFile, json: AsJson, csv: CsvFolder
) -> None:
    """Write what was asked for, and print where it is.

    Args:
        page: The report for people.
        facts: The same for programs.
        default: Where the page goes if nothing is asked for.
        html: Where it was asked for.
        json: Whether JSON is printed instead.
        csv: The folder of the tables.
    """
    written = [] if csv is None else write_csv(csv, page.tables)
    if html is not None or not (json or csv):
        written.append(write(html or default, page_html(page)))
    # As they are, for the shell to take: a console would fold them.
    sys.stdout.write(json_text(facts) if json else "".join(f"{each}\n" for each in written))
