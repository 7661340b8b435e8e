"""`reconcile`: compare batches that another system has loaded with their files."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from batch_pipelines.cli.imports import user
from batch_pipelines.cli.reconciled import print_reconciliation
from batch_pipelines.cli.show import Json, print_json, say
from batch_pipelines.engine.feed_files import find_feed, load_feeds
from batch_pipelines.engine.postgres.database import open_database
from batch_pipelines.engine.postgres.migrate import require_current
from batch_pipelines.engine.reconciliation.reconcile import Reconciler, overall
from batch_pipelines.engine.settings import load_settings

_DIFFERS, _UNVERIFIED = 1, 3


def reconcile(
    feed: Annotated[str, typer.Argument(help="Name of a feed with `write: none`.")],
    *,
    batch: Annotated[
        str | None, typer.Option(help="The other system's batch id; without it, all new ones.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Compare again what has been compared.")
    ] = False,
    json: Json = False,
) -> None:
    """Compare batches that another system has loaded with their files."""
    settings = load_settings()
    chosen = find_feed(load_feeds(settings.feeds), feed)
    found = []
    with open_database(settings) as database, database.connect("reconcile") as connection:
        require_current(connection)
        reconciler = Reconciler(database, settings, chosen, f"{user()} (command line)")
        for each in reconciler.run(connection, batch, force=force):
            found.append(each)
            if not json:
                print_reconciliation(each)
    if json:
        print_json({
            "feed": feed,
            "status": overall(found),
            "batches": [asdict(each) | {"status": each.status} for each in found],
        })  # fmt: skip
    elif not found:
        say(f"{feed}: nothing to do, all that is loaded was reconciled before.")
    else:
        say(f"{feed}: {overall(found)}, {len(found)} compared")
    statuses = {each.status for each in found}
    if "FAILED" in statuses:
        raise typer.Exit(_DIFFERS)
    if statuses - {"SUCCESS"}:
        raise typer.Exit(_UNVERIFIED)
