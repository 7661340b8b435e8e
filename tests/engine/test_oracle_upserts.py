"""Upserts of records with different columns do what the oracle says, and so do their corrections."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, event, example, given, note
from hypothesis import settings as profile
from hypothesis import strategies as st

from batch_pipelines.engine.errors import ThresholdError
from batch_pipelines.engine.feeds import Feed
from batch_pipelines.engine.ledger import proofs, rejects
from tests.engine.support_oracle import Column, Foreign, Key, Table
from tests.engine.support_upsert_oracle import upserted
from tests.engine.test_oracle import (
    CHECKS,
    ID,
    KEYS,
    ONCE,
    PUBLISH,
    RULES,
    UNIQUE_RULES,
    UNTIL_VALIDATE,
    _fields,
    ddl_of,
    in_order,
    put_existing,
    rows_of,
)
from tests.support_soak import short_or_long

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.engine.conftest import MakeSite
    from tests.engine.support_oracle import Row
    from tests.engine.support_upsert_oracle import Upserted
    from tests.support_engine import Site

maybe = st.booleans()
BY_A = Key("by_a", ("a",), "ALTER TABLE {t} ADD CONSTRAINT {n} UNIQUE (a)")
GOOD: dict[str, list[int | str]] = {
    "integer": [0, 1, 2, 3, 4, 5, " 2"],
    "tiny": [0, 1, 2, 3],
    "text": ["a", "A", "b", "c", ""],
    "character varying(3)": ["a", "A", "b", "c", ""],
    "character(3)": ["a", "b", "ab ", ""],
}
BAD: dict[str, list[int | str]] = {
    "integer": ["x", 99999999999],
    "tiny": [4, "x"],
    "text": ["a"],
    "character varying(3)": ["abcd"],
    "character(3)": ["abcd"],
}


@dataclass(frozen=True)
class Case:
    """An example: a table, the key of its upserts, rows it has, and two deliveries for it."""

    table: Table
    key: tuple[str, ...]
    existing: list[dict[str, bytes]]
    first: dict[str, bytes]
    correction: dict[str, bytes] | None


@st.composite
def tables(draw: st.DrawFn, key: tuple[str, ...]) -> Table:
    def column(name: str, kinds: list[str], *, null: bool = True) -> Column:
        kind = draw(st.sampled_from(kinds))
        default: int | str | None = None
        if name not in key and draw(maybe):
            default = 2 if kind in {"integer", "tiny"} else "b" if kind != "character(3)" else "c"
        return Column(name, kind, not null or draw(st.sampled_from([False] * 5 + [True])), default)

    columns = (
        column("id", ["integer"], null=False),
        column("a", ["integer"], null=key != ("a",)),
        column("b", ["integer"]),
        column("t", ["text", "character varying(3)"]),
        column("up", ["integer"]),
        column("x", ["text", "character(3)", "tiny"]),
    )
    checks = draw(st.lists(st.sampled_from(CHECKS + RULES), max_size=2, unique_by=lambda c: c.name))
    return Table("p", columns, (ID,) if key == ("id",) else (ID, BY_A), tuple(checks))


@st.composite
def contents(draw: st.DrawFn, table: Table, key: tuple[str, ...]) -> bytes:
    def value(column: Column, *, dirty: bool) -> st.SearchStrategy[int | str | None]:
        good: list[int | str | None] = [*GOOD[column.kind], *GOOD[column.kind]]
        if dirty:
            return st.sampled_from([*good, *BAD[column.kind], None])
        return st.sampled_from(good if column.not_null else [*good, None])

    def record(*, dirty: bool) -> st.SearchStrategy[dict[str, int | str | None]]:
        return st.fixed_dictionaries(
            {c.name: value(c, dirty=dirty) for c in table.columns if c.name in key},
            optional={c.name: value(c, dirty=dirty) for c in table.columns if c.name not in key},
        )

    rarely = st.sampled_from([False] * 5 + [True])
    each_record = rarely.flatmap(lambda dirty: record(dirty=dirty))
    records = draw(st.lists(each_record, min_size=1, max_size=10))
    return b"".join(json.dumps(each).encode() + b"\n" for each in records)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    key = draw(st.sampled_from([("id",), ("id",), ("a",)]))
    table = draw(tables(key))
    corrected = key == ("id",) and draw(maybe)
    if not corrected:
        # What a correction gives back to the table's rows, those of the delivery are not held against.
        some = draw(st.lists(st.sampled_from(KEYS), max_size=1))
        some += draw(st.lists(st.sampled_from(UNIQUE_RULES), max_size=1))
        table = replace(table, keys=(*table.keys, *some))
    if key == ("id",) and not corrected and draw(maybe):
        table = replace(table, foreign=(Foreign("up_fk", ("up",), "p", ("id",)),))
    rows = draw(st.lists(_fields(table.columns, dirty=False), max_size=4))
    names = [column.name for column in table.columns]
    return Case(
        table,
        key,
        [dict(zip(names, row, strict=True)) for row in rows],
        {
            f"p{number}.jsonl": draw(contents(table, key))
            for number in range(draw(st.integers(1, 2)))
        },
        {"p.jsonl": draw(contents(table, key))} if corrected else None,
    )


def load(
    site: Site, case: Case, name: str, files: Mapping[str, bytes], existing: list[Row]
) -> Upserted:
    """Deliver files for a partition, and compare everything with the oracle."""
    expected = upserted(case.table, case.key, existing, files)
    note(f"{files} to {existing}")
    before = rows_of(site, case.table, None)
    site.deliver(dict(files), name)
    total, bad = len(expected.verdict.raw), len(expected.verdict.rejected)
    refused = total and bad == total
    if refused:
        with pytest.raises(ThresholdError):
            site.run(name, stages=UNTIL_VALIDATE)
    else:
        site.run(name, stages=UNTIL_VALIDATE)
    batch = site.newest(name)
    assert {
        ("p", r.file_name, r.record_number): frozenset(
            (b["column"], b["sqlstate"], b["constraint"]) for b in r.breaches
        )
        for r in rejects.of_batch(site.connection, batch.batch_id)
    } == expected.verdict.rejected
    wanted = before if refused else expected.rows
    assert in_order(rows_of(site, case.table, None)) == in_order(wanted)
    event("all rejected" if refused else "some rejected" if bad else "clean")
    for state in sorted({why[1] for each in expected.verdict.rejected.values() for why in each}):
        event(f"rejected by {state}")
    if not refused:
        good = expected.verdict.good["p"]
        assert in_order(rows_of(site, case.table, batch.batch_id)) == in_order(good)
    return expected


def compare(site: Site, case: Case, name: str, publish: str) -> None:
    site.sql(ddl_of([[case.table]]))
    note(ddl_of([[case.table]]))
    put_existing(site, case.table, case.existing)
    table = {
        "table": "public.p", "write": "upsert", "key": case.key, "rules": case.table.rules,
    }  # fmt: skip
    said = {"tables": [table], "thresholds": {}, "publish": publish}
    site.feed = Feed.model_validate({**site.feed.model_dump(), **said})
    existing = rows_of(site, case.table, None)
    expected = load(site, case, name, case.first, existing)
    for own in proofs.tables(site.connection, site.newest(name).batch_id):
        found = (own.inserted, own.updated, own.unchanged, own.rejected)
        rejected = len(expected.verdict.rejected)
        assert found == (expected.inserted, expected.updated, expected.unchanged, rejected)
    # The same content under another name would be a duplicate.
    again = {*(case.correction or {}).values()} == {*case.first.values()}
    if case.correction is not None and not again:
        event("corrected")
        # As if the first had never been.
        load(site, case, name, case.correction, existing)


DEFAULTS = (
    Column("id", "integer", not_null=True),
    Column("a", "integer", not_null=False),
    Column("b", "integer", not_null=False),
    Column("t", "text", not_null=False),
    Column("up", "integer", not_null=False, default=2),
    Column("x", "text", not_null=False),
)
# A default refers to nothing; two rows bring no value where only one may have none; a default breaks a
# check, in a correction of what the table holds; a row of the table comes to refer to a new one.
ODD = (
    Case(
        Table("p", DEFAULTS, (ID,), foreign=(Foreign("up_fk", ("up",), "p", ("id",)),)),
        ("id",), [], {"p.jsonl": b'{"id": 0}\n{"id": 5, "up": null}\n'}, None,
    ),
    Case(
        Table("p", DEFAULTS, (ID, next(key for key in KEYS if key.name == "a_b_nulls"))),
        ("id",), [], {"p.jsonl": b'{"id": 0}\n{"id": 0}\n'}, None,
    ),
    Case(
        Table(
            "p", (*DEFAULTS[:2], replace(DEFAULTS[2], default=2), *DEFAULTS[3:]), (ID,),
            (next(check for check in CHECKS if check.name == "less"),),
        ),
        ("id",), [], {"p.jsonl": b'{"id": 0}\n'}, {"p.jsonl": b'{"id": 0}\n{"id": 0, "a": 2}\n'},
    ),
    Case(
        Table("p", DEFAULTS, (ID, BY_A), foreign=(Foreign("up_fk", ("up",), "p", ("id",)),)),
        ("id",),
        [{"id": b"0", "a": b"1", "b": b"0", "t": b"a", "up": b"0", "x": b"a"}],
        {"p.jsonl": b'{"id": 3, "a": 1, "up": 3}\n{"id": 0, "a": 2, "up": 3}\n'}, None,
    ),
)  # fmt: skip


@short_or_long("examples", 40, 1000)
def test_what_comes_of_upserts(site18: MakeSite, examples: int) -> None:
    """Given any table and records of different columns, the bulk path does what the oracle says."""
    there = site18(ONCE)
    names = (f"batch-{number}" for number in itertools.count())

    @profile(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(cases(), PUBLISH)
    @example(ODD[0], "direct")
    @example(ODD[1], "direct")
    @example(ODD[2], "direct")
    @example(ODD[3], "direct")
    def law(case: Case, publish: str) -> None:
        compare(there, case, next(names), publish)

    law()
