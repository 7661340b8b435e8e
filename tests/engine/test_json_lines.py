"""JSON lines: values as they are written, defaults where a key is absent, tables within one file."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING

import pytest
from pydantic import ValidationError

from batch_pipelines.engine.bulk_write import bulk_write
from batch_pipelines.engine.feeds import Feed
from batch_pipelines.engine.ledger import proofs, rejects
from batch_pipelines.engine.validate import require_valid, validate
from tests.support_rejects import raw

if TYPE_CHECKING:
    from tests.engine.conftest import MakeSite
    from tests.support_engine import Site

DDL = """
CREATE TABLE t (
    id bigint PRIMARY KEY, name text, price numeric(30,20), n integer NOT NULL DEFAULT 7,
    made timestamptz DEFAULT '2020-01-01Z', about jsonb DEFAULT '{"x": 1}', big numeric,
    doc json, import_batch_id uuid)
"""
JSONL = {"public.t": "*.*"}


def lines(*records: object) -> str:
    return "".join(f"{r if isinstance(r, str) else json.dumps(r)}\n" for r in records)


def signatures(site: Site, batch_id: str) -> set[tuple[str, tuple[str, ...], int, bool, int]]:
    return {
        (s.target_table, tuple(s.columns), s.entries, s.bulk, s.statements)
        for s in proofs.signatures(site.connection, batch_id)
    }


def test_values_stay_as_they_are_written(site: MakeSite) -> None:
    there = site(DDL, JSONL)
    text = (
        '{"id": 9007199254740993, "name": "a\\u00e9\\n😀", "price": 1.10, "n": 1, "made": null, '
        '"about": "x", "big": 123456789012345678901234567890.10, "doc": {"b":1.10,  "a":[1E5]}}\n'
        '\n  \r\n{"id":2,"name":null,"price":0.12345678901234567890,"n":-0,"made":'
        '"2021-02-03T04:05:06Z","about":[1,null],"big":1e-30,"doc":"12"}'
    )
    batch = there.load({"a.jsonl": text})
    assert batch.status == "SUCCESS"
    found = there.sql(
        "SELECT id, name, price::text, n, made IS NULL, about::text, big::text, doc::text "
        "FROM t ORDER BY 1"
    )
    assert found == [
        (2, None, "0.12345678901234567890", 0, False, "[1, null]",
         "0.000000000000000000000000000001", '"12"'),
        (9007199254740993, "aé\n😀", "1.10000000000000000000", 1, True, '"x"',
         "123456789012345678901234567890.10", '{"b":1.10,  "a":[1E5]}'),
    ]  # fmt: skip


def test_an_absent_column_takes_its_default_and_a_null_does_not(site: MakeSite) -> None:
    there = site(DDL, JSONL)
    batch = there.load(
        {
            "a.jsonl": lines(
                {"id": 1, "name": "a", "n": 1, "made": None, "about": None},
                {"id": 2, "n": 2},
                {"id": 3, "made": None, "about": None},
                {"id": 4, "name": "d"},
            )
        }
    )
    assert batch.status == "SUCCESS"
    found = there.sql("SELECT id, name, n, made = '2020-01-01Z', about::text FROM t ORDER BY 1")
    assert found == [
        (1, "a", 1, None, None),
        (2, None, 2, True, '{"x": 1}'),
        (3, None, 7, None, None),
        (4, "d", 7, True, '{"x": 1}'),
    ]
    (table,) = proofs.tables(there.connection, batch.batch_id)
    assert table.columns == ["id", "name"]
    assert table.filled == ["n", "made", "about"]
    assert signatures(there, batch.batch_id) == {
        ("public.t", ("id", "name", "n", "made", "about"), 1, True, 1),
        ("public.t", ("id", "name", "n"), 1, True, 1),
        ("public.t", ("id", "name", "made", "about"), 1, True, 1),
        ("public.t", ("id", "name"), 1, True, 1),
    }


def test_a_line_that_cannot_be_read_is_set_aside_with_its_place(site: MakeSite) -> None:
    there = site(DDL, JSONL, thresholds={})
    bad = {
        b'{"id": 10, "id": 11}\n': "22P04",
        b"[1]\n": "22P04",
        b'{"id": 12,}\n': "22032",
        b'{"id": NaN}\n': "22032",
        b'{"id": 13, "name": "\xff"}\n': "22021",
        b'{"id": 14, "name": "\\ud800"}\r\n': "22021",
        b'{"id": 15, "name": "a\\u0000"}\n': "22021",
        b'{"id": 16, "nmae": "a"}\n': "22P04",
        b'{"id": 17, "n": null}\n': "23502",
        b'{"name": "a"}\n': "23502",
        b'{"id": 1.0}\n': "22P02",
        b'{"id": "x", "n": 1e999}\n': "22P02",
        b"{": "22032",
    }
    good = b'\n{"id": 1}\n'
    batch = there.load({"a.jsonl": good + b"".join(bad)})
    assert (batch.status, batch.rejected_records) == ("PARTIAL_SUCCESS", len(bad))
    found = rejects.of_batch(there.connection, batch.batch_id)
    records = raw(there, batch.batch_id)
    assert [(line, r.sqlstate) for line, r in zip(records, found, strict=True)] == [*bad.items()]
    assert [r.line_number for r in found] == [*range(3, len(bad) + 3)]
    content = good + b"".join(bad)
    for reject, line in zip(found, records, strict=True):
        assert reject.byte_offset is not None
        assert content[reject.byte_offset :].startswith(line)
    assert there.sql("SELECT id, n FROM t") == [(1, 7)]


def test_keys_are_renamed_and_ignored(site: MakeSite) -> None:
    there = site(DDL, JSONL, format={"columns": {"Nr.": "id"}, "ignore_columns": ["x"]})
    assert there.load({"a.ndjson.gz": gzip.compress(b'{"Nr.": 1, "x": [2]}')})
    assert there.sql("SELECT id FROM t") == [(1,)]


TWO = """
CREATE TABLE person (id text PRIMARY KEY, name text, phone text DEFAULT 'none', import_batch_id uuid);
CREATE TABLE leg (
    id integer PRIMARY KEY, person text NOT NULL REFERENCES person, mode text DEFAULT 'walk',
    import_batch_id uuid);
"""
MIXED = {
    "tables": [
        {"table": "public.person", "match": "person"},
        {"table": "public.leg", "match": "leg"},
    ],
    "format": {"table_field": "table", "individual_field": "forceDrainToDB"},
    "thresholds": {},
}


def mixed(site: MakeSite) -> Site:
    there = site(TWO)
    there.feed = feed(**MIXED)
    return there


def feed(**more: object) -> Feed:
    return Feed.model_validate({"feed": "orders", "source": {"path": "landing/{batch}/*"}, **more})


@pytest.mark.versions
def test_tables_stand_mixed_in_one_file(site: MakeSite) -> None:
    there = mixed(site)
    batch = there.load(
        {
            "ops.jsonl": lines(
                {"table": "leg", "id": 1, "person": "a"},
                {"table": "person", "id": "a", "name": "A"},
                {"table": "leg", "id": 2, "person": "b", "mode": None, "forceDrainToDB": True},
                {"table": "person", "id": "b", "name": "B", "phone": "1", "forceDrainToDB": False},
                {"table": "leg", "id": 3, "person": "nobody"},
                {"table": "planet", "id": 4},
                {"id": 5},
                "{",
                {"table": "person", "id": "c", "name": "C", "phone": "2"},
            )
        }
    )
    assert (batch.status, batch.source_records, batch.rejected_records) == ("PARTIAL_SUCCESS", 9, 4)
    assert there.sql("SELECT id, person, mode FROM leg ORDER BY 1") == [
        (1, "a", "walk"),
        (2, "b", None),
    ]
    assert there.sql("SELECT id, phone FROM person ORDER BY 1") == [
        ("a", "none"), ("b", "1"), ("c", "2"),
    ]  # fmt: skip
    counts = {
        t.target_table: (t.source_records, t.inserted, t.rejected)
        for t in proofs.tables(there.connection, batch.batch_id)
    }
    assert counts == {"public.person": (6, 3, 3), "public.leg": (3, 2, 1)}
    assert signatures(there, batch.batch_id) == {
        ("public.person", ("id", "name"), 1, True, 1),
        ("public.person", ("id", "name", "phone"), 2, True, 1),
        ("public.leg", ("id", "person"), 1, True, 1),
        ("public.leg", ("id", "person", "mode"), 1, False, 1),
    }
    # A correction without a line for one of the tables takes its rows away.
    corrected = there.load({"ops.jsonl": lines({"table": "person", "id": "a", "name": "A"})})
    assert corrected.status == "SUCCESS"
    assert (
        there.count("SELECT count(*) FROM leg"),
        there.count("SELECT count(*) FROM person"),
    ) == (0, 1)


@pytest.mark.versions
def test_few_rows_of_a_signature_are_inserted_singly(site: MakeSite) -> None:
    there = site(DDL, JSONL, bulk_minimum=3)
    many = [{"id": n} for n in range(4)]
    few = [{"id": 10 + n, "n": n} for n in range(2)]
    batch = there.load({"a.jsonl": lines(*many, *few)})
    assert signatures(there, batch.batch_id) == {
        ("public.t", ("id",), 4, True, 1),
        ("public.t", ("id", "n"), 2, False, 2),
    }


def test_a_table_is_written_singly_where_the_feed_says_so(site: MakeSite) -> None:
    there = site(DDL)
    there.feed = feed(tables=[{"table": "public.t", "write": "individual"}])
    batch = there.load({"a.csv": "id,n\n1,1\n2,2\n3,3\n"})
    assert signatures(there, batch.batch_id) == {("public.t", ("id", "n"), 3, False, 3)}


def test_everything_is_written_singly_for_debugging(site: MakeSite) -> None:
    there = site(DDL)
    there.settings = there.settings.model_copy(update={"bulk": False})
    batch = there.load({"a.csv": "id,n\n1,1\n2,2\n"})
    assert signatures(there, batch.batch_id) == {("public.t", ("id", "n"), 2, False, 2)}
    there.settings = there.settings.model_copy(update={"bulk": True})
    batch = there.load({"a.csv": "id,n\n1,1\n2,3\n"})
    assert signatures(there, batch.batch_id) == {("public.t", ("id", "n"), 2, True, 1)}


def test_defaults_are_judged_like_values(site: MakeSite) -> None:
    there = site(
        "CREATE DOMAIN word AS text DEFAULT 'w' CHECK (value <> 'x');"
        "CREATE TABLE parent (id integer PRIMARY KEY); INSERT INTO parent VALUES (1);"
        "CREATE TABLE t (id integer GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,"
        " p integer DEFAULT 2 REFERENCES parent, c integer DEFAULT 5 CHECK (c < 5),"
        " u text DEFAULT 'u' UNIQUE, w word, import_batch_id uuid)",
        JSONL,
        thresholds={},
    )
    whole = {"p": 1, "c": 1, "w": "a"}
    batch = there.load(
        {
            "a.jsonl": lines(
                {"id": 50, **whole, "u": "a"},
                whole,
                whole,
                {**whole, "u": None, "c": None, "w": None},
                {"c": 1, "u": "b"},
                {"p": 1, "u": "c"},
                {"p": 1, "c": 2, "u": "d"},
            )
        }
    )
    assert (batch.status, batch.rejected_records) == ("PARTIAL_SUCCESS", 3)
    found = rejects.of_batch(there.connection, batch.batch_id)
    assert [(r.record_number, r.sqlstate) for r in found] == [
        (3, "23505"),
        (5, "23503"),
        (6, "23514"),
    ]
    assert there.sql("SELECT u, w FROM t ORDER BY 1") == [
        ("a", "a"), ("d", "w"), ("u", "a"), (None, None),
    ]  # fmt: skip


def test_what_a_trigger_refuses_is_searched_for_singly(site: MakeSite) -> None:
    there = site(
        DDL + ";CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN IF new.id = 3 THEN RAISE 'no'; END IF; RETURN new; END $$;"
        "CREATE TRIGGER no BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION no()",
        JSONL,
        thresholds={},
    )
    batch = there.load({"a.jsonl": lines(*[{"id": n} for n in range(4)], {"id": 9, "n": 1})})
    assert (batch.status, batch.rejected_records) == ("PARTIAL_SUCCESS", 1)
    found = proofs.signatures(there.connection, batch.batch_id)
    assert [(s.entries, s.fallback) for s in found] == [(1, True), (3, True)]


def test_rows_that_refer_to_their_own_table_go_together(site: MakeSite) -> None:
    there = site(
        "CREATE TABLE t (id integer PRIMARY KEY, up integer REFERENCES t, n integer DEFAULT 1,"
        " import_batch_id uuid)",
        JSONL,
        bulk_minimum=100,
    )
    batch = there.load({"a.jsonl": lines({"id": 1, "up": 2}, {"id": 2, "up": 1, "n": 2})})
    assert batch.status == "SUCCESS"
    assert signatures(there, batch.batch_id) == {
        ("public.t", ("id", "up", "n"), 1, True, 1),
        ("public.t", ("id", "up"), 1, True, 0),
    }


def test_orphans_of_one_file_are_replayed(site: MakeSite) -> None:
    there = mixed(site)
    there.load(
        {
            "ops.jsonl": lines(
                {"table": "person", "id": "a", "name": "A"},
                {"table": "leg", "id": 1, "person": "a"},
                {"table": "leg", "id": 2, "person": "z", "mode": None},
                {"table": "planet"},
            )
        }
    )
    there.sql("INSERT INTO person (id) VALUES ('z')")
    with there.work() as (connection, work):
        bulk_write(connection, work, replay=True)
        require_valid(validate(connection, work))
    assert there.sql("SELECT id, mode FROM leg ORDER BY 1") == [(1, "walk"), (2, None)]
    assert there.newest().rejected_records == 1


def test_a_feed_of_mixed_files_says_how_lines_are_told_apart() -> None:
    one, two = {"table": "public.a"}, {"table": "public.b", "match": "b"}
    for tables, form in (
        ([one, two], {"table_field": "t"}), ([two], {}), ([one], {"table_field": "t"}),
        ([two, {"table": "public.c", "match": "b"}], {"table_field": "t"}),
    ):  # fmt: skip
        with pytest.raises(ValidationError, match="match"):
            feed(tables=tables, format=form)
