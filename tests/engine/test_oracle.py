"""The bulk path accepts and rejects what the oracle does, for the same reasons; at no greater cost."""

from __future__ import annotations

import itertools
import math
import random
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import HealthCheck, event, given, note
from hypothesis import settings as profile
from hypothesis import strategies as st

from batch_pipelines.engine.errors import ThresholdError
from batch_pipelines.engine.feeds import Feed
from batch_pipelines.engine.ledger import proofs, rejects
from batch_pipelines.engine.ledger.stages import STAGES
from batch_pipelines.engine.reading import blocks
from batch_pipelines.engine.writing import bisecting
from tests.engine.support_oracle import (
    Check,
    Column,
    Exclusion,
    Foreign,
    Key,
    Row,
    Table,
    judged,
    read_value,
)
from tests.support_engine import Site, feed_of
from tests.support_rejects import raw

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.engine.conftest import MakeSite, OpenSite

UNTIL_VALIDATE = STAGES[:4]
ONCE = """
CREATE DOMAIN tiny AS integer CHECK (VALUE <= 3);
CREATE DOMAIN given AS integer CHECK (VALUE IS NOT NULL);
CREATE DOMAIN never_null AS given;
CREATE FUNCTION refuse_3() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN IF NEW.b = 3 THEN RAISE EXCEPTION 'no'; END IF; RETURN NEW; END $$;
"""


# Generated schemas


def _number(row: Row, name: str) -> int | None:
    found = row[name]
    assert not isinstance(found, str)
    return found


def _is_positive(row: Row) -> bool | None:
    a = _number(row, "a")
    return None if a is None else a > 0


def _divides(row: Row) -> bool | None:
    a = _number(row, "a")
    # SQL cuts off the fraction, and so does int().
    return None if a is None else int(10 / a) > 3


def _is_less(row: Row) -> bool | None:
    a, b = _number(row, "a"), _number(row, "b")
    return None if a is None or b is None else a < b


def _overlap(one: Row, other: Row) -> bool:
    """Say whether [a, b) of two rows overlap; a null is infinite."""
    bounds = []
    for row in (one, other):
        a, b = _number(row, "a"), _number(row, "b")
        low, high = -math.inf if a is None else a, math.inf if b is None else b
        if low > high:
            raise ValueError
        bounds.append((low, high))
    (low, high), (other_low, other_high) = bounds
    return max(low, other_low) < min(high, other_high)


def _same_text(one: Row, other: Row) -> bool:
    return one["t"] is not None and one["t"] == other["t"]


def _is_within(row: Row) -> bool | None:
    b = _number(row, "b")
    return None if b is None else 1 <= b <= 4


def _is_known(row: Row) -> bool | None:
    return None if row["t"] is None else row["t"] in {"a", "A", "b", "a,b"}


def _has_form(row: Row) -> bool | None:
    return None if row["t"] is None else re.search("^[abB]", str(row["t"])) is not None


def _is_share(row: Row) -> bool | None:
    a, b = _number(row, "a"), _number(row, "b")
    # Division is strict: where b is null nothing is compared, but a may be zero all the same.
    share = None if a is None else int(6 / a)
    return None if share is None or b is None else share >= b


CHECKS = (
    Check("positive", "a > 0", _is_positive),
    Check("divides", "10 / a > 3", _divides),
    Check("less", "a < b", _is_less),
)
RULES = (
    Check("within", "", _is_within, {"range": {"column": "b", "min": 1, "max": 4}}),
    Check("known", "", _is_known, {"in": {"column": "t", "values": ["a", "A", "b", "a,b"]}}),
    Check("form", "", _has_form, {"matches": {"column": "t", "pattern": "^[abB]"}}),
    Check("share", "", _is_share, {"expression": "6 / a >= b"}),
)
UNIQUE_RULES = (
    Key("b_rule", ("b",), "", rule={"unique": ["b"]}),
    Key("t_a_rule", ("t", "a"), "", rule={"unique": ["t", "a"]}),
)
KEYS = (
    Key("a", ("a",), "ALTER TABLE {t} ADD CONSTRAINT {n} UNIQUE (a)"),
    Key("b", ("b",), "ALTER TABLE {t} ADD CONSTRAINT {n} UNIQUE (b) DEFERRABLE INITIALLY DEFERRED"),
    Key("a_t", ("a", "t"), "ALTER TABLE {t} ADD CONSTRAINT {n} UNIQUE (t, a)"),
    Key(
        "a_b_nulls",
        ("a", "b"),
        "ALTER TABLE {t} ADD CONSTRAINT {n} UNIQUE NULLS NOT DISTINCT (a, b)",
        nulls_equal=True,
    ),
    Key(
        "part",
        ("a",),
        "CREATE UNIQUE INDEX {n} ON {t} (a) WHERE b > 1",
        covers=lambda row: (_number(row, "b") or 0) > 1,
    ),
    Key("lower", ("t",), "CREATE UNIQUE INDEX {n} ON {t} (lower(t))", lower=True),
    Key("x", ("x",), "ALTER TABLE {t} ADD CONSTRAINT {n} UNIQUE (x)"),
)
EXCLUSIONS = (
    Exclusion("apart", "EXCLUDE USING gist (int4range(a, b) WITH &&)", _overlap),
    Exclusion("no_twin", "EXCLUDE USING btree (t WITH =)", _same_text),
)
ID = Key("pkey", ("id",), "ALTER TABLE {t} ADD CONSTRAINT {n} PRIMARY KEY (id)")
PAIR = Key("pair", ("a", "b"), "ALTER TABLE {t} ADD CONSTRAINT {n} UNIQUE (a, b)")
LATER = " DEFERRABLE INITIALLY DEFERRED"
maybe = st.booleans()


@dataclass(frozen=True)
class Case:
    """An example: tables in their groups, rows they have, and files."""

    groups: tuple[tuple[Table, ...], ...]
    existing: dict[str, list[dict[str, bytes]]]
    files: dict[str, dict[str, bytes]]

    @property
    def tables(self) -> list[Table]:
        """All tables, parents first."""
        return [table for group in self.groups for table in group]


@st.composite
def tables(draw: st.DrawFn, name: str) -> Table:
    columns = (
        Column("id", "integer", not_null=True),
        Column("a", "integer", draw(maybe)),
        Column("b", "integer"),
        Column("t", draw(st.sampled_from(["text", "character varying(3)"])), draw(maybe)),
        Column("up", "integer"),
        Column(
            "x",
            draw(st.sampled_from(["text", "character(3)", "jsonb", "tiny", "never_null"])),
            draw(maybe),
        ),
    )
    some = [ID, *draw(st.lists(st.sampled_from(KEYS), max_size=2, unique_by=lambda k: k.name))]
    checks = draw(st.lists(st.sampled_from(CHECKS), max_size=2, unique_by=lambda c: c.name))
    checks += draw(st.lists(st.sampled_from(RULES), max_size=2, unique_by=lambda c: c.name))
    some += draw(st.lists(st.sampled_from(UNIQUE_RULES), max_size=1))
    exclusion = draw(st.none() | st.none() | st.sampled_from(EXCLUSIONS))
    if exclusion is not None:
        exclusion = replace(exclusion, name=f"{name}_{exclusion.name}")
    return Table(
        name,
        columns,
        tuple(replace(key, name=f"{name}_{key.name}") for key in some),
        tuple(replace(check, name=f"{name}_{check.name}") for check in checks),
        trigger=draw(st.sampled_from([False, False, True])),
        exclusion=exclusion,
    )


def referring(name: str, column: str, parent: str, parent_column: str) -> Foreign:
    """Make a rule that is like a foreign key, but needs no unique column to refer to."""
    said = {"columns": [column], "table": f"public.{parent}", "table_columns": [parent_column]}
    return Foreign(name, (column,), parent, (parent_column,), rule={"references": said})


@st.composite
def schemas(draw: st.DrawFn) -> tuple[tuple[Table, ...], ...]:
    """One table, or a parent and a child; each may refer to itself, and they in a circle."""
    parent = draw(tables("p"))
    later = st.sampled_from(["", LATER])
    if draw(maybe):
        own = Foreign("p_up_fk", ("up",), "p", ("id",), draw(later))
        parent = replace(parent, foreign=(own,))
    elif draw(maybe):
        parent = replace(parent, foreign=(referring("p_up_refers", "up", "p", "a"),))
    if draw(maybe):
        return ((parent,),)
    child = draw(tables("c"))
    kind = draw(st.sampled_from(["up", "pair", "both", "rule", "circle", "circle by rule"]))
    keys: list[Foreign] = []
    if kind == "rule":
        keys.append(referring("c_t_refers", "t", "p", "t"))
    elif kind != "pair":
        keys.append(Foreign("c_up_fk", ("up",), "p", ("id",), draw(later)))
    if kind in {"pair", "both"}:
        parent = replace(parent, keys=(*parent.keys, replace(PAIR, name="p_pair")))
        keys.append(Foreign("c_pair_fk", ("a", "b"), "p", ("a", "b"), draw(later)))
    if draw(maybe):
        keys.append(Foreign("c_b_fk", ("b",), "c", ("id",), draw(later)))
    child = replace(child, foreign=tuple(keys))
    if kind == "circle by rule":
        back = referring("p_b_refers", "b", "c", "b")
        parent = replace(parent, foreign=(*parent.foreign, back))
        return ((parent, child),)
    if kind == "circle":
        back = Foreign("p_b_fk", ("b",), "c", ("id",), LATER)
        parent = replace(parent, foreign=(*parent.foreign, back))
        return ((parent, child),)
    return (parent,), (child,)


def ddl_of(groups: Sequence[Sequence[Table]]) -> str:
    parts = ["DROP TABLE IF EXISTS c, p CASCADE"]
    all_tables = [table for group in groups for table in group]
    for table in all_tables:
        columns = [
            f"{column.name} {column.kind}"
            + " NOT NULL" * column.not_null
            + (f" DEFAULT '{column.default}'" if column.default is not None else "")
            for column in table.columns
        ]
        columns += [
            f"CONSTRAINT {check.name} CHECK ({check.expression})"
            for check in table.checks
            if check.rule is None
        ]
        if table.exclusion is not None:
            columns.append(f"CONSTRAINT {table.exclusion.name} {table.exclusion.ddl}")
        parts.append(f"CREATE TABLE {table.name} ({', '.join(columns)}, import_batch_id uuid)")
        parts += [
            key.ddl.format(t=table.name, n=key.name) for key in table.keys if key.rule is None
        ]
        if table.trigger:
            parts.append(
                f"CREATE TRIGGER refuse BEFORE INSERT ON {table.name}"
                " FOR EACH ROW EXECUTE FUNCTION refuse_3()"
            )
    parts += [
        f"ALTER TABLE {table.name} ADD CONSTRAINT {key.name} FOREIGN KEY ({', '.join(key.columns)})"
        f" REFERENCES {key.parent} ({', '.join(key.parent_columns)}){key.suffix}"
        for table in all_tables
        for key in table.foreign
        if key.rule is None
    ]
    return ";".join(parts)


# Generated files

WHOLE = [b"0", b"1", b"2", b"3", b"4", b"5"]
NOT_INTEGERS = [b"x", b"1.5", b"99999999999", b"0x1", b'""', b"\xff", b"1\0", b'1"', b'"1']
TEXTS = [b"a", b"A", b"b", b"B", b"c", b'"a,b"', b'""', b""]
NOT_TEXTS = [b"abcd", "é\u00e9\u00e9".encode(), b"\xc3", b"a\0", b'a"', b'"a"b', b'"a', b'"a\nb"']
GOOD = {
    "integer": [*WHOLE, b" 2", b"-1", b""],
    "text": TEXTS,
    "character varying(3)": TEXTS,
    "character(3)": [b"a", b"b", b"ab ", b"abc ", b"A", b"", b'""'],
    "jsonb": [b"1", b"2", b'"""a"""', b"{}", b'" [1,2]"', b""],
    "tiny": [*WHOLE[:4], b""],
    "never_null": WHOLE,
}
BAD = {
    "integer": NOT_INTEGERS,
    "text": NOT_TEXTS,
    "character varying(3)": NOT_TEXTS,
    "character(3)": [b"abcd", *NOT_TEXTS],
    "jsonb": [b"{", b"a", b'"""\\u0000"""', b'""', b"\xff"],
    "tiny": [b"5", b"4", *NOT_INTEGERS],
    "never_null": [b"", b"", *NOT_INTEGERS],
}


@st.composite
def contents(draw: st.DrawFn, table: Table) -> bytes:
    columns = draw(st.permutations(table.columns))
    end = draw(st.sampled_from([b"\n", b"\n", b"\r\n"]))
    rarely = st.sampled_from([False] * 11 + [True])
    lines = [b",".join(column.name.encode() for column in columns)]
    for _ in range(draw(st.integers(0, 12))):
        # One draw a record, so that there may be many.
        dirty = draw(rarely)
        fields = list(draw(_fields(columns, dirty=dirty)))
        if dirty and draw(rarely):
            fields = fields[:-1] if draw(maybe) else [*fields, b"more"]
        lines.append(b",".join(fields))
    content = end.join(lines)
    return content if len(lines) > 1 and draw(maybe) else content + end


def _fields(columns: Sequence[Column], *, dirty: bool) -> st.SearchStrategy[tuple[bytes, ...]]:
    return st.tuples(*(st.sampled_from(_values(column, dirty=dirty)) for column in columns))


def _values(column: Column, *, dirty: bool) -> list[bytes]:
    if dirty:
        return [*GOOD[column.kind], *BAD[column.kind]]
    return [text for text in GOOD[column.kind] if text or not column.not_null]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    groups = draw(schemas())
    all_tables = [table for group in groups for table in group]
    existing: dict[str, list[dict[str, bytes]]] = {}
    files: dict[str, dict[str, bytes]] = {}
    for table in all_tables:
        names = [column.name for column in table.columns]
        rows = draw(st.lists(_fields(table.columns, dirty=False), max_size=3))
        existing[table.name] = [dict(zip(names, row, strict=True)) for row in rows]
        files[table.name] = {
            f"{table.name}{number}.csv": draw(contents(table))
            for number in range(draw(st.integers(1, 2)))
        }
    return Case(groups, existing, files)


# The comparison


def rows_of(site: Site, table: Table, stamp: str | None) -> list[Row]:
    """Read rows of a batch, or of everybody, in the oracle's form."""
    names = ", ".join(f"{column.name}::text" for column in table.columns)
    found = site.sql(
        f"SELECT {names} FROM {table.name} WHERE %s::uuid IS NULL OR import_batch_id = %s",
        stamp,
        stamp,
    )
    return [
        {
            column.name: read_value(None if text is None else text.encode(), column.kind)
            for column, text in zip(table.columns, row, strict=True)
        }
        for row in found
    ]


def put_existing(site: Site, table: Table, rows: Sequence[dict[str, bytes]]) -> None:
    """Insert what fits."""
    for row in rows:
        texts = [v.decode().strip('"').replace('""', '"') or None for v in row.values()]
        places = ", ".join(f"%s::text::{column.kind}" for column in table.columns)
        statement = (
            f"INSERT INTO {table.name} ({', '.join(row)}, import_batch_id)"
            f" VALUES ({places}, gen_random_uuid())"
        )
        try:
            site.sql(statement, *texts)
        except psycopg.Error:
            continue


def in_order(rows: Sequence[Row]) -> list[str]:
    return sorted(str(sorted(row.items())) for row in rows)


def compare(site: Site, case: Case, key: str, publish: str) -> None:
    """Load a case and compare everything with the oracle."""
    site.sql(ddl_of(case.groups))
    for table in case.tables:
        put_existing(site, table, case.existing[table.name])
    existing = {table.name: rows_of(site, table, None) for table in case.tables}
    expected = judged(case.groups, existing, case.files)
    tables = [
        {"table": f"public.{t.name}", "files": f"{t.name}*", "rules": t.rules} for t in case.tables
    ]
    said = {"tables": tables, "thresholds": {}, "publish": publish}
    site.feed = Feed.model_validate({**site.feed.model_dump(), **said})
    delivered: dict[str, str | bytes | Any] = {
        name: content for files in case.files.values() for name, content in files.items()
    }
    site.deliver(delivered, key)
    note(ddl_of(case.groups))
    note(f"existing: {existing}")

    total, bad = len(expected.raw), len(expected.rejected)
    if total and bad == total:
        with pytest.raises(ThresholdError):
            site.run(key, stages=UNTIL_VALIDATE)
    else:
        site.run(key, stages=UNTIL_VALIDATE)
    batch = site.newest(key)

    found = rejects.of_batch(site.connection, batch.batch_id)
    reasons = {
        (r.target_table.removeprefix("public."), r.file_name, r.record_number): frozenset(
            (b["column"], b["sqlstate"], b["constraint"]) for b in r.breaches
        )
        for r in found
    }
    assert reasons == expected.rejected
    for reject, record in zip(found, raw(site, batch.batch_id), strict=True):
        place = (
            reject.target_table.removeprefix("public."), reject.file_name, reject.record_number,
        )  # fmt: skip
        assert record.rstrip(b"\r\n") == expected.raw[place].rstrip(b"\r\n")
    for table in case.tables:
        good = [] if bad == total else expected.good[table.name]
        assert in_order(rows_of(site, table, batch.batch_id)) == in_order(good)
        everything = [*existing[table.name], *good]
        assert in_order(rows_of(site, table, None)) == in_order(everything)
    event("all rejected" if total and bad == total else "some rejected" if bad else "clean")
    for state in sorted({reason[1] for why in expected.rejected.values() for reason in why}):
        event(f"rejected by {state}")
    if total and bad == total:
        assert batch.rejected_records == total
        assert batch.published_at is None
        return
    assert (batch.source_records, batch.written_records) == (total, total - bad)
    assert batch.rejected_records == bad
    assert batch.status == ("PARTIAL_SUCCESS" if bad else "SUCCESS")
    for balance in proofs.tables(site.connection, batch.batch_id):
        name = balance.target_table.removeprefix("public.")
        assert balance.inserted == len(expected.good[name])
        assert balance.rejected == sum(place[0] == name for place in expected.rejected)
        assert balance.source_records == balance.inserted + balance.rejected


PUBLISH = st.sampled_from(["direct", "after_validation"])


@pytest.mark.long
@pytest.mark.parametrize(
    ("version", "examples"),
    [
        pytest.param("18", 75, id="18"),
        pytest.param("15", 15, id="15"),
        pytest.param("18", 1500, id="18-long", marks=pytest.mark.soak),
        pytest.param("15", 300, id="15-long", marks=pytest.mark.soak),
    ],
)
def test_what_is_accepted_and_why_not(
    open_site: OpenSite, version: str, examples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given any schema and dirty files, the bulk path does what the oracle says."""
    # Some records a block, so that chunks and their digests are taken apart too.
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 64)
    keys = (f"batch-{number}" for number in itertools.count())
    with open_site(ONCE, feed_of({"public.p": "p*"}), version) as site:

        @profile(
            max_examples=examples,
            deadline=None,
            derandomize=True,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        )
        @given(cases(), PUBLISH)
        def law(case: Case, publish: str) -> None:
            compare(site, case, next(keys), publish)

        law()


# What bisecting costs

TRIED = """
CREATE TABLE t (id integer PRIMARY KEY, b integer, import_batch_id uuid);
CREATE FUNCTION refuse_3() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN IF NEW.b = 3 THEN RAISE EXCEPTION 'no'; END IF; RETURN NEW; END $$;
CREATE TRIGGER refuse BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION refuse_3();
"""
SUBTRANSACTIONS = """
SELECT max(s.subxact_count), bool_or(s.subxact_overflowed)
FROM pg_stat_get_backend_idset() AS b, pg_stat_get_backend_subxact(b) AS s
"""


def isolate(site: Site, rows: int, bad: Sequence[int]) -> int:
    """Load rows of which a trigger refuses some; return the statements it took to find them."""
    lines = ["id,b", *(f"{n},{3 if n in set(bad) else 1}" for n in range(rows))]
    site.feed = feed_of({"public.t": "*"}, thresholds={})
    batch = site.load({"a.csv": "\n".join(lines) + "\n"})
    found = rejects.of_batch(site.connection, batch.batch_id)
    assert [reject.record_number - 1 for reject in found] == sorted(bad)
    (table,) = proofs.tables(site.connection, batch.batch_id)
    assert (table.inserted, table.rejected) == (rows - len(bad), len(bad))
    return table.isolation_statements


@pytest.mark.parametrize(
    ("rows", "bad"),
    [
        pytest.param(2, [1], id="1 of 2"),
        pytest.param(1000, [0], id="the first of 1000"),
        pytest.param(1000, [999], id="the last of 1000"),
        pytest.param(1024, [511], id="1 of a power of two"),
        pytest.param(1025, [512], id="1 of one more"),
        pytest.param(1000, range(100, 104), id="4 together"),
        pytest.param(1000, range(0, 1000, 250), id="4 apart"),
        pytest.param(2000, range(700, 800), id="100 together"),
        pytest.param(2000, range(3, 2000, 20), id="100 apart, with several transactions"),
        pytest.param(200, range(0, 200, 2), id="every other one"),
        pytest.param(100, range(99), id="all but one"),
    ],
)
def test_halving_takes_few_statements(site18: MakeSite, rows: int, bad: Sequence[int]) -> None:
    statements = isolate(site18(TRIED), rows, bad)
    assert statements <= 1 + 2 * len(bad) * math.ceil(math.log2(rows))


def test_halving_keeps_few_subtransactions_open(
    site18: MakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL shows 64 of them to other sessions at once; more would slow every reader down."""
    site, insert = site18(TRIED), bisecting._insert
    seen: list[tuple[int, bool]] = []

    def watched(*given: Any) -> None:
        insert(*given)
        seen.extend(site.sql(SUBTRANSACTIONS))

    monkeypatch.setattr(bisecting, "_insert", watched)
    isolate(site, 1000, range(3, 1000, 10))
    assert 40 < max(count for count, _ in seen) <= 64
    assert not any(overflowed for _, overflowed in seen)


def test_a_row_that_refers_to_a_later_one_is_tried_with_it(site: MakeSite) -> None:
    """Given rows a trigger refuses, those that refer forward or in a circle are loaded all the same."""
    loaded = site(TRIED.replace("b integer,", "b integer, up integer REFERENCES t,"), thresholds={})
    batch = loaded.load({"a.csv": "id,b,up\n1,1,9\n2,3,1\n3,1,4\n4,1,3\n5,1,2\n8,3,\n9,1,\n"})
    found = rejects.of_batch(loaded.connection, batch.batch_id)
    assert [(reject.record_number, reject.sqlstate) for reject in found] == [
        (2, "P0001"), (5, "23503"), (6, "P0001"),
    ]  # fmt: skip
    assert loaded.sql("SELECT id FROM t ORDER BY 1") == [(1,), (3,), (4,), (9,)]


def test_a_value_too_long_for_an_index_costs_its_row(site: MakeSite) -> None:
    loaded = site("CREATE TABLE t (id text PRIMARY KEY, import_batch_id uuid)", thresholds={})
    # Random, or PostgreSQL would compress it.
    text = random.Random(1).randbytes(6_000).hex()  # noqa: S311 - it is no secret
    batch = loaded.load({"a.csv": f"id\nshort\n{text}\n"})
    (found,) = rejects.of_batch(loaded.connection, batch.batch_id)
    assert (batch.status, found.record_number, found.sqlstate) == ("PARTIAL_SUCCESS", 2, "54000")


def test_a_check_that_raises_takes_no_key_from_a_good_row(site: MakeSite) -> None:
    """Given a check that divides by zero for one row and refuses another, neither claims its key."""
    loaded = site(
        "CREATE TABLE t (id integer PRIMARY KEY, a integer, CONSTRAINT share CHECK (10 / a > 3),"
        " import_batch_id uuid)",
        thresholds={},
    )
    batch = loaded.load({"a.csv": "id,a\n1,0\n1,5\n1,2\n"})
    found = rejects.of_batch(loaded.connection, batch.batch_id)
    assert [(r.record_number, r.sqlstate, r.constraint_name) for r in found] == [
        (1, "22012", "share"), (2, "23514", "share"),
    ]  # fmt: skip
    assert loaded.sql("SELECT id, a FROM t") == [(1, 2)]
