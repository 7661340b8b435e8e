"""A batch's page where people find it: in the folder of reports, by the batch's id, as it is now."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

from batch_pipelines.engine.reports.batch_facts import read_batch
from batch_pipelines.engine.reports.batch_page import batch_page
from batch_pipelines.engine.reports.export import write
from batch_pipelines.engine.reports.html import page_html

if TYPE_CHECKING:
    import datetime as dt
    from pathlib import Path

    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.settings import Settings

FOLDER = "batches"
"""Below the folder of reports."""


@dataclass(frozen=True)
class Filed:
    """A page that was written.

    Attributes:
        path: Where.
        verdict: Its sentence.
        url: Where a browser finds it; None where nobody serves the folder.
    """

    path: Path
    verdict: str
    url: str | None


def program() -> str:
    """Say which program, of which version, makes a report."""
    return f"batch-pipelines {version('batch-pipelines')}"


def batch_path(settings: Settings, batch_id: str) -> Path:
    """Say where the page of a batch is written. Its name has nothing that came from outside."""
    return settings.reports / FOLDER / f"{batch_id}.html"


def file_batch(
    connection: Connection, settings: Settings, batch_id: str, now: dt.datetime
) -> Filed:
    """Write the page of a batch, in place of an earlier one.

    Args:
        connection: A connection in autocommit mode.
        settings: The settings: where reports are, and where they are served.
        batch_id: The batch.
        now: When that is.

    Returns:
        Where it is.

    Raises:
        OSError: It cannot be written.
    """
    facts = read_batch(connection, batch_id, made_at=now, made_by=program())
    page = batch_page(facts)
    path = write(batch_path(settings, batch_id), page_html(page))
    served = settings.reports_url
    url = None if served is None else f"{served.rstrip('/')}/{FOLDER}/{path.name}"
    return Filed(path, page.verdict, url)
