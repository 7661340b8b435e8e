"""The main job on real data, as `make run` shows it: a year of flights, a damaged delivery, the mend.

What is delivered, `examples` makes.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from batch_pipelines.cli.db import upgrade_
from batch_pipelines.cli.imports import import_
from batch_pipelines.cli.show import console, say
from batch_pipelines.engine.errors import BatchError
from batch_pipelines.engine.ledger import batches
from batch_pipelines.engine.settings import load_settings
from batch_pipelines.examples import YEAR, make_deliveries
from batch_pipelines.instance import prepared

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from batch_pipelines.engine.postgres.database import Database

_RECORDS = 336_776
_DAMAGED = f"{YEAR}-12"


def main() -> None:
    """Run the tour; the exit code is 0 when everything went as it should."""
    try:
        right = _tour()
    except BatchError as error:
        say(f"Error: {error}")
        right = False
    sys.exit(0 if right else 1)


def _tour() -> bool:
    settings = load_settings()
    landing = settings.root / "landing"
    with prepared(settings) as database:
        upgrade_(json=False)
        _title("A year of flights is delivered, with the tables they refer to")
        for path in make_deliveries(landing):
            say(f"  {path.relative_to(settings.root)}")
        loaded = _import("flight_reference")
        december = landing / "flights" / _DAMAGED / "flights.csv"
        with _damaged(december):
            _title(f"On its way, one byte of {december.relative_to(settings.root)} was changed")
            refused = not _import("flights")
        _title("The sender delivers December again, whole")
        loaded &= _import("flights", _DAMAGED)
        _title("What stands in the tables now")
        return loaded and refused and _sum_up(database)


def _import(feed: str, batch: str | None = None) -> bool:
    say(f"$ batch-pipelines import {feed}" + (f" --batch {batch}" if batch else ""))
    try:
        import_(feed, batch=batch, force=False, json=False)
    except typer.Exit as ended:
        return ended.exit_code == 0
    return True


def _sum_up(database: Database) -> bool:
    with database.connect("tour") as connection:
        good = batches.history(connection, feed="flights", status="SUCCESS")
        row = connection.execute(
            "SELECT count(*), count(DISTINCT import_batch_id) FROM public.flights"
        ).fetchone()
    written = sum(batch.written_records or 0 for batch in good)
    say(f"  {len(good)} batches of flights are SUCCESS; they wrote {written:,} records.")
    say(f"  public.flights holds {row[0]:,} rows of {row[1]} batches." if row else "")
    say("Look around:")
    say(f"  batch-pipelines show flights/{_DAMAGED}     (or: .venv/bin/batch-pipelines ...)")
    say("  batch-pipelines import departures        a delivery of which some records do not fit")
    say("  batch-pipelines import inventory         upserts, among rows typed in by hand")
    say(
        "  batch-pipelines import operations        JSON lines for three tables, with columns that vary"
    )
    say("  batch-pipelines import lab_results       values that people are told of at once")
    say("  make dev                                 opens Dagster's UI")
    return written == _RECORDS


@contextmanager
def _damaged(path: Path) -> Iterator[None]:
    """Change one byte of a file for the length of a block."""
    whole, times = path.read_bytes(), path.stat()
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    try:
        yield
    finally:
        path.write_bytes(whole)
        # Its own time again: to the landing sensor it is the delivery it was.
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def _title(text: str) -> None:
    console().print(f"\n[bold]{text}[/]")


if __name__ == "__main__":
    main()
