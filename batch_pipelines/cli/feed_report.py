"""`report --feed FEED`: how the batches of a feed went over time, as a file to read and hand over."""

from __future__ import annotations

import datetime as dt
import sys
from pathlib import Path  # noqa: TC003  # typer reads it
from typing import Annotated
from zoneinfo import ZoneInfo

import typer

from batch_pipelines.cli.batches import opened_ledger
from batch_pipelines.engine.feed_files import load_feeds
from batch_pipelines.engine.reports.export import json_text, write, write_csv
from batch_pipelines.engine.reports.feed_page import feed_page
from batch_pipelines.engine.reports.feed_reading import Wanted, read_feed
from batch_pipelines.engine.reports.filing import feed_path, program
from batch_pipelines.engine.reports.html import page_html
from batch_pipelines.engine.settings import load_settings

_DAY = "%Y-%m-%d"


def feed_report(
    *,
    feed: Annotated[str, typer.Option(help="The feed.")],
    since: Annotated[
        dt.datetime | None,
        typer.Option(formats=[_DAY], help="First day; by default that of its first batch."),
    ] = None,
    until: Annotated[
        dt.datetime | None, typer.Option(formats=[_DAY], help="Last day; by default today.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write the page here; by default below the home folder.")
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print JSON instead of writing a page.")
    ] = False,
    csv: Annotated[
        Path | None, typer.Option(help="Write its tables into this folder, one CSV file each.")
    ] = None,
) -> None:
    """Write a report of a feed: success rate, throughput and rejects over time, batches compared."""
    settings = load_settings()
    now = dt.datetime.now(dt.UTC)
    zone = ZoneInfo(settings.report_timezone)
    begin = None if since is None else since.replace(tzinfo=zone).astimezone(dt.UTC)
    # The last day belongs to it.
    end = (
        now
        if until is None
        else (until + dt.timedelta(days=1)).replace(tzinfo=zone).astimezone(dt.UTC)
    )
    if begin is not None and begin >= end:
        message = f"the first day, {since:%Y-%m-%d}, is after the last one, or has not begun"
        raise typer.BadParameter(message, param_hint="--since")
    known = load_feeds(settings.feeds).get(feed)
    wanted = Wanted(
        feed, "" if known is None else known.description, known is not None, begin, end,
        settings.report_timezone,
    )  # fmt: skip
    with opened_ledger() as connection:
        facts = read_feed(connection, wanted, made_at=now, made_by=program())
    page = feed_page(facts)
    written = [] if csv is None else write_csv(csv, page.tables)
    if html is not None or not (json or csv):
        written.append(write(html or feed_path(settings, feed), page_html(page)))
    # As they are, for the shell to take: a console would fold them.
    sys.stdout.write(json_text(facts) if json else "".join(f"{each}\n" for each in written))
