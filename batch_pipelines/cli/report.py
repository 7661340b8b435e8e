"""`report`: what the ledger knows of a batch, as a file to read, print and hand over."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Annotated

import typer

from batch_pipelines.cli.batches import opened_ledger
from batch_pipelines.cli.report_output import AsJson, CsvFolder, HtmlFile, put_out
from batch_pipelines.engine.ledger import batches
from batch_pipelines.engine.reconciliation.reconcile import find_reconciled
from batch_pipelines.engine.reports.batch_facts import read_batch
from batch_pipelines.engine.reports.batch_page import batch_page
from batch_pipelines.engine.reports.filing import batch_path, program
from batch_pipelines.engine.reports.reconciled_page import reconciled_facts, reconciled_page
from batch_pipelines.engine.settings import load_settings

if TYPE_CHECKING:
    from batch_pipelines.engine.reports.batch_facts import BatchFacts
    from batch_pipelines.engine.reports.reconciled_page import ReconciledFacts


def report(
    batch: Annotated[str, typer.Argument(help="Batch id, a unique prefix of one, or FEED/KEY.")],
    *,
    html: HtmlFile = None,
    json: AsJson = False,
    csv: CsvFolder = None,
) -> None:
    """Write a report: one HTML file that needs nothing else; also JSON and CSV."""
    settings = load_settings()
    now = dt.datetime.now(dt.UTC)
    facts: BatchFacts | ReconciledFacts
    with opened_ledger() as connection:
        reconciled = find_reconciled(connection, batch)
        if reconciled is not None:
            facts = reconciled_facts(reconciled, made_at=now, made_by=program())
            page = reconciled_page(facts)
            # Another system's ids can hold anything: the number of an entry of the log names the file.
            path = settings.reports / "reconciled" / f"{max(each.id for each in facts.log)}.html"
        else:
            found = batches.find(connection, batch)
            facts = read_batch(connection, found.batch_id, made_at=now, made_by=program())
            page = batch_page(facts)
            path = batch_path(settings, found.batch_id)
    put_out(page, facts, path, html=html, json=json, csv=csv)
