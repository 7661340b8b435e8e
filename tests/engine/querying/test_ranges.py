"""Read in key ranges, every row arrives once, whatever the key is; or the import says why not."""

from __future__ import annotations

import gc
import json
import warnings
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batch_pipelines.engine.errors import DeliveryError, FeedError
from batch_pipelines.engine.failpoints import armed
from batch_pipelines.engine.querying import ranges
from tests.engine.querying.conftest import VARIABLE
from tests.support_engine import new_id

if TYPE_CHECKING:
    from tests.engine.querying.conftest import MakeQuerySite, Other
    from tests.support_engine import Site

TARGET = "CREATE TABLE t (id integer PRIMARY KEY, note text, import_batch_id uuid)"
EXAMPLES = settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


def fill(other: Other, count: int, *, first: int = 1) -> None:
    other.sql("CREATE TABLE IF NOT EXISTS o (id integer PRIMARY KEY, note text)")
    values = ", ".join(f"({n}, 'note {n}')" for n in range(first, first + count))
    other.sql(f"INSERT INTO o VALUES {values}")


def files(site: Site) -> list[tuple[str, int]]:
    """Name and records of the newest batch's files."""
    return site.sql(
        "SELECT file_name, records FROM batch_audit.import_file WHERE batch_id = "
        "(SELECT batch_id FROM batch_audit.import_history ORDER BY started_at DESC LIMIT 1) "
        "ORDER BY file_name"
    )


def refused(site: Site, reason: str, key: str = "all") -> None:
    """Expect an import to fail, and to leave nothing behind."""
    with pytest.raises(DeliveryError, match=reason) as error:
        site.run(key)
    batch = site.newest(key)
    assert (batch.status, batch.error_details) == ("FAILED", str(error.value))
    assert not [*site.settings.staging.glob("*/source/*")]
    assert site.count("SELECT count(*) FROM t") == 0


def test_rows_arrive_in_ranges_and_each_is_traced(other: Other, query_site: MakeQuerySite) -> None:
    fill(other, 10)
    site = query_site(TARGET, {"table": "o", "key": ["id"], "rows": 4})
    batch = site.run("all")
    assert (batch.status, batch.source_records, batch.written_records) == ("SUCCESS", 10, 10)
    assert site.sql("SELECT id, note FROM t ORDER BY 1") == other.sql("SELECT * FROM o ORDER BY 1")
    assert files(site) == [
        ("rows-000000000001-000000000004.parquet", 4),
        ("rows-000000000005-000000000008.parquet", 4),
        ("rows-000000000009-000000000010.parquet", 2),
    ]
    statuses = site.sql(
        "SELECT DISTINCT entity_type, status FROM batch_audit.crc32_audit ORDER BY 1, 2"
    )
    assert statuses == [("file", "recorded"), ("file", "valid")]
    bag = site.settings.home / "archive" / "orders" / "all" / batch.batch_id / "data" / "source"
    assert min(path.name for path in bag.iterdir()) == "query.json.zst"


def test_the_same_rows_are_a_duplicate_and_others_supersede(
    other: Other, query_site: MakeQuerySite
) -> None:
    fill(other, 9)
    site = query_site(TARGET, {"table": "o", "key": ["id"], "rows": 4})
    first = site.run("all")
    again = site.run("all")
    assert (again.status, again.duplicate_of) == ("DUPLICATE", first.batch_id)
    other.sql("UPDATE o SET note = 'new' WHERE id = 9")
    second = site.run("all")
    assert second.status == "SUCCESS"
    assert [b.status for b in site.history()] == ["SUPERSEDED", "DUPLICATE", "SUCCESS"]
    assert site.history()[0].batch_id == first.batch_id
    assert site.sql("SELECT note FROM t WHERE id = 9") == [("new",)]


def test_a_partition_key_is_bound_and_never_pasted(other: Other, query_site: MakeQuerySite) -> None:
    other.sql("CREATE TABLE o (id integer PRIMARY KEY, month text, note text)")
    other.sql(
        "INSERT INTO o VALUES (1, '2024-01', ':x::y %s'), (2, '2024-02', '100%'), (3, '2024-01', ':b')"
    )
    query: dict[str, object] = {
        "select": "SELECT id, note /* {it's} %s :batch */ FROM o\n"
        "WHERE month = {batch} AND note LIKE '%'\nAND ':x' <> '::' AND {batch} <> '' -- the end;",
        "key": ["id"],
    }
    # An apostrophe before it, as in the comment, counts as a quote.
    with pytest.raises(ValueError, match="must stand outside of quotes"):
        query_site(TARGET, query)
    query["select"] = str(query["select"]).replace("it's", "its")
    site = query_site("DROP TABLE IF EXISTS t; " + TARGET, query)
    site.run("2024-01")
    assert site.sql("SELECT id, note FROM t ORDER BY 1") == [(1, ":x::y %s"), (3, ":b")]
    site.run("2024-02")
    assert site.count("SELECT count(*) FROM t") == 3
    with pytest.raises(DeliveryError, match="no row for this partition"):
        site.run("2024-03")


def test_a_partition_key_is_of_the_type_that_each_place_needs(
    postgres: Other, query_site: MakeQuerySite
) -> None:
    postgres.sql("CREATE TABLE o (id integer PRIMARY KEY, year integer, day date)")
    postgres.sql(
        "INSERT INTO o SELECT n, 2023 + n % 2, date '2024-01-01' + n FROM generate_series(1, 60) n"
    )
    site = query_site(
        "CREATE TABLE t (id integer PRIMARY KEY, key text, import_batch_id uuid)",
        {
            "select": "SELECT id, {batch}::text AS key FROM o WHERE year={batch}AND "
            "day >= ({batch} || '-01-31')::date AND to_char(day, 'YYYY') = {batch}",
            "key": ["id"],
            "rows": 7,
        },
    )
    assert site.run("2024").written_records == 15
    assert set(site.sql("SELECT key FROM t")) == {("2024",)}


@EXAMPLES
@given(data=st.data())
def test_text_keys_of_any_collation_and_several_columns(
    postgres: Other, query_site: MakeQuerySite, data: st.DataObject
) -> None:
    found = postgres.sql(
        "SELECT collname FROM pg_collation WHERE collencoding IN (-1, 6) AND collisdeterministic"
    )
    known = {"C", "POSIX", "default", "C.utf8", "en-x-icu", "und-x-icu", "de-AT-x-icu"}
    collation = data.draw(st.sampled_from(sorted(known & {name for (name,) in found})))
    words = st.text(st.sampled_from("aAbBzZéÉ _-10"), max_size=3)
    rows = data.draw(st.sets(st.tuples(words, st.integers(-3, 3)), min_size=1, max_size=25))
    postgres.sql("DROP TABLE IF EXISTS o")
    postgres.sql(f'CREATE TABLE o (a text COLLATE "{collation}", b numeric, PRIMARY KEY (a, b))')
    for row in rows:
        postgres.sql("INSERT INTO o VALUES (%s, %s)", *row)
    key = data.draw(st.permutations(["a", "b"]))
    site = query_site(
        "DROP TABLE IF EXISTS t; CREATE TABLE t (a text, b integer, import_batch_id uuid)",
        {"table": "public.o", "key": key, "rows": data.draw(st.integers(1, 7))},
    )
    assert site.run(new_id()).written_records == len(rows)
    assert set(site.sql("SELECT a, b FROM t")) == rows


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("uuid", "md5(n::text)::uuid"),
        ("date", "date '2024-01-01' + (n * 37 % 101)"),
        ("timestamptz", "timestamptz '2024-01-01' + n * interval '0.000001 s'"),
        ("numeric", "n::numeric / 7"),
        ("real", "n::real / 7"),
        ("double precision", "n::float / 7 - 3"),
        ("bytea", "decode(md5(n::text), 'hex')"),
        ("char(9)", "n::text"),
        ("interval", "n * interval '1 day'"),
        ("integer[]", "ARRAY[n % 5, n]"),
        ("inet", "inet '10.0.0.0' + n"),
        ("boolean", "n = 1"),
    ],
)
def test_keys_of_every_kind(
    postgres: Other, query_site: MakeQuerySite, kind: str, value: str
) -> None:
    count = 2 if kind == "boolean" else 40
    postgres.sql(f"CREATE TABLE o (k {kind} PRIMARY KEY)")
    postgres.sql(f"INSERT INTO o SELECT {value} FROM generate_series(1, {count}) n")
    site = query_site(
        f"CREATE TABLE t (k {kind} PRIMARY KEY, import_batch_id uuid)",
        {"table": "o", "key": ["k"], "rows": 7 if count > 2 else 1},
    )
    assert site.run("all").written_records == count
    assert site.sql("SELECT k::text FROM t ORDER BY k") == postgres.sql(
        "SELECT k::text FROM o ORDER BY k"
    )


def test_mixed_keys_of_sqlite(sqlite: Other, query_site: MakeQuerySite) -> None:
    sqlite.sql("CREATE TABLE o (k PRIMARY KEY)")
    for value in [3, 1.5, "b", "B", "a", "10", 10, -1]:
        sqlite.sql("INSERT INTO o VALUES (?)", value)
    site = query_site(
        "CREATE TABLE t (k text, import_batch_id uuid)", {"table": "o", "key": ["k"], "rows": 3}
    )
    assert site.run("all").written_records == 8


def test_rows_without_a_key_are_not_passed_over(other: Other, query_site: MakeQuerySite) -> None:
    other.sql("CREATE TABLE o (id integer, note text)")
    other.sql("INSERT INTO o VALUES (1, 'a'), (NULL, 'b'), (2, NULL)")
    site = query_site(TARGET, {"table": "o", "key": ["id"]})
    refused(site, r"1 of 3 rows have no value in the key \(id\)")
    site = query_site("DROP TABLE t; " + TARGET, {"table": "o", "key": ["id", "note"]})
    refused(site, r"2 of 3 rows have no value in the key \(id, note\)")


@pytest.mark.parametrize("rows", [1, 2, 3, 50])
def test_a_key_that_is_not_unique_is_refused(
    other: Other, query_site: MakeQuerySite, rows: int
) -> None:
    other.sql("CREATE TABLE o (id integer, note text)")
    other.sql("INSERT INTO o VALUES (1, 'a'), (2, 'b'), (2, 'c'), (3, 'd')")
    site = query_site(TARGET, {"table": "o", "key": ["id"], "rows": rows})
    refused(site, "several rows have the same id. Name columns as `key` that tell every row apart")


def test_keys_that_are_equal_to_the_database_alone_are_refused(
    postgres: Other, query_site: MakeQuerySite
) -> None:
    if not postgres.sql("SELECT FROM pg_collation WHERE collprovider = 'i'"):
        pytest.skip("this PostgreSQL is built without ICU")
    postgres.sql(
        "CREATE COLLATION blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
    )
    postgres.sql("CREATE TABLE o (id text COLLATE blind, note text)")
    postgres.sql("INSERT INTO o VALUES ('a', '1'), ('A', '2'), ('b', '3')")
    site = query_site("CREATE TABLE t (id text, note text, import_batch_id uuid)",
                      {"table": "o", "key": ["id"], "rows": 1})  # fmt: skip
    refused(
        site, "counts 2 rows from row 1 on, of which 1 were read: several rows have the same id"
    )


def test_a_writer_does_not_disturb_the_snapshot(other: Other, query_site: MakeQuerySite) -> None:
    fill(other, 20)
    site = query_site(TARGET, {"table": "o", "key": ["id"], "rows": 3})
    before = other.sql("SELECT * FROM o ORDER BY 1")
    passed = 0

    def write(table: Any) -> Any:
        nonlocal passed
        passed += 1
        if passed == 3:
            other.sql("DELETE FROM o WHERE id IN (2, 15)")
            other.sql("UPDATE o SET note = 'changed' WHERE id > 10")
            other.sql("INSERT INTO o VALUES (100, 'late'), (0, 'early')")
        return table

    with armed("ingest.range", write):
        batch = site.run("all")
    assert (passed, batch.written_records) == (7, 20)
    assert site.sql("SELECT id, note FROM t ORDER BY 1") == before
    # The next run finds what was written meanwhile.
    assert site.run("all").written_records == 20
    assert site.sql("SELECT id, note FROM t ORDER BY 1") == other.sql("SELECT * FROM o ORDER BY 1")


def test_a_lost_connection_ends_the_stage_and_the_next_run_is_right(
    postgres: Other, query_site: MakeQuerySite, caplog: pytest.LogCaptureFixture
) -> None:
    fill(postgres, 10)
    site = query_site(TARGET, {"table": "o", "key": ["id"], "rows": 3})
    end = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'batch-pipelines query' AND datname = current_database()"
    )
    with armed("ingest.range", lambda table: postgres.sql(end) and table):
        refused(site, "The connection to the database of LEGACY_URL was lost")
        with warnings.catch_warnings():
            # SQLAlchemy does not close a cursor whose connection is gone.
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
    assert caplog.text == ""
    assert site.run("all").status == "SUCCESS"
    assert site.count("SELECT count(*) FROM t") == 10


def test_wide_rows_make_short_ranges(
    other: Other, query_site: MakeQuerySite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "_RANGE_BYTES", 100_000)
    monkeypatch.setattr(ranges, "_FETCHED_BYTES", 10_000)
    monkeypatch.setattr(ranges, "_FIRST_ROWS", 2)
    monkeypatch.setattr(ranges, "_MOST_ROWS", 10)
    fill(other, 200)
    other.sql("UPDATE o SET note = replace('0123456789', '0', note) || id WHERE id < 100")
    for number in range(100, 120):
        other.sql("UPDATE o SET note = %s WHERE id = 100".replace("%s", f"'{'x' * 60_000}'")
                  .replace("id = 100", f"id = {number}"))  # fmt: skip
    site = query_site(TARGET, {"table": "o", "key": ["id"], "rows": 150})
    assert site.run("all").written_records == 200
    # Two of the wide rows are more than a range holds.
    assert len(files(site)) >= 10
    assert site.sql("SELECT id, note FROM t ORDER BY 1") == other.sql("SELECT * FROM o ORDER BY 1")


def test_an_empty_table_is_a_delivery(other: Other, query_site: MakeQuerySite) -> None:
    other.sql("CREATE TABLE o (id integer, note text)")
    site = query_site(TARGET, {"table": "o", "key": ["id"]})
    batch = site.run("all")
    assert (batch.status, batch.source_records) == ("SUCCESS", 0)


def test_limits_hold(other: Other, query_site: MakeQuerySite) -> None:
    fill(other, 10)
    query: dict[str, object] = {"table": "o", "key": ["id"], "rows": 3}
    for limits, reason in (
        ({"records": 9}, "has 10 records, above the feed's limit of 9"),
        ({"files": 3}, "has 4 files, above the feed's limit of 3"),
        ({"bytes": 100}, "bytes, above the feed's limit of 100"),
    ):
        refused(query_site("DROP TABLE IF EXISTS t; " + TARGET, query, limits=limits), reason)


def test_what_the_database_refuses_is_told_without_its_words(
    other: Other, query_site: MakeQuerySite
) -> None:
    fill(other, 1)
    site = query_site(TARGET, {"select": "SELECT id, note FROM nowhere", "key": ["id"]})
    with pytest.raises(DeliveryError, match="refused the query") as error:
        site.run("all")
    assert "nowhere" not in str(error.value)
    site = query_site("DROP TABLE t; " + TARGET, {"table": "o", "key": ["no"]})
    with pytest.raises(FeedError, match="has no column 'no', which is of the `key`"):
        site.run("all")


def test_nothing_can_be_written(other: Other, query_site: MakeQuerySite) -> None:
    fill(other, 1)
    select = "SELECT 1 AS id, 'x' AS note) q; DELETE FROM o; SELECT (1"
    site = query_site(TARGET, {"select": select, "key": ["id"]})
    with pytest.raises(DeliveryError):
        site.run("all")
    assert other.sql("SELECT count(*) FROM o") == [(1,)]


def test_the_account_says_which_rows_a_file_holds(other: Other, query_site: MakeQuerySite) -> None:
    fill(other, 5)
    site = query_site(TARGET, {"table": "o", "key": ["id"], "rows": 3})
    batch = site.run("all", stages=["ingest"])
    folder = site.settings.staging / batch.batch_id / "source"
    account = json.loads((folder / "query.json").read_text())
    assert account["url_variable"] == VARIABLE
    assert account["isolation"] in {"REPEATABLE READ", "SERIALIZABLE"}
    ids = {
        path.name: [int(n) for n in pq.read_table(path)["id"].to_pylist()]
        for path in sorted(folder.glob("*.parquet"))
    }
    assert [*ids.values()] == [[1, 2, 3], [4, 5]]
    assert [
        (part["file"], part["first"], part["last"], part["counted"]) for part in account["ranges"]
    ] == [(name, numbers[0], numbers[-1], len(numbers)) for name, numbers in ids.items()]
    assert not any(path.stat().st_mode & 0o222 for path in folder.iterdir())
