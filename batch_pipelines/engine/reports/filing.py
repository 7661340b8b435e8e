"""Pages where people find them: in the folder of reports, a batch's by its id, a feed's by its name."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING
from urllib.parse import quote

from batch_pipelines.engine.reports.batch_facts import read_batch
from batch_pipelines.engine.reports.batch_page import batch_page
from batch_pipelines.engine.reports.export import write
from batch_pipelines.engine.reports.feed_page import feed_page
from batch_pipelines.engine.reports.feed_reading import Wanted, read_feed
from batch_pipelines.engine.reports.html import page_html

if TYPE_CHECKING:
    from pathlib import Path

    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.settings import Settings

FOLDER, FEEDS = "batches", "feeds"
"""Below the folder of reports."""


_OFTEN = dt.timedelta(minutes=1)
_PERIOD, _MOST = dt.timedelta(days=92), 500
_BEGINS = """
SELECT started_at FROM batch_audit.import_history WHERE feed = %s AND started_at > %s
ORDER BY started_at DESC OFFSET %s LIMIT 1
"""


@dataclass(frozen=True)
class Place:
    """Where a page is.

    Attributes:
        path: The file.
        url: Where a browser finds it; None where nobody serves the folder.
    """

    path: Path
    url: str | None


@dataclass(frozen=True)
class Filed(Place):
    """The page of a batch, that was written.

    Attributes:
        verdict: Its sentence.
    """

    verdict: str


def program() -> str:
    """Say which program, of which version, makes a report."""
    return f"batch-pipelines {version('batch-pipelines')}"


def batch_path(settings: Settings, batch_id: str) -> Path:
    """Say where the page of a batch is written. Its name has nothing that came from outside."""
    return settings.reports / FOLDER / f"{batch_id}.html"


def feed_path(settings: Settings, feed: str) -> Path:
    """Say where the page of a feed is written. One without a file may have any name."""
    return settings.reports / FEEDS / f"{quote(feed, safe='')}.html"


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
    return Filed(path, _url(settings, path), page.verdict)


def file_feed(connection: Connection, settings: Settings, feed: Feed, now: dt.datetime) -> Place:
    """Write the page of a feed's newest batches, in place of an earlier one that is older than a minute.

    They are at most 500, of at most 92 days, so that it costs the same however many there ever were.

    Args:
        connection: A connection in autocommit mode.
        settings: The settings: where reports are, and where they are served.
        feed: The feed.
        now: When that is.

    Returns:
        Where it is.

    Raises:
        OSError: It cannot be written.
    """
    path = feed_path(settings, feed.feed)
    place = Place(path, _url(settings, path))
    if path.exists() and now.timestamp() - path.stat().st_mtime < _OFTEN.total_seconds():
        return place
    oldest = now - _PERIOD
    begins = connection.execute(_BEGINS, (feed.feed, oldest, _MOST - 1)).fetchone()
    wanted = Wanted(
        feed.feed, feed.description, has_file=True, since=oldest if begins is None else begins[0],
        until=now, timezone=settings.report_timezone,
    )  # fmt: skip
    facts = read_feed(connection, wanted, made_at=now, made_by=program())
    write(path, page_html(feed_page(facts)))
    return place


def _url(settings: Settings, path: Path) -> str | None:
    served = settings.reports_url
    below = path.relative_to(settings.reports).as_posix()
    return None if served is None else f"{served.rstrip('/')}/{below}"
