"""`report --feed FEED`: how the batches of a feed went over time, as a file to read and hand over."""

from __future__ import annotations

import datetime as dt
from typing import Annotated
from zoneinfo import ZoneInfo

import typer

from batch_pipelines.cli.batches import opened_ledger
from batch_pipelines.cli.report_output import AsJson, CsvFolder, HtmlFile, put_out
from batch_pipelines.engine.feed_files import load_feeds
from batch_pipelines.engine.reports.feed_page import feed_page
from batch_pipelines.engine.reports.feed_reading import Wanted, read_feed
from batch_pipelines.engine.reports.filing import feed_path, program
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
    html: HtmlFile = None,
    json: AsJson = False,
    csv: CsvFolder = None,
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
    put_out(page, facts, feed_path(settings, feed), html=html, json=json, csv=csv)
