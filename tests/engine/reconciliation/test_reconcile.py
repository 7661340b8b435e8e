"""Batches that a foreign loader inserts are found, compared each by itself, and differences named."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import hypothesis
import hypothesis.strategies as st
import pydantic
import pytest

from batch_pipelines.engine.errors import FeedError
from batch_pipelines.engine.feeds import Feed
from batch_pipelines.engine.ledger.reconciliations import open_log
from batch_pipelines.engine.reconciliation.loaded_batches import loaded_batches
from batch_pipelines.engine.reconciliation.reconcile import LOCK_CLASS, overall
from batch_pipelines.engine.reconciliation.scratch import scratch_folder
from tests.engine.reconciliation.support_loader import (
    DDL,
    FEED,
    Named,
    by_batch,
    csv_of,
    insert,
    named,
    reconcile,
    row,
    table_of,
)
from tests.support_engine import Site

if TYPE_CHECKING:
    from pathlib import Path

    from tests.engine.conftest import MakeSite

EACH = 30


def loaded(make: MakeSite, batches: int, **more: object) -> Site:
    """A site where another system has loaded batches, as their files have them."""
    site = make(DDL)
    site = Site(site.database, site.settings, Feed.model_validate(FEED | more), site.connection)
    for number in range(batches):
        rows = [row(number * 100 + each) for each in range(EACH)]
        site.deliver({"part.csv": csv_of(rows)}, f"b{number:02}")
        insert(site, f"b{number:02}", rows)
    return site


def test_twenty_batches_of_a_foreign_loader(site: MakeSite) -> None:
    """Given 20 batches, some with rows missing, extra, changed, twice: found and named exactly."""
    place = loaded(site, 20)
    place.sql("DELETE FROM t WHERE id IN (105, 106)")
    insert(place, "b02", [row(299), row(298)])
    place.sql("UPDATE t SET name = 'SECRET', ratio = 1 WHERE id = 303")
    place.sql("UPDATE t SET tags = '{}' WHERE id = 304")
    insert(place, "b04", [row(401), row(401), row(402)])
    # Equal sums and bounds: two rows swap a value.
    place.sql(
        "UPDATE t SET amount = CASE id WHEN 511 THEN 12.12 ELSE 11.11 END WHERE id IN (511, 512)"
    )
    place.sql("DELETE FROM t WHERE id = 601")
    place.sql("UPDATE t SET seen = NULL WHERE id = 602")
    insert(place, "b06", [row(603), row(699)])
    before = place.rows()

    found = by_batch(reconcile(place))

    assert sorted(found) == [f"b{number:02}" for number in range(20)]
    failed = {name for name, each in found.items() if each.status == "FAILED"}
    assert failed == {"b01", "b02", "b03", "b04", "b05", "b06"}
    assert {each.status for name, each in found.items() if name not in failed} == {"SUCCESS"}
    assert overall(found.values()) == "PARTIAL_SUCCESS"
    assert {name: named(table_of(found[name]).rows) for name in sorted(failed)} == {
        "b01": Named(["105", "106"], [], {}),
        "b02": Named([], ["298", "299"], {}),
        "b03": Named([], [], {"303": ["name", "ratio"], "304": ["tags"]}),
        "b04": Named([], ["401", "401", "402"], {}),
        "b05": Named([], [], {"511": ["amount"], "512": ["amount"]}),
        "b06": Named(["601"], ["603", "699"], {"602": ["seen"]}),
    }
    six = table_of(found["b06"])
    assert six.rows is not None
    assert (six.src_records, six.tgt_records) == (EACH, EACH + 1)
    assert (six.rows.src_extras, six.rows.tgt_extras, six.rows.mismatches) == (1, 2, 1)
    assert six.rows.matches == EACH - 2
    assert "SECRET" not in str(found)
    # Nothing but the ledger was written, and nothing stays behind.
    assert place.rows() == before
    assert not [*place.settings.home.glob("reconcile-*")]
    logged = place.sql(
        "SELECT status, count(*), bool_and(completed_at IS NOT NULL) FROM batch_audit.validation_log"
        " GROUP BY 1 ORDER BY 1"
    )
    assert logged == [("FAILED", 6, True), ("SUCCESS", 14, True)]


def test_again_there_is_nothing_to_do(site18: MakeSite) -> None:
    place = loaded(site18, 2)
    place.sql("DELETE FROM t WHERE id = 105")
    assert [each.status for each in reconcile(place)] == ["SUCCESS", "FAILED"]
    assert reconcile(place) == []
    assert overall([]) == "SUCCESS"
    (known,) = reconcile(place, "b01")
    assert (known.worked, known.status, named(table_of(known).rows).missing) == (
        False, "FAILED", ["105"],
    )  # fmt: skip
    insert(place, "b01", [row(105)])
    (mended,) = reconcile(place, "b01", force=True)
    assert (mended.worked, mended.status) == (True, "SUCCESS")
    rows = [row(number) for number in range(900, 910)]
    place.deliver({"part.csv": csv_of(rows)}, "b09")
    insert(place, "b09", rows)
    assert [each.batches for each in reconcile(place)] == [("b09",)]
    assert [each.batches for each in reconcile(place, force=True)] == [("b00",), ("b01",), ("b09",)]
    assert place.count("SELECT count(*) FROM batch_audit.reconciled_batch") == 7


def test_a_batch_that_cannot_be_verified_stops_no_other_and_is_tried_again(
    site18: MakeSite,
) -> None:
    place = loaded(site18, 4)
    (place.landing("b00") / "part.csv").unlink()
    (place.landing("b01") / "part.csv").write_text("id,nom\n1,x\n")
    (place.landing("b02") / "part.csv.crc32c").write_text("00000000\n")
    found = by_batch(reconcile(place))
    assert {name: each.status for name, each in found.items()} == {
        "b00": "UNVERIFIED", "b01": "UNVERIFIED", "b02": "UNVERIFIED", "b03": "SUCCESS",
    }  # fmt: skip
    assert overall(found.values()) == "PARTIAL_SUCCESS"
    why = {name: each.tables[0].log.exception or "" for name, each in found.items()}
    assert "there is no file" in why["b00"]
    assert "column 'nom' is not in public.t" in why["b01"]
    assert "are not what its sender says" in why["b02"]
    place.deliver({"part.csv": csv_of([row(each) for each in range(EACH)])}, "b00")
    assert {e.batches[0]: e.status for e in reconcile(place)} == {
        "b00": "SUCCESS", "b01": "UNVERIFIED", "b02": "UNVERIFIED",
    }  # fmt: skip


@pytest.mark.versions
def test_a_record_that_cannot_be_read_is_unverified_and_never_passed(site: MakeSite) -> None:
    place = loaded(site, 1)
    bad = [row(1), ("2", "x", "1.234", "1", None, None), ("3", "y", "1", "many", None, None)]
    place.deliver({"part.csv": csv_of([row(0), *bad])}, "b00")
    place.sql("DELETE FROM t WHERE id > 1")
    (found,) = reconcile(place)
    table = table_of(found)
    assert (found.status, table.src_records, table.tgt_records) == ("UNVERIFIED", 4, 2)
    assert [(c.name, c.actual) for c in table.checks if c.status != "SUCCESS"] == [
        ("rows.unreadable", "2")
    ]


def test_files_as_the_loader_lists_them(site18: MakeSite) -> None:
    """Given parts that are all called alike, in folders of their own, and an odd batch id: compared."""
    source = {"batches": {"table": "public.files", "batch": "id", "path": "path"}}
    place = loaded(site18, 1, source=source)
    place.sql("CREATE TABLE public.files (id text, path text)")
    rows = [row(number) for number in range(700, 740)]
    for part in range(4):
        folder = place.settings.root / "lake" / f"part={part}"
        folder.mkdir(parents=True)
        (folder / "0000.csv").write_text(csv_of(rows[part * 10 : part * 10 + 10]))
    name = "2024-05-01T10:00 / 7"
    for path in ("part=0/0000.csv", "part=1/0000.csv", "part=2/0000.csv", "part=3/*.csv"):
        place.sql("INSERT INTO files VALUES (%s, 'lake/' || %s)", name, path)
    insert(place, name, rows)
    found = by_batch(reconcile(place))
    assert found[name].status == "SUCCESS"
    assert found["b00"].tables[0].log.exception == (
        "Batch b00: public.files lists no file of it to compare with."
    )
    place.sql("INSERT INTO files VALUES ('b00', 'lake/gone.csv')")
    (again,) = reconcile(place)
    assert "which public.files lists of it" in (again.tables[0].log.exception or "")


def test_all_that_is_new_together(site18: MakeSite) -> None:
    """Given a row in another batch of the window: together that is no difference, by itself it is."""
    place = loaded(site18, 3, validate="together")
    place.sql("UPDATE t SET loaded_by = 'b01' WHERE id = 5")
    (found,) = reconcile(place)
    assert (found.batches, found.status) == (("b00", "b01", "b02"), "SUCCESS")
    assert table_of(found).src_records == 3 * EACH
    assert reconcile(place) == []
    (known,) = reconcile(place, "b01")
    assert (known.worked, known.tables[0].log.batches) == (False, ["b00", "b01", "b02"])
    (alone,) = reconcile(place, "b01", force=True)
    assert (alone.status, named(table_of(alone).rows).extra) == ("FAILED", ["5"])


def test_a_dead_run_is_taken_over_and_a_live_one_is_left_alone(site18: MakeSite) -> None:
    place = loaded(site18, 1)
    with place.database.connect("killed") as killed:
        open_log(killed, "orders", "public.t", ["b00"], requested_by="x", run_id=None)
        killed.execute("SELECT pg_advisory_lock(%s, hashtext('orders/b00'))", (LOCK_CLASS,))
        (busy,) = reconcile(place)
        assert (busy.status, busy.worked, busy.tables) == ("UNVERIFIED", False, ())
        assert busy.exception == "orders/b00: another run compares it just now."
    (found,) = reconcile(place)
    assert found.status == "SUCCESS"
    logged = place.sql("SELECT status, exception FROM batch_audit.validation_log ORDER BY id")
    assert logged == [("UNVERIFIED", "Its run ended without a word."), ("SUCCESS", None)]


def test_what_a_killed_run_has_left_is_cleared_away(tmp_path: Path) -> None:
    left = tmp_path / "reconcile-x"
    (left / "source").mkdir(parents=True)
    (left / "source" / "part.csv").write_text("id\n1\n")
    with scratch_folder(tmp_path) as first, scratch_folder(tmp_path) as second:
        assert not left.exists()
        assert (first / "source").is_dir()
        assert (second / "source").is_dir()
    assert not [*tmp_path.iterdir()]


def test_batches_are_found_by_the_index(site: MakeSite) -> None:
    """Given many rows of few batches, when they are looked for, no row but the first of each is read."""
    place = loaded(site, 1)
    place.sql(
        "INSERT INTO t (id, loaded_by) SELECT n, 'c' || n % 5 FROM generate_series(1, 20000) n"
    )
    place.sql("ANALYZE t")
    read = "SELECT seq_scan, idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 't'"
    with place.connection.transaction():
        ((scans_before, rows_before),) = place.sql(read)
        assert loaded_batches(place.connection, place.feed) == ["b00", "c0", "c1", "c2", "c3", "c4"]
        ((scans, rows),) = place.sql(read)
    assert scans == scans_before
    assert rows - rows_before <= 7
    place.sql("DROP INDEX t_loaded_by_idx")
    with pytest.raises(
        FeedError, match=r'CREATE INDEX CONCURRENTLY ON "public"."t" \("loaded_by"\);'
    ):
        reconcile(place)


def test_rows_without_a_key_are_told_apart_by_all_values(site18: MakeSite) -> None:
    tables = [{"table": "public.t", "write": "none", "batch_column": "loaded_by"}]
    place = loaded(site18, 1, tables=tables)
    place.sql("UPDATE t SET name = 'x' WHERE id = 3")
    insert(place, "b00", [row(4)])
    (found,) = reconcile(place)
    rows = table_of(found).rows
    assert rows is not None
    assert (rows.src_extras, rows.tgt_extras, rows.mismatches, rows.matches) == (1, 2, 0, 29)
    assert [(each.kind, each.record, each.key) for each in rows.details] == [
        ("missing", 4, None), ("added", None, None), ("duplicated", 5, None),
    ]  # fmt: skip
    assert rows.details[1].place is not None


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"tables": [{"table": "a.b", "write": "none"}]}, "needs a `batch_column`"),
        ({"tables": [{"table": "a.b", "batch_column": "x"}]}, "goes with `write: none` alone"),
        ({"tables": [{"table": "a.b"}], "validate": "together"}, "go with `write: none` alone"),
        ({"source": {"path": "{batch}/x", "batches": {"table": "a.b", "batch": "c", "path": "d"}}},
         "must have one of"),
        ({"source": {"query": {"url_variable": "A", "table": "t", "key": ["id"]}}},
         "without {batch} has none"),
        ({"tables": [{"table": "a.b", "files": "y", "write": "none", "batch_column": "x"},
                     {"table": "a.c", "files": "x"}]}, "write two feeds"),
    ],
)  # fmt: skip
def test_a_feed_that_contradicts_itself_is_refused(more: dict[str, object], why: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=why):
        Feed.model_validate(FEED | more)


values = st.none() | st.integers(0, 2)
some_rows = st.lists(st.tuples(st.integers(0, 4), values, values), max_size=12)


@hypothesis.settings(
    max_examples=40, deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)  # fmt: skip
@hypothesis.given(source=some_rows, target=some_rows, keyed=st.booleans())
def test_rows_differ_as_in_a_naive_comparison(
    naive: Site, source: list[tuple[int | None, ...]], target: list[tuple[int | None, ...]],
    *, keyed: bool,
) -> None:  # fmt: skip
    """Given any rows on both sides, twice or without values: as many differ as by counting them."""
    feed = {
        "feed": "orders",
        "source": {"path": "landing/{batch}/*.csv"},
        "tables": [
            {
                "table": "public.n",
                "write": "none",
                "batch_column": "b",
                "key": ["k"] if keyed else [],
            }
        ],
    }
    place = Site(naive.database, naive.settings, Feed.model_validate(feed), naive.connection)
    place.sql("TRUNCATE n")
    with place.connection.cursor() as cursor:
        cursor.executemany("INSERT INTO n VALUES (%s, %s, %s, 'x')", target)
    text = "".join(",".join("" if v is None else str(v) for v in each) + "\n" for each in source)
    place.deliver({"part.csv": f"k,v,w\n{text}"}, "x")
    (found,) = reconcile(place, "x", force=True)
    missing, extra, changed = differences(Counter(source), Counter(target), keyed=keyed)
    rows = table_of(found).rows
    assert (found.status == "SUCCESS") == (not missing + extra + changed)
    if rows is not None:
        assert (rows.src_extras, rows.tgt_extras, rows.mismatches) == (missing, extra, changed)
        assert rows.matches == (Counter(source) & Counter(target)).total()
        assert len(rows.details) == missing + extra + changed


def differences(
    source: Counter[tuple[int | None, ...]], target: Counter[tuple[int | None, ...]], *, keyed: bool
) -> tuple[int, int, int]:
    """Count rows missing, extra and changed, by taking equal ones away."""
    gone, new = source - target, target - source
    by_key = [Counter(key for key, *_ in each.elements()) for each in (gone, new)]
    changed = (by_key[0] & by_key[1]).total() if keyed else 0
    return gone.total() - changed, new.total() - changed, changed


@pytest.fixture
def naive(site18: MakeSite) -> Site:
    """A site with a table of two values."""
    return site18("CREATE TABLE n (k integer, v integer, w integer, b text); CREATE INDEX ON n (b)")
