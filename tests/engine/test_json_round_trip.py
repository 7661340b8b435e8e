"""Whatever JSON lines say arrives in the table, through all five stages; and the feed `operations`."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batch_pipelines.engine.feed_files import load_feed
from batch_pipelines.engine.ledger import proofs

if TYPE_CHECKING:
    from tests.engine.conftest import MakeSite

pytestmark = pytest.mark.versions

PROJECT = Path(__file__).parents[2]
DDL = """
CREATE TABLE t (
    id bigint PRIMARY KEY, a text, b text DEFAULT 'b', n numeric(38, 10), m numeric DEFAULT 5,
    i integer NOT NULL DEFAULT 3, j json, k jsonb DEFAULT '[]', flag boolean DEFAULT true,
    import_batch_id uuid)
"""
DEFAULTS = {"b": "b", "m": Decimal(5), "i": 3, "k": [], "flag": True}
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
NUMBER = st.decimals(-(10**20), 10**20, places=10)
NESTED = st.recursive(
    st.none() | st.booleans() | TEXT | st.integers(-(10**30), 10**30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
RECORD = st.fixed_dictionaries(
    {},
    optional={
        "a": st.none() | TEXT,
        "b": st.none() | TEXT,
        "n": st.none() | NUMBER,
        "m": st.none() | NUMBER,
        "i": st.integers(-(2**31), 2**31 - 1),
        "j": NESTED,
        "k": NESTED,
        "flag": st.none() | st.booleans(),
    },
)


def written(record: dict[str, Any], *, ascii_only: bool) -> str:
    """Write a record, numbers with all their digits."""
    members = [
        f"{json.dumps(key)}:{format(value, 'f') if isinstance(value, Decimal) else json.dumps(value, ensure_ascii=ascii_only)}"  # noqa: E501
        for key, value in record.items()
    ]
    return "{" + " , ".join(members) + "}"


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(records=st.lists(RECORD, min_size=1, max_size=8), ascii_only=st.booleans())
def test_what_is_delivered_is_stored(
    site18: MakeSite, records: list[dict[str, Any]], ascii_only: bool
) -> None:
    there = site18("DROP TABLE IF EXISTS t CASCADE;" + DDL, {"public.t": "*"})
    numbered = [{"id": number, **record} for number, record in enumerate(records)]
    text = "\n".join(written(record, ascii_only=ascii_only) for record in numbered)
    there.deliver({"a.jsonl": text})
    batch = there.run(force=True)
    assert batch.status == "SUCCESS", batch.error_details
    names = ["id", "a", "b", "n", "m", "i", "j", "k", "flag"]
    found = there.sql(f"SELECT {', '.join(names)} FROM t ORDER BY id")
    wanted = [tuple(record.get(name, DEFAULTS.get(name)) for name in names) for record in numbered]
    assert found == wanted
    groups = {frozenset(record) & set(DEFAULTS) for record in records}
    assert len(proofs.signatures(there.connection, batch.batch_id)) == len(groups)


def operations() -> str:
    """Write a delivery of the feed `operations`: 24 persons, 3 locations, 2 legs."""
    people: list[dict[str, Any]] = [
        {"table": "person", "id": f"p{n}", "name": f"Person {n}", "phone": f"+91-{n}"}
        for n in range(24)
    ]
    for person in people[:12]:
        person["email"] = None
    places = [{"table": "location", "id": f"l{n}", "lat": n / 8, "lon": -n} for n in range(3)]
    legs: list[dict[str, Any]] = [
        {"table": "journey_leg", "id": "j0", "person_id": "p0", "forceDrainToDB": True},
        {"table": "journey_leg", "id": "j1", "person_id": "p1", "from_location": "l1",
         "mode": "bus", "duration": 60, "forceDrainToDB": True},
    ]  # fmt: skip
    return "".join(json.dumps(record) + "\n" for record in [*legs, *places, *people])


def test_the_feed_operations_groups_its_writes(site: MakeSite) -> None:
    there = site((PROJECT / "feeds/sql/operations.sql").read_text())
    there.feed = load_feed(PROJECT / "feeds/operations.yaml")
    folder = there.settings.root / "landing/operations/first"
    folder.mkdir(parents=True)
    (folder / "writes.jsonl").write_text(operations())
    batch = there.run()
    assert (batch.status, batch.written_records) == ("SUCCESS", 29)
    found = [
        (s.target_table, len(s.columns), s.entries, s.bulk, s.statements)
        for s in proofs.signatures(there.connection, batch.batch_id)
    ]
    assert found == [
        ("public.journey_leg", 5, 1, False, 1),
        ("public.journey_leg", 4, 1, False, 1),
        ("public.location", 3, 3, False, 3),
        ("public.person", 4, 12, True, 1),
        ("public.person", 3, 12, True, 1),
    ]
