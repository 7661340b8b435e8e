"""Telling the catalog of lineage after a command that needs no daemon."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import psycopg

from batch_pipelines.cli.show import say
from batch_pipelines.engine.errors import BatchError
from batch_pipelines.engine.lineage.send import send_due

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.postgres.database import Database
    from batch_pipelines.engine.settings import Settings

_BUDGET_SECONDS = 10.0


def tell_catalog(
    settings: Settings, database: Database, feeds: Mapping[str, Feed], *, quiet: bool
) -> None:
    """Send the lineage that is due, as far as it is taken; the sensor sends the rest.

    Args:
        settings: The settings; without a URL of a catalog nothing is done.
        database: The target database.
        feeds: The feeds, by name.
        quiet: Whether to say nothing of what goes wrong.
    """
    if settings.openlineage_url is None:
        return
    try:
        with database.connect("lineage") as connection:
            problem = send_due(connection, settings, feeds, _now, budget=_BUDGET_SECONDS).problem
    except (BatchError, psycopg.Error) as error:
        problem = str(error) if isinstance(error, BatchError) else type(error).__name__
    if problem is not None and not quiet:
        say(f"Lineage waits for the sensor: {problem}.")


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
