"""`feeds`: what there is, whether it is right, and what a feed may say."""

from __future__ import annotations

import functools
import json as json_module
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from batch_pipelines.cli.batches import opened_ledger
from batch_pipelines.cli.imports import user
from batch_pipelines.cli.show import Json, complain, print_json, print_table, say
from batch_pipelines.engine.alerts.channels import VARIABLE, read_channels
from batch_pipelines.engine.catalog import read_tables
from batch_pipelines.engine.errors import BatchError, DeliveryError, FeedError, UnreachableError
from batch_pipelines.engine.feed_files import find_feed, load_feeds, place_of
from batch_pipelines.engine.feeds import NO_TABLE, Feed
from batch_pipelines.engine.fidelity import fidelity_of_text
from batch_pipelines.engine.landing.deliveries import is_data, list_files
from batch_pipelines.engine.ledger import pauses
from batch_pipelines.engine.postgres.database import open_database
from batch_pipelines.engine.reconciliation.loaded_batches import check_loaded, comparable_tables
from batch_pipelines.engine.settings import load_settings
from batch_pipelines.engine.sources import check_source, find_keys, place
from batch_pipelines.engine.writing.ruling import read_rules
from batch_pipelines.engine.writing.server_changed import require_known

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from batch_pipelines.engine.alerts.channels import Channels
    from batch_pipelines.engine.catalog import TableInfo

app = typer.Typer(help="The feeds: what can be imported, and how.", no_args_is_help=True)


@app.command("list")
def list_(*, json: Json = False) -> None:
    """List the feeds and how many deliveries wait for them."""
    settings = load_settings()
    feeds = load_feeds(settings.feeds)
    if json:
        print_json([feed.model_dump(mode="json") for feed in feeds.values()])
        return
    problems: list[str] = []
    print_table(
        f"Feeds in {settings.feeds}",
        ["feed", "tables", "source", "deliveries waiting"],
        [
            [
                feed.feed,
                ", ".join(table.table for table in feed.tables) or NO_TABLE,
                place(feed),
                _waiting(feed, settings.root, problems),
            ]
            for feed in feeds.values()
        ],
    )
    if problems:
        raise DeliveryError("\n".join(problems))


def _waiting(feed: Feed, root: Path, problems: list[str]) -> int | str:
    """Count a feed's deliveries; a place that cannot be asked is a problem, and hides no other feed."""
    if feed.is_reconciled:
        return "loaded by others"
    try:
        if feed.source.gather is not None:
            return f"{sum(map(is_data, list_files(feed, root)))} files"
        return len(find_keys(feed, root))
    except BatchError as error:
        problems.append(f"{feed.feed}: {error}")
        return "?"


@app.command("check")
def check(*, json: Json = False) -> None:
    """Check every feed file, and the tables they name."""
    settings = load_settings()
    feeds = load_feeds(settings.feeds)
    channels = read_channels(settings.alerts)
    problems, unchecked = [], []
    lossy: list[str] = []
    with open_database(settings) as database, database.connect("check") as connection:
        for feed in feeds.values():
            try:
                tables = read_tables(connection, feed)
                if feed.is_reconciled:
                    check_loaded(connection, feed)
                    tables = comparable_tables(connection, feed)
                place_in = functools.partial(place_of, settings.feeds, feed.feed)
                read_rules(connection, feed, tables, place_in)
                require_known(feed, tables)
                lossy += _lossy(feed, tables, connection.info.server_version)
                check_source(feed, tables)
                unchecked += _unknown_channels(feed, channels)
            except UnreachableError as error:
                unchecked.append(f"{feed.feed}: its query was not checked. {error}")
            except BatchError as error:
                problems.append(str(error))
    if json:
        print_json(
            {"feeds": list(feeds), "problems": problems, "unchecked": unchecked, "lossy": lossy}
        )
    elif problems:
        raise FeedError("\n".join(problems))
    else:
        for note in unchecked:
            complain(note)
        for note in lossy:
            say(note)
        say(f"{len(feeds)} feeds and their tables are right: {', '.join(feeds)}.")
    if problems:
        raise typer.Exit(2)


def _unknown_channels(feed: Feed, channels: Channels) -> list[str]:
    """Say which channels a feed names that nobody has; the daemon may be set otherwise than we are."""
    _, unknown = channels.resolve([*feed.monitor.channels, *feed.monitor.escalate_to])
    if not unknown or not channels.urls:
        return []
    named = ", ".join(unknown)
    return [f"{feed.feed}: `monitor` names {named}, which {VARIABLE} has not; the default is told."]


@app.command("pause")
def pause(
    feed: Annotated[str, typer.Argument(help="Name of the feed.")],
    *,
    reason: Annotated[str, typer.Option(help="Why; whoever asks for a batch is told.")],
    json: Json = False,
) -> None:
    """Begin no new batch of a feed until it is resumed."""
    if not reason.strip():
        message = "say why: whoever asks for a batch is told"
        raise typer.BadParameter(message, param_hint="--reason")
    find_feed(load_feeds(load_settings().feeds), feed)
    with opened_ledger() as connection:
        by = f"{user()} (command line)"
        new = pauses.pause(connection, feed, by=by, reason=reason.strip())
        found = pauses.pause_of(connection, feed)
    if json:
        print_json(found)
    else:
        say(f"{'' if new else 'It was paused before. '}{found}")


@app.command("resume")
def resume(
    feed: Annotated[str, typer.Argument(help="Name of the feed.")], *, json: Json = False
) -> None:
    """Let a feed that is paused go on."""
    with opened_ledger() as connection:
        over = pauses.resume(connection, feed, by=f"{user()} (command line)")
    if over is None:
        # A feed whose file is gone can be resumed; a name that nobody has was mistyped.
        find_feed(load_feeds(load_settings().feeds), feed)
    if json:
        print_json({"feed": feed, "resumed": over is not None, "pause": over})
    elif over is None:
        say(f"Feed {feed} was not paused.")
    else:
        say(f"Feed {feed} goes on. It was paused by {over.paused_by}: {over.reason}.")


@app.command("paused")
def paused(*, json: Json = False) -> None:
    """List the feeds that are paused."""
    with opened_ledger() as connection:
        found = [*pauses.paused(connection).values()]
    if json:
        print_json(found)
        return
    print_table(
        "Paused feeds",
        ["feed", "since", "by", "why"],
        [[p.feed, f"{p.paused_at:%Y-%m-%d %H:%M:%S}", p.paused_by, p.reason] for p in found],
    )


def _lossy(feed: Feed, tables: Iterable[TableInfo], server_version: int) -> list[str]:
    """Say which columns may lose something of a value that comes as text."""
    return [
        f"{feed.feed}: {table.full_name}, column {each.column}: lossy where it is delivered as text; "
        f"{each.reason}."
        for table in tables
        for each in fidelity_of_text(
            table, feed.table_named(table.full_name).server_changed, server_version
        )
        if each.kind == "lossy"
    ]


@app.command("schema")
def schema() -> None:
    """Print the JSON Schema of a feed file, for editors."""
    sys.stdout.write(json_module.dumps(Feed.model_json_schema(), indent=1) + "\n")
