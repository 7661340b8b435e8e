"""Packing it: one zip, whose parts are listed in its README."""

from __future__ import annotations

import json
import zipfile
from typing import TYPE_CHECKING

from batch_pipelines.engine.errors import SettingsError
from batch_pipelines.engine.feed_files import load_feeds
from batch_pipelines.engine.reports.batch_facts import read_batch
from batch_pipelines.engine.reports.batch_page import batch_page
from batch_pipelines.engine.reports.export import json_text
from batch_pipelines.engine.reports.html import page_html
from batch_pipelines.engine.support.definitions import table_definitions
from batch_pipelines.engine.support.surroundings import (
    feed_text,
    migrations,
    shown_settings,
    versions,
)

if TYPE_CHECKING:
    import datetime as dt
    from pathlib import Path

    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.settings import Settings

_README = """\
What is known of batch {batch_id} ({name}, {status}), to help with it. Made at {made_at} by {made_by}.

report.html      what happened, for people: begin here
report.json      the same for programs
runs.json        errors in the logs of its runs: kinds and places in the program, not their texts
tables.json      how its tables are defined, from PostgreSQL's catalog
feed.yaml        the feed's file as it is now
settings.json    the settings; of a secret, only whether it is set
versions.json    Python, system, PostgreSQL, packages
migrations.json  where the ledger's schema stands

No value of a row and no key is in here, and no secret. Names are: of files, tables, columns, people who
did something, and what they gave as a reason. Look at it before you hand it on.
"""


def parts(
    connection: Connection,
    settings: Settings,
    batch_id: str,
    runs: object,
    *,
    made_at: dt.datetime,
    made_by: str,
) -> dict[str, str]:
    """Gather what is packed.

    Args:
        connection: To the target database, in autocommit mode.
        settings: The settings.
        batch_id: The batch.
        runs: What the logs of its runs say; without texts of errors, which may hold values.
        made_at: Now.
        made_by: The program, with its version.

    Returns:
        The text of each file, by its name.

    Raises:
        FeedError: There is no such batch, or a feed file is wrong.
    """
    facts = read_batch(connection, batch_id, made_at=made_at, made_by=made_by)
    batch = facts.batch
    feed = load_feeds(settings.feeds).get(batch.feed)
    tables = [] if feed is None else [each.table for each in feed.tables]
    told = {
        "README.txt": _README.format(
            batch_id=batch_id, name=batch.name, status=batch.status, made_at=made_at.isoformat(),
            made_by=made_by,
        ),
        "report.html": page_html(batch_page(facts)),
        "report.json": json_text(facts),
        "runs.json": _json(runs),
        "tables.json": _json(table_definitions(connection, batch_id, tables)),
        "settings.json": _json(shown_settings(settings)),
        "versions.json": _json(versions(connection)),
        "migrations.json": _json(migrations(connection)),
    }  # fmt: skip
    text = feed_text(settings.feeds, batch.feed)
    return told if text is None else {**told, "feed.yaml": text}


def write_zip(path: Path, told: dict[str, str]) -> None:
    """Write the file, which must not be there yet.

    Args:
        path: Where.
        told: The text of each file, by its name.

    Raises:
        SettingsError: It cannot be written.
    """
    try:
        with zipfile.ZipFile(path, "x", zipfile.ZIP_DEFLATED) as packed:
            for name, text in sorted(told.items()):
                packed.writestr(f"{path.stem}/{name}", text)
    except OSError as error:
        message = f"{path}: cannot be written ({error.strerror}). Choose another place with --to."
        raise SettingsError(message) from None


def _json(value: object) -> str:
    return json.dumps(value, indent=1, default=str) + "\n"
