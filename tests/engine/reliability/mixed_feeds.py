"""Deliveries of the feeds that ship with the project, made up: small ones, some rows of which are wrong.

What a partition brings depends on its key, so that those of two never hold the same key of a table but
where a feed upserts.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.parquet as pq

from batch_pipelines.engine.feed_files import load_feed

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping

    from batch_pipelines.engine.feeds import Feed

PROJECT: Final = Path(__file__).parents[3]
# What deliveries refer to and no batch has written.
_BY_HAND = """
INSERT INTO public.airlines (carrier, name) VALUES ('XX', 'By hand');
INSERT INTO public.airports (faa, name, lat, lon, alt, tz, dst)
    VALUES ('AAA', 'By hand', 1, 1, 1, 1, 'N'), ('BBB', 'By hand', 2, 2, 2, 2, 'N');
INSERT INTO public.planes (tailnum, type, manufacturer, model, engines, seats, engine)
    VALUES ('N1', 'plane', 'hand', 'made', 1, 1, 'rubber');
"""
MENDED = """
INSERT INTO public.planes (tailnum, type, manufacturer, model, engines, seats, engine)
SELECT n, 'plane', 'late', 'comer', 1, 1, 'steam' FROM unnest(%s::text[]) AS n ON CONFLICT DO NOTHING
"""
"""What was missing when departures of a plane that nobody knew were set aside."""

Files = dict[str, bytes]


def shipped() -> dict[str, Feed]:
    """Read the feeds by name; those with rules of retention get one for the rows."""
    feeds = {}
    for path in sorted((PROJECT / "feeds").glob("*.yaml")):
        feed = load_feed(path)
        if feed.feed in MAKERS:
            kept = {"keep": "90 days", "legal_source": "the soak"}
            told = feed.model_dump() | (
                {"retention": {"rows": kept}} if feed.feed in _AGING else {}
            )
            feeds[feed.feed] = feed.model_validate(told)
    return feeds


def ddl() -> str:
    """Give the SQL that makes the tables of all feeds, and what is typed in by hand."""
    reference, *others = ("flight_reference", "flights", "departures", "inventory", "lab_results",
                          "operations")  # fmt: skip
    texts = [(PROJECT / f"feeds/sql/{name}.sql").read_text() for name in (reference, *others)]
    return "\n".join([*texts, _BY_HAND])


def deliver(feed: str, key: int, chance: random.Random) -> Files:
    """Make a delivery of a partition; another one each time.

    Args:
        feed: Name of the feed.
        key: Number of the partition.
        chance: Decides.

    Returns:
        The files by name.
    """
    return MAKERS[feed](key, chance)


def _reference(key: int, chance: random.Random) -> Files:
    rows = range(chance.randint(1, 4))
    note = chance.choice("abcd")
    tables = {
        "airlines": {
            "carrier": [f"C{key}_{n}" for n in rows],
            "name": [f"line {note}" for _ in rows],
        },
        "airports": {
            "faa": [f"F{key}_{n}" for n in rows], "name": [f"port {note}" for _ in rows],
            "lat": [float(n) for n in rows], "lon": [float(-n) for n in rows],
            "alt": [*rows], "tz": [*rows], "dst": ["N" for _ in rows],
        },
        "planes": {
            "tailnum": [f"P{key}_{n}" for n in rows], "type": ["jet" for _ in rows],
            "manufacturer": [note for _ in rows], "model": ["m" for _ in rows],
            "engines": [2 for _ in rows], "seats": [chance.randint(1, 300) for _ in rows],
            "engine": ["fan" for _ in rows],
        },
    }  # fmt: skip
    found = {}
    for name, columns in tables.items():
        sink = io.BytesIO()
        pq.write_table(pa.table(columns), sink)
        found[f"{name}.parquet"] = sink.getvalue()
    return found


def _flights(key: int, chance: random.Random) -> Files:
    head = ("year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,carrier,"
            "flight,tailnum,origin,dest,air_time,distance,hour,minute,time_hour")  # fmt: skip
    lines = [head]
    for n in range(chance.randint(1, 40)):
        delay = chance.choice(["", str(chance.randint(-20, 300))])
        lines.append(
            f"2013,1,1,{500 + n},600,{delay},700,710,{delay},XX,{key * 1000 + n},N1,AAA,BBB,"
            f"{chance.randint(20, 400)},{chance.randint(1, 3000)},5,{n % 60},2013-01-01T05:00:00Z"
        )
    return {"flights.csv": _text(lines)}


def _departures(key: int, chance: random.Random) -> Files:
    lines = ["time_hour;carrier;flight;tailnum;origin;dest;dep_delay"]
    for n in range(chance.randint(8, 40)):
        plane = f"M{key}_{n % 3}" if chance.random() < 0.05 else "N1"
        dest = "AAA" if chance.random() < 0.03 else "BBB"
        delay = chance.choice(["NA", "late", "7200", *map(str, range(40))])
        lines.append(f"2013-02-01T05:00:00Z;XX;{key * 1000 + n};{plane};AAA;{dest};{delay}")
    return {"departures.csv": _text(lines)}


def _inventory(_: int, chance: random.Random) -> Files:
    codes = chance.sample(["LAB", "IT", "STORE", "PHARM"], 3)
    users = chance.sample(range(2, 40), chance.randint(1, 12))
    return {
        "departments.csv": _text(
            ["code,name,active", *(f"{code},{code} {chance.randint(1, 5)},true" for code in codes)]
        ),
        "users.csv": _text(["id,username,email", *(f"{n},user{n},user{n}@ex.org" for n in users)]),
        "user_departments.csv": _text(
            [
                "user_id,department,role",
                *(f"{n},{codes[n % 3]},{chance.choice(['head', 'member'])}" for n in users),
            ]
        ),
    }


def _results(key: int, chance: random.Random) -> Files:
    lines = [
        "accession,test_code,patient,value,unit,technician,ordering_physician,collected_at,received_at"
    ]
    for n in range(chance.randint(20, 50)):
        value = (
            chance.choice([7.9, -1.0]) if chance.random() < 0.01 else chance.randint(30, 60) / 10
        )
        lines.append(
            f"A-{key:03}{n:03},K,P-{n:06},{value:.2f},mmol/L,T-1,D-1,2025-01-03T05:00:00Z,"
            "2025-01-03T05:30:00Z"
        )
    return {"results.csv": _text(lines)}


def _operations(key: int, chance: random.Random) -> Files:
    entries: list[dict[str, object]] = []
    for n in range(chance.randint(1, 12)):
        person: dict[str, object] = {
            "table": "person",
            "id": f"p{key}_{n}",
            "name": chance.choice("xyz"),
        }
        if chance.random() < 0.5:
            person["email"] = "a@example.org"
        leg = {"table": "journey_leg", "id": f"l{key}_{n}", "person_id": f"p{key}_{n}",
               "from_location": f"s{key}_{n}", "duration": chance.randint(0, 90)}  # fmt: skip
        entries += [person, {"table": "location", "id": f"s{key}_{n}", "lat": n, "lon": 1.5}, leg]
    return {"writes.jsonl": _text([json.dumps(entry) for entry in entries])}


def _text(lines: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


MAKERS: Final[Mapping[str, Callable[[int, random.Random], Files]]] = {
    "flight_reference": _reference,
    "flights": _flights,
    "departures": _departures,
    "inventory": _inventory,
    "lab_results": _results,
    "operations": _operations,
}
_AGING = ("flights", "lab_results", "departures")
