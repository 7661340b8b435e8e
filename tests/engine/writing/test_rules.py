"""Rules of a feed: what breaks one is set aside, whatever way its row would have gone."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from batch_pipelines.engine.bulk_write import bulk_write
from batch_pipelines.engine.errors import FeedError, PublishError
from batch_pipelines.engine.failpoints import armed
from batch_pipelines.engine.feed_files import load_feed
from batch_pipelines.engine.feeds import Feed
from batch_pipelines.engine.ledger import proofs, rejects
from batch_pipelines.engine.rehearsal import rehearse
from batch_pipelines.engine.writing import loading

if TYPE_CHECKING:
    import pyarrow as pa

    from tests.engine.conftest import MakeSite
    from tests.support_engine import Site

FEEDS = Path(__file__).parents[3] / "feeds"
DDL = """
CREATE TABLE place (code text PRIMARY KEY, import_batch_id uuid);
INSERT INTO place VALUES ('A'), ('B');
CREATE TABLE t (id int PRIMARY KEY, a int, b numeric(6,2), t text, d date, kind text DEFAULT 'plain',
                import_batch_id uuid);
CREATE INDEX ON t (import_batch_id);
"""
RULES: list[dict[str, Any]] = [
    {"name": "a_small", "range": {"column": "a", "min": 0, "max": 100}},
    {"name": "b_least", "range": {"column": "b", "min": 0.1}},
    {"name": "t_known", "in": {"column": "t", "values": ["x", "y", "it's 100%"]}},
    {"name": "t_form", "matches": {"column": "t", "pattern": "^[^z]+$"}},
    {"name": "ratio", "expression": "10 / a < 5 OR t LIKE '%\\%'"},
    {"name": "recent", "range": {"column": "d", "min": "2000-01-01"}},
    {"name": "one_each", "unique": ["a", "t"]},
]


def ruled(make: MakeSite, rules: list[dict[str, Any]], **more: object) -> Site:
    there = make(DDL, thresholds={})
    tables = [{"table": "public.t", "files": "t*", "rules": rules, **more}]
    there.feed = there.feed.model_validate({**there.feed.model_dump(), "tables": tables})
    return there


def found(site: Site, batch_id: str) -> dict[int, list[tuple[str, str | None]]]:
    return {
        r.record_number: [(str(b["sqlstate"]), b["constraint"]) for b in r.breaches]
        for r in rejects.of_batch(site.connection, batch_id)
    }


def balance(site: Site, batch_id: str) -> tuple[int, ...]:
    (own,) = proofs.tables(site.connection, batch_id)
    return own.inserted, own.updated, own.unchanged, own.rejected, own.skipped, own.removed


GOOD = "id,a,b,t,d\n1,3,0.10,x,2000-01-01\n2,100,,y,\n3,,5,,\n"
BAD = (
    "4,101,0.09,z,1999-12-31\n"  # four rules of one row
    "5,0,1,x,\n"  # cannot be computed
    "6,2,1,x,\n"
    "7,3,1,x,\n"  # the key of 1
    "8,2,1,it's 100%,\n"
)


@pytest.mark.versions
def test_what_breaks_a_rule_is_set_aside_with_every_reason(site: MakeSite) -> None:
    there = ruled(site, RULES)
    batch = there.load({"t.csv": GOOD + BAD})
    assert (batch.status, batch.written_records) == ("PARTIAL_SUCCESS", 4)
    assert found(there, batch.batch_id) == {
        4: [("23514", name) for name in ("a_small", "b_least", "t_known", "t_form", "recent")],
        5: [("22012", "ratio")],
        6: [("23514", "ratio")],
        7: [("23505", "one_each")],
    }
    messages = {
        str(b["message"]) for r in rejects.of_batch(there.connection, batch.batch_id)
        for b in r.breaches
    }  # fmt: skip
    assert "breaks the rule ratio of the feed" in messages
    assert (
        "an earlier record of the batch has the same key (the rule one_each of the feed)"
        in messages
    )
    assert there.sql("SELECT id FROM t ORDER BY 1") == [(1,), (2,), (3,), (8,)]


def test_a_clean_batch_stays_on_the_straight_path(
    site: MakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = ruled(site, [*RULES, {"name": "k", "in": {"column": "kind", "values": ["plain"]}}])
    monkeypatch.delattr(loading, "_isolate")
    assert there.load({"t.csv": GOOD}).status == "SUCCESS"
    # The next one too; and its rows are held against those of the first.
    assert there.load({"t.csv": "id,a,t\n9,4,x\n"}, key="next").status == "SUCCESS"


def test_unique_counts_what_the_table_has_but_not_what_leaves(site: MakeSite) -> None:
    there = ruled(site, [{"name": "a_once", "unique": ["a"]}])
    there.sql("INSERT INTO t (id, a) VALUES (100, 7)")
    first = there.load({"t.csv": "id,a\n1,1\n2,2\n3,7\n4,\n5,\n"})
    assert found(there, first.batch_id) == {3: [("23505", "a_once")]}
    second = there.load({"t.csv": "id,a\n11,2\n12,1\n13,3\n"})
    assert (second.status, balance(there, second.batch_id)) == ("SUCCESS", (3, 0, 0, 0, 0, 4))
    other = there.load({"t.csv": "id,a\n21,3\n22,4\n"}, key="other")
    assert found(there, other.batch_id) == {1: [("23505", "a_once")]}


def test_a_taken_key_is_skipped_where_the_feed_says_so(site18: MakeSite) -> None:
    there = ruled(site18, [{"name": "a_once", "unique": ["a"]}], conflict="skip")
    batch = there.load({"t.csv": "id,a\n1,1\n2,1\n"})
    assert (batch.status, batch.skipped_records) == ("SUCCESS", 1)


REFERS = {"name": "known", "references": {"columns": ["t"], "table": "public.place",
                                          "table_columns": ["code"]}}  # fmt: skip


def test_references_to_a_table_elsewhere(site: MakeSite) -> None:
    there = ruled(site, [REFERS])
    batch = there.load({"t.csv": "id,t\n1,A\n2,C\n3,\n4,B\n"})
    assert found(there, batch.batch_id) == {2: [("23503", "known")]}
    (reject,) = rejects.of_batch(there.connection, batch.batch_id)
    assert reject.message == "t refers to no row of public.place (the rule known of the feed)"
    there.sql("INSERT INTO place VALUES ('C')")
    with there.work() as (connection, work):
        bulk_write(connection, work, replay=True)
    assert there.sql("SELECT id FROM t ORDER BY 1") == [(1,), (2,), (3,), (4,)]
    assert balance(there, batch.batch_id)[:4] == (4, 0, 0, 0)


@pytest.mark.versions
def test_references_between_tables_of_the_feed_whatever_their_order(site: MakeSite) -> None:
    """Given a child before its parent in the feed, and a parent that is set aside itself."""
    there = ruled(site, [])
    tables = [
        {"table": "public.t", "files": "t*", "rules": [REFERS]},
        {"table": "public.place", "files": "p*",
         "rules": [{"name": "short", "matches": {"column": "code", "pattern": "^.{1,2}$"}}]},
    ]  # fmt: skip
    there.feed = there.feed.model_validate({**there.feed.model_dump(), "tables": tables})
    rows = {"t.csv": "id,t\n1,A\n2,CC\n3,DDD\n", "p.csv": "code\nCC\nDDD\n"}
    batch = there.load(rows)
    assert {
        (r.target_table, r.record_number, r.constraint_name)
        for r in rejects.of_batch(there.connection, batch.batch_id)
    } == {("public.t", 3, "known"), ("public.place", 2, "short")}
    # A corrected delivery takes its own parents along.
    second = there.load({"t.csv": "id,t\n1,EE\n2,CC\n", "p.csv": "code\nEE\n"})
    assert [r.record_number for r in rejects.of_batch(there.connection, second.batch_id)] == [2]


def test_an_upsert_is_judged_as_the_row_will_be(site: MakeSite) -> None:
    rules: list[dict[str, Any]] = [
        {"name": "less", "expression": "a < b"},
        {"name": "b_once", "unique": ["b"]},
        {"name": "plain", "in": {"column": "kind", "values": ["plain"]}},
    ]
    there = ruled(site, rules, write="upsert")
    there.sql(
        "INSERT INTO t (id, a, b, kind) VALUES"
        " (1, 1, 10, 'plain'), (2, 1, 20, 'plain'), (3, 1, 30, 'odd')"
    )
    batch = there.load({"t.csv": "id,a\n1,9\n2,20\n3,2\n4,99\n"})
    assert found(there, batch.batch_id) == {2: [("23514", "less")], 3: [("23514", "plain")]}
    assert there.sql("SELECT id, a, kind FROM t ORDER BY 1") == [
        (1, 9, "plain"), (2, 1, "plain"), (3, 1, "odd"), (4, 99, "plain"),
    ]  # fmt: skip
    assert balance(there, batch.batch_id) == (1, 1, 0, 2, 0, 0)


def test_of_two_batches_at_once_one_wins_a_value(site18: MakeSite) -> None:
    """Given a rule that no index backs, two partitions do not load the same value side by side."""
    there = ruled(site18, [{"name": "a_once", "unique": ["a"]}])
    there.deliver({"t.csv": "id,a\n1,7\n2,8\n"}, "one")
    there.deliver({"t.csv": "id,a\n3,7\n4,9\n"}, "two")
    meeting = threading.Barrier(2)

    def together(batch: pa.RecordBatch) -> pa.RecordBatch:
        # Both have begun before either has its rows in the table; where one waits for a lock, it may.
        with suppress(threading.BrokenBarrierError):
            meeting.wait(timeout=2)
        return batch

    with armed("bulk_write.parsed", together), ThreadPoolExecutor(2) as pool:
        first, second = pool.map(there.run, ["one", "two"])
    assert {first.status, second.status} == {"SUCCESS", "PARTIAL_SUCCESS"}
    assert [row[0] for row in there.sql("SELECT a FROM t ORDER BY 1")] == [7, 8, 9]


def test_what_only_the_stored_row_shows_fails_the_batch(site: MakeSite) -> None:
    there = ruled(site, [{"name": "late", "range": {"column": "a", "max": 5}}])
    there.sql(
        "CREATE FUNCTION more() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN NEW.a := 6; RETURN NEW; END $$;"
        "CREATE TRIGGER more BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION more()"
    )
    with pytest.raises(PublishError, match=r"public\.t: rows break .*: 2 the rule late; nothing"):
        there.load({"t.csv": "id,a\n1,1\n2,2\n"})
    assert there.rows() == []


def test_a_rehearsal_says_what_would_be_set_aside(site18: MakeSite) -> None:
    there = ruled(site18, RULES)
    there.deliver({"t.csv": GOOD + BAD})
    with there.work() as (connection, work):
        result = rehearse(connection, work)
    assert [(b.inserted, b.rejected) for b in result.balances] == [(4, 4)]
    assert {reason.breach.constraint for reason in result.reasons} == {
        "a_small", "ratio", "one_each",
    }  # fmt: skip
    assert there.rows() == []


def test_a_replay_does_not_hold_a_new_rule_against_old_rows(site: MakeSite) -> None:
    there = ruled(site, [{"name": "low", "range": {"column": "a", "max": 5}}])
    batch = there.load({"t.csv": "id,a\n1,1\n2,9\n3,9\n"})
    rules = [{"name": "other", "expression": "a > 5"}]
    tables = [{"table": "public.t", "files": "t*", "rules": rules}]
    there.feed = there.feed.model_validate({**there.feed.model_dump(), "tables": tables})
    with there.work() as (connection, work):
        bulk_write(connection, work, replay=True)
    assert balance(there, batch.batch_id)[:4] == (3, 0, 0, 0)


def test_the_rules_of_the_feed_that_ships(site18: MakeSite) -> None:
    there = site18("".join(path.read_text() for path in (
        FEEDS / "sql/flight_reference.sql", FEEDS / "sql/departures.sql")))  # fmt: skip
    there.sql(
        "INSERT INTO airlines VALUES ('UA', 'United');"
        "INSERT INTO airports (faa, name, lat, lon, alt, tz, dst)"
        " SELECT code, code, 40, -74, 0, -5, 'A' FROM unnest(ARRAY['EWR', 'LGA']) AS code"
    )
    feed = load_feed(FEEDS / "departures.yaml")
    here = {"source": there.feed.source, "ddl": None, "thresholds": {"rejected_rows": "50%"}}
    there.feed = Feed.model_validate({**feed.model_dump(), **here})
    batch = there.load({
        "a.csv": "time_hour;carrier;flight;tailnum;origin;dest;dep_delay\n"
        "2013-01-01T10:00:00Z;UA;1;NA;EWR;LGA;1440\n"
        "2013-01-01T10:00:00Z;UA;2;NA;EWR;EWR;1441\n"
        "2013-01-01T10:00:00Z;UA;3;NA;EWR;LGA;NA\n"
        "2013-01-01T10:00:00Z;UA;4;NA;EWR;LGA;-7200\n"
    })  # fmt: skip
    assert found(there, batch.batch_id) == {
        2: [("23514", "delay_in_minutes"), ("23514", "another_airport")],
        4: [("23514", "delay_in_minutes")],
    }


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"range": {"column": "aa", "min": 1}}, "looks at aa, which is no column .* did you mean a"),
    ({"range": {"column": "a", "min": "x"}}, r"refused by PostgreSQL \(22P02, invalid text"),
    ({"in": {"column": "t", "values": [False]}}, r"takes for something else \(bool\)"),
    ({"matches": {"column": "t", "pattern": "["}}, "cannot read .2201B"),
    ({"expression": "a > 5; DROP TABLE t"}, r"near `; DROP TABLE t` \(42601, syntax error"),
    ({"expression": "true), (true"}, "refused|not true or false"),
    ({"expression": "a"}, "not true or false"),
    ({"expression": "a > (SELECT 1)"}, "no sub-selects"),
    ({"expression": "count(*) > 1"}, "42803"),
    ({"expression": "a > random()"}, r"calls random\(\)"),
    ({"expression": "aa > 1"}, "near `aa > 1` .42703"),
    ({"expression": "pg_sleep(9) IS NULL"}, "calls pg_sleep"),
    ({"expression": "import_batch_id IS NULL"}, "looks at import_batch_id"),
    ({"expression": "tableoid > 1"}, "looks at"),
    ({"unique": ["nope"]}, "looks at nope"),
    ({"references": {"columns": ["a"], "table": "public.nope"}}, "42P01"),
    (
        {"references": {"columns": ["a"], "table": "public.place", "table_columns": ["code"]}},
        "42883",
    ),
    ({"name": "t_pkey", "unique": ["a"]}, "has the name of a constraint"),
]


@pytest.mark.parametrize(("rule", "why"), WRONG, ids=lambda each: json.dumps(each)[:40])
def test_a_rule_that_does_not_fit_is_refused(
    site18: MakeSite, rule: dict[str, Any], why: str
) -> None:
    there = ruled(site18, [{"name": "wrong", **rule}])
    with pytest.raises(FeedError, match=f"rule .* of public.t .*({why})"):
        there.load({"t.csv": GOOD})
    assert there.sql("SELECT count(*) FROM t") == [(0,)]
