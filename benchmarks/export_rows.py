"""Put the rows of a batch away, as retention does before it deletes them; a process of its own.

Arguments: feed, partition key, and a file that gets the seconds it took, without the process's start.
"""

from __future__ import annotations

import sys
import time
import uuid
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from batch_pipelines.engine.archiving.rows.export import export_rows
from batch_pipelines.engine.feed_files import load_feeds
from batch_pipelines.engine.ledger import batches
from batch_pipelines.engine.postgres.database import open_database
from batch_pipelines.engine.postgres.lease import acquire
from batch_pipelines.engine.settings import load_settings


def main(name: str, key: str, took: str) -> None:
    """Export, seal, read back, compare, record."""
    settings = load_settings()
    feed = load_feeds(settings.feeds)[name]
    with (
        open_database(settings) as database,
        acquire(database, name, key, str(uuid.uuid4()), seconds=60) as lease,
        database.connect("benchmark") as connection,
    ):
        batch = batches.find(connection, f"{name}/{key}")
        began = time.perf_counter()
        if not export_rows(connection, settings, feed, batch, lease).worked:
            sys.exit("it was put away already")
        Path(took).write_text(str(time.perf_counter() - began), encoding="utf-8")


main(*sys.argv[1:])
