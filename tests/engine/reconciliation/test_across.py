"""A table is compared with one of another database at a cost that grows with the differences alone."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import hypothesis
import hypothesis.strategies as st
import psycopg
import pytest
from psycopg import sql

from batch_pipelines.engine.errors import FeedError
from batch_pipelines.engine.feeds import Feed
from batch_pipelines.engine.reconciliation.across import Side, compare
from batch_pipelines.engine.reconciliation.differing import MOST_NAMED
from tests.engine.reconciliation.support_loader import Named, by_batch, named, reconcile, table_of
from tests.support_databases import fresh
from tests.support_engine import Site

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.engine.conftest import MakeSite

pytestmark = pytest.mark.versions

VARIABLE = "OLD_URL"
# Types differ as they do between databases: so far as values are the same, rows are.
HERE = """
CREATE TABLE public.t (id integer PRIMARY KEY, name varchar(40), amount numeric(12, 4), part text)
"""
THERE = """
CREATE SCHEMA sales;
CREATE TABLE sales.orders (nr bigint PRIMARY KEY, name text, amount numeric, part text);
INSERT INTO sales.orders SELECT n, 'name ' || n, n / 4.0, 'p' || n % 3 FROM generate_series(1, {rows}) n;
"""
COPIED = (
    "INSERT INTO t SELECT n, 'name ' || n, n / 4.0, 'p' || n % 3 FROM generate_series(1, {rows}) n"
)
QUERY: dict[str, object] = {"url_variable": VARIABLE, "table": "sales.orders", "key": ["nr"]}
Pairs = list[tuple[int, int | None]]


@contextmanager
def two_databases(
    make: MakeSite,
    patch: pytest.MonkeyPatch,
    rows: int,
    query: Mapping[str, object],
    **table: object,
) -> Iterator[tuple[Site, psycopg.Connection]]:
    """A site whose table holds what one of another database does, and a connection to that."""
    place = make(HERE + "; CREATE INDEX ON public.t (part)")
    place.sql(COPIED.format(rows=rows))
    feed = {
        "feed": "orders",
        "source": {"query": query},
        "tables": [{"table": "public.t", "write": "none", **table}],
        "format": {"columns": {"nr": "id"}},
    }
    place = Site(place.database, place.settings, Feed.model_validate(feed), place.connection)
    with fresh(place.owner.url) as url, psycopg.connect(url, autocommit=True) as other:
        other.execute(THERE.format(rows=rows).encode())
        patch.setenv(VARIABLE, url)
        yield place, other


def test_tables_of_two_databases(site: MakeSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given rows missing, extra and changed among thousands: named by key, with columns."""
    with two_databases(site, monkeypatch, 5_000, QUERY) as (place, other):
        (equal,) = reconcile(place)
        assert (equal.status, table_of(equal).tgt_records) == ("SUCCESS", 5_000)
        assert table_of(equal).rows is None

        place.sql("DELETE FROM t WHERE id IN (1, 2500, 5000)")
        place.sql("UPDATE t SET name = 'SECRET', amount = NULL WHERE id = 77")
        place.sql("INSERT INTO t VALUES (-5, 'x', 1, 'y'), (9999, NULL, NULL, NULL)")
        other.execute("UPDATE sales.orders SET part = '' WHERE nr = 4000")
        (found,) = reconcile(place)
        table = table_of(found)
        assert found.status == "FAILED"
        assert named(table.rows) == Named(
            ["1", "2500", "5000"], ["-5", "9999"], {"77": ["name", "amount"], "4000": ["part"]}
        )
        assert table.rows is not None
        assert (table.src_records, table.tgt_records, table.rows.matches) == (5_000, 4_999, 4_995)
        assert "SECRET" not in str(found)
        # The statement of a check, run by hand, gives what the check says.
        (digest,) = (check for check in table.checks if check.name == "rows.digest")
        if digest.sql.startswith("SELECT"):
            ((rows, total, moment),) = place.sql(digest.sql)
            assert digest.actual == f"rows={rows} sum={total} moment={moment}"
        with pytest.raises(FeedError, match="as a whole; leave --batch out"):
            reconcile(place, "p1")


def test_a_query_for_each_batch(site18: MakeSite, monkeypatch: pytest.MonkeyPatch) -> None:
    query = {
        "url_variable": VARIABLE,
        "select": "SELECT nr, name, amount FROM sales.orders WHERE part = {batch} -- of a part",
        "key": ["nr"],
    }
    with two_databases(site18, monkeypatch, 300, query, batch_column="part") as (place, _):
        place.sql("INSERT INTO t VALUES (301, 'x', 1, 'p1'), (302, 'x', 1, 'o''dd')")
        found = by_batch(reconcile(place))
        assert {name: each.status for name, each in found.items()} == {
            "o'dd": "FAILED", "p0": "SUCCESS", "p1": "FAILED", "p2": "SUCCESS",
        }  # fmt: skip
        assert named(table_of(found["p1"]).rows) == Named([], ["301"], {})
        assert reconcile(place) == []


def test_what_cannot_be_compared_is_unverified(
    site18: MakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    with two_databases(site18, monkeypatch, 10, QUERY | {"key": ["name"]}) as (place, other):
        other.execute("UPDATE sales.orders SET name = NULL WHERE nr = 3")
        (found,) = reconcile(place)
        assert found.status == "UNVERIFIED"
        assert f"{VARIABLE}: 1 rows have no value in the key (name)" in (
            found.tables[0].log.exception or ""
        )
        other.execute("ALTER TABLE sales.orders ADD gone integer")
        (found,) = reconcile(place)
        assert "column 'gone' is not in public.t" in (found.tables[0].log.exception or "")
        monkeypatch.delenv(VARIABLE)
        (found,) = reconcile(place)
        assert f"{VARIABLE} is not set" in (found.tables[0].log.exception or "")


def test_a_database_that_cannot_digest_its_rows_is_read_over(
    site18: MakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = {"url_variable": VARIABLE, "table": "orders", "key": ["nr"], "rows": 30}
    with two_databases(site18, monkeypatch, 100, query) as (place, _):
        path = place.settings.root / "old.db"
        with closing(sqlite3.connect(path)) as old:
            old.execute("CREATE TABLE orders (nr integer PRIMARY KEY, name text, amount real)")
            old.executemany(
                "INSERT INTO orders VALUES (?, ?, ?)",
                [(n, f"name {n}", n / 4) for n in range(1, 101)],
            )
            old.commit()
        monkeypatch.setenv(VARIABLE, f"sqlite:///{path}")
        assert [each.status for each in reconcile(place)] == ["SUCCESS"]
        place.sql("UPDATE t SET name = 'x' WHERE id = 50; DELETE FROM t WHERE id = 100")
        (found,) = reconcile(place)
        assert named(table_of(found).rows) == Named(["100"], [], {"50": ["name"]})
        assert not [*place.settings.home.glob("reconcile-*")]


@contextmanager
def sides(place: Site) -> Iterator[tuple[Side, Side]]:
    """Both sides in tables of one database, over connections of their own."""
    with place.database.connect("a") as one, place.database.connect("b") as other:
        source, target = (
            Side(connection, sql.Identifier(name), sql.SQL("true"), ["k", "v"], ["k"])
            for connection, name in ((one, "a"), (other, "b"))
        )
        source.describe()
        target.describe()
        yield source, target


@pytest.fixture
def pair(site18: MakeSite) -> Site:
    """A site with two tables of keys and values."""
    return site18("CREATE TABLE a (k integer, v integer); CREATE TABLE b (k bigint, v smallint)")


@pytest.mark.parametrize("rows", [2_000, 40_000])
@pytest.mark.parametrize("differing", [1, 8])
def test_the_cost_grows_with_the_differences(pair: Site, rows: int, differing: int) -> None:
    """Given k of n rows that differ: statements and fetched rows are bounded by k, whatever n is."""
    pair.sql(f"INSERT INTO a SELECT n, n % 100 FROM generate_series(1, {rows}) n")
    pair.sql("INSERT INTO b SELECT * FROM a")
    step = rows // differing
    pair.sql(f"UPDATE b SET v = 101 WHERE k % {step} = {step // 2}")
    with sides(pair) as (source, target):
        found = compare(source, target, ["k", "v"], ["k"])
        assert found.rows is not None
        assert (found.rows.mismatches, len(found.rows.details)) == (differing, differing)
        # 40,000 rows are divided by 16 three times until there are no more than 64 of them.
        levels = 2 if rows == 2_000 else 3
        assert source.statements + target.statements <= 8 + differing * levels * (2 * 16 + 1 + 2)
        assert source.fetched + target.fetched <= differing * (2 * 64 + levels * 16)


def test_tables_that_differ_throughout_are_not_divided_to_the_end(pair: Site) -> None:
    pair.sql("INSERT INTO a SELECT n, 0 FROM generate_series(1, 20000) n")
    pair.sql("INSERT INTO b SELECT n, 1 FROM generate_series(1, 20000) n")
    with sides(pair) as (source, target):
        found = compare(source, target, ["k", "v"], ["k"])
        assert found.rows is not None
        assert (found.rows.mismatches, len(found.rows.details)) == (20_000, MOST_NAMED)
        assert source.statements + target.statements < 700


def test_equal_tables_take_one_statement_each(pair: Site) -> None:
    pair.sql("INSERT INTO a SELECT n, n % 100 FROM generate_series(1, 5000) n")
    pair.sql("INSERT INTO b SELECT * FROM a ORDER BY v")
    with sides(pair) as (source, target):
        assert compare(source, target, ["k", "v"], ["k"]).rows is None
        assert [(s.statements, s.fetched) for s in (source, target)] == [(2, 0), (2, 0)]


some = st.lists(st.tuples(st.integers(-3, 200), st.none() | st.integers(0, 3)), max_size=150)


@hypothesis.settings(
    max_examples=40, deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)  # fmt: skip
@hypothesis.given(shared=some, only_a=some, only_b=some, heavy=st.integers(0, 200))
def test_bisecting_finds_what_a_full_comparison_does(
    pair: Site, shared: Pairs, only_a: Pairs, only_b: Pairs, heavy: int
) -> None:
    """Given any rows on both sides, many of them under one key: as many differ as by counting them."""
    shared = [*shared, *((7, n % 4) for n in range(heavy))]
    left, right = shared + only_a[:20], shared + only_b[:20]
    for name, rows in (("a", left), ("b", right)):
        pair.sql(f"TRUNCATE {name}")
        with pair.connection.cursor() as cursor:
            cursor.executemany(f"INSERT INTO {name} VALUES (%s, %s)".encode(), rows)
    gone, new = Counter(left) - Counter(right), Counter(right) - Counter(left)
    changed = (
        Counter(k for k, _ in gone.elements()) & Counter(k for k, _ in new.elements())
    ).total()
    with sides(pair) as (source, target):
        found = compare(source, target, ["k", "v"], ["k"]).rows
    counted = (0, 0, 0) if found is None else (found.src_extras, found.tgt_extras, found.mismatches)
    assert counted == (gone.total() - changed, new.total() - changed, changed)
    if found is not None:
        assert found.matches == (Counter(left) & Counter(right)).total()
        assert {int((each.key or {})["k"]) for each in found.details} == {
            key for key, _ in [*gone, *new]
        }
