"""`feeds`: what there is, whether it is right, and what a feed may say."""

from __future__ import annotations

import json as json_module
import sys

import typer

from batch_pipelines.cli.show import Json, print_json, print_table, say
from batch_pipelines.engine.catalog import read_tables
from batch_pipelines.engine.errors import FeedError
from batch_pipelines.engine.feed_files import load_feeds
from batch_pipelines.engine.feeds import Feed
from batch_pipelines.engine.landing import find_keys
from batch_pipelines.engine.postgres.database import open_database
from batch_pipelines.engine.settings import load_settings

app = typer.Typer(help="The feeds: what can be imported, and how.", no_args_is_help=True)


@app.command("list")
def list_(*, json: Json = False) -> None:
    """List the feeds and what lies in landing for them."""
    settings = load_settings()
    feeds = load_feeds(settings.feeds)
    if json:
        print_json([feed.model_dump(mode="json") for feed in feeds.values()])
        return
    print_table(
        f"Feeds in {settings.feeds}",
        ["feed", "tables", "path", "deliveries in landing"],
        [
            [
                feed.feed,
                ", ".join(table.table for table in feed.tables),
                feed.source.path,
                len(find_keys(feed, settings.root)),
            ]
            for feed in feeds.values()
        ],
    )


@app.command("check")
def check(*, json: Json = False) -> None:
    """Check every feed file, and the tables they name."""
    settings = load_settings()
    feeds = load_feeds(settings.feeds)
    problems = []
    with open_database(settings) as database, database.connect("check") as connection:
        for feed in feeds.values():
            try:
                read_tables(connection, feed)
            except FeedError as error:
                problems.append(str(error))
    if json:
        print_json({"feeds": list(feeds), "problems": problems})
    elif problems:
        raise FeedError("\n".join(problems))
    else:
        say(f"{len(feeds)} feeds and their tables are right: {', '.join(feeds)}.")
    if problems:
        raise typer.Exit(2)


@app.command("schema")
def schema() -> None:
    """Print the JSON Schema of a feed file, for editors."""
    sys.stdout.write(json_module.dumps(Feed.model_json_schema(), indent=1) + "\n")
