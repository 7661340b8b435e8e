"""Records set aside over the life of a batch: kept, replaced, superseded, limited, and other writers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from batch_pipelines.engine.errors import PublishError, ThresholdError
from batch_pipelines.engine.failpoints import armed
from batch_pipelines.engine.ledger import batches, rejects
from batch_pipelines.engine.ledger.stages import STAGES
from batch_pipelines.engine.writing import isolating, judging
from tests.support_engine import KEY, new_id
from tests.support_process import At, importing
from tests.support_rejects import Bad, balance, check_bad_records, set_aside, tolerate

if TYPE_CHECKING:
    import pyarrow as pa

    from tests.engine.conftest import MakeSite
    from tests.support_engine import Site

TABLE = (
    "CREATE TABLE t (id int PRIMARY KEY, n int CONSTRAINT small CHECK (n < 10),"
    " import_batch_id uuid)"
)
FAMILY = """
CREATE TABLE a (id int PRIMARY KEY, up int REFERENCES a, import_batch_id uuid);
CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a, import_batch_id uuid);
CREATE TABLE c (id int PRIMARY KEY, b int REFERENCES b, import_batch_id uuid);
"""
ALL = {"public.a": "a*", "public.b": "b*", "public.c": "c*"}


def lines(header: str, *records: str) -> str:
    return "".join(f"{line}\n" for line in (header, *records))


def ways(site: Site, files: dict[str, str], key: str = KEY) -> tuple[str, list[str]]:
    """Load, and tell how it ended and which way each chunk of rows was sent."""
    found: list[str] = []

    def listen(rows: pa.RecordBatch) -> pa.RecordBatch:
        found.append("straight" if "import_batch_id" in rows.schema.names else "staged")
        return rows

    with armed("bulk_write.parsed", listen):
        status = site.load(files, key).status
    return status, found


# What is kept


def test_rejects_of_a_failed_batch_are_replaced_by_its_next_try(site18: MakeSite) -> None:
    here = site18(TABLE)
    files = {"a.csv": lines("id,n", "1,1", "2,50", "3,x", "4,10", "1,2")}
    here.deliver(files)
    value = Bad("a.csv", 3, "22P02", "n")
    small = [Bad("a.csv", record, "23514", None, "small") for record in (2, 4)]
    twice = Bad("a.csv", 5, "23505", None, "t_pkey")
    with pytest.raises(ThresholdError, match="4 of 5 records cannot be loaded, above 0"):
        here.run()
    first = here.newest()
    assert set_aside(here, first, files) == [small[0], value, small[1], twice]
    assert {(r.sqlstate, r.records) for r in rejects.summary(here.connection, first.batch_id)} == {
        ("23514", 2), ("22P02", 1), ("23505", 1),
    }  # fmt: skip

    here.sql("ALTER TABLE t DROP CONSTRAINT small, ADD CONSTRAINT small CHECK (n < 50)")
    with pytest.raises(ThresholdError, match="3 of 5"):
        here.run(stages=STAGES[2:])
    again = here.newest()
    assert again.batch_id == first.batch_id
    assert set_aside(here, again, files) == [small[0], value, twice]

    tolerate(here, rejected_rows=3)
    done = here.run(stages=STAGES[2:])
    assert (done.batch_id, done.status) == (first.batch_id, "PARTIAL_SUCCESS")
    assert set_aside(here, done, files) == [small[0], value, twice]
    balance(here, done)


def test_the_next_try_may_have_no_rejects_left(site18: MakeSite) -> None:
    here = site18(TABLE)
    here.deliver({"a.csv": lines("id,n", "1,1", "2,50")})
    with pytest.raises(ThresholdError):
        here.run()
    here.sql("ALTER TABLE t DROP CONSTRAINT small")
    done = here.run(stages=STAGES[2:])
    assert (done.status, done.rejected_records) == ("SUCCESS", 0)
    assert here.count("SELECT count(*) FROM batch_audit.import_reject") == 0


@pytest.mark.versions
def test_every_reason_of_a_record_is_kept(site: MakeSite) -> None:
    here = site(
        "CREATE TABLE t (id int PRIMARY KEY, n int CONSTRAINT small CHECK (n < 10),"
        " m int CONSTRAINT even CHECK (m % 2 = 0), d date, import_batch_id uuid)"
    )
    files = {"a.csv": lines("id,n,m,d", "1,1,2,2013-01-01", "2,50,1,", "x,50,1,never", "4,,,")}
    bad = [Bad("a.csv", 2, "23514", None, "even"), Bad("a.csv", 3, "22P02", "id")]
    check_bad_records(here, files, *bad)
    failed = here.history()[0]
    found = rejects.of_batch(here.connection, failed.batch_id)
    assert [[(b["sqlstate"], b["constraint"] or b["column"]) for b in r.breaches] for r in found] == [
        [("23514", "even"), ("23514", "small")],
        [("22P02", "id"), ("22007", "d")],
    ]  # fmt: skip


# Tables that refer to each other


@pytest.mark.versions
def test_a_chain_of_rows_falls_with_its_first(site: MakeSite) -> None:
    """Given a parent that cannot be loaded, its children and theirs are set aside, and no other."""
    here = site(FAMILY, ALL)
    files = {
        "a.csv": lines("id,up", "4,3", "3,2", "2,1", "1,x", "5,5", "6,7", "7,6"),
        "b.csv": lines("id,a", "10,2", "11,5", "12,", "11,6"),
        "c.csv": lines("id,b", "20,10", "21,11", "22,12", "23,13"),
    }
    orphans = {"a.csv": (1, 2, 3), "b.csv": (1,), "c.csv": (1, 4)}
    column = {"a.csv": "up", "b.csv": "a", "c.csv": "b"}
    check_bad_records(
        here,
        files,
        Bad("a.csv", 4, "22P02", "up"),
        Bad("b.csv", 4, "23505", None, "b_pkey"),
        *(
            Bad(file, record, "23503", column[file], f"{file[0]}_{column[file]}_fkey")
            for file, records in orphans.items()
            for record in records
        ),
    )


def test_a_row_that_falls_with_its_parent_leaves_its_key_to_the_next(site: MakeSite) -> None:
    here = site(FAMILY, ALL)
    files = {
        "a.csv": lines("id,up", "1,99", "2,1", "2,", "3,2"),
        "b.csv": lines("id,a", "10,99", "10,2"),
        "c.csv": lines("id,b", "20,10"),
    }
    check_bad_records(
        here,
        files,
        Bad("a.csv", 1, "23503", "up", "a_up_fkey"),
        Bad("a.csv", 2, "23503", "up", "a_up_fkey"),
        Bad("b.csv", 1, "23503", "a", "b_a_fkey"),
    )


# Corrections


@pytest.mark.parametrize("referred", ["", "CREATE TABLE elsewhere (t int REFERENCES t)"])
def test_a_correction_supersedes_a_batch_that_was_published_in_part(
    site18: MakeSite, referred: str
) -> None:
    here = site18(f"{TABLE}; {referred}")
    tolerate(here)
    before = {"a.csv": lines("id,n", "1,1", "2,50", "3,3", "4,4")}
    after = {"a.csv": lines("id,n", "1,1", "2,2", "3,50", "5,5")}
    first, second = here.load(before), here.load(after)
    old = batches.by_id(here.connection, first.batch_id)
    assert (old.status, old.superseded_by) == ("SUPERSEDED", second.batch_id)
    assert here.sql("SELECT id, n FROM t ORDER BY 1") == [(1, 1), (2, 2), (5, 5)]
    assert here.stamps() == {second.batch_id: 3}
    assert set_aside(here, old, before) == [Bad("a.csv", 2, "23514", None, "small")]
    assert set_aside(here, second, after) == [Bad("a.csv", 3, "23514", None, "small")]
    balance(here, second)


@pytest.mark.parametrize("bad", ["x", "50"], ids=["unreadable", "refused by the table"])
def test_all_records_bad_leave_the_earlier_batch_in_force(site: MakeSite, bad: str) -> None:
    """Also of a feed that tolerates any number: an empty table is nobody's wish."""
    here = site(TABLE)
    tolerate(here)
    first = here.load({"a.csv": lines("id,n", "1,1", "2,2")})
    files = {"a.csv": lines("id,n", f"1,{bad}"), "b.csv": lines("id,n", f"2,{bad}", f"3,{bad}")}
    here.deliver(files)
    with pytest.raises(
        ThresholdError, match="3 of 3 records cannot be loaded, all of them; nothing"
    ):
        here.run()
    assert here.newest().status == "FAILED"
    assert len(set_aside(here, here.newest(), files)) == 3
    assert here.stamps() == {first.batch_id: 2}
    assert batches.in_force(here.connection, "orders", KEY) == first


# Thresholds


@pytest.mark.parametrize(
    ("thresholds", "most", "limit"),
    [
        pytest.param({"rejected_rows": 2}, 2, "2", id="a count"),
        pytest.param({"rejected_rows": "25%"}, 3, "25%", id="a share of 12 records"),
        pytest.param({"rejected_rows": ["50%", 4]}, 4, "4", id="each of several"),
        pytest.param({"rejected_rows": "1%", "minimum_sample": 12}, 0, "1%", id="a sample that counts"),
        pytest.param({"rejected_rows": ["1%", 5], "minimum_sample": 13}, 5, "5", id="one too small"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("bad", ["x", "50"], ids=["unreadable", "refused by the table"])
def test_a_threshold_counts_over_all_tables(
    site18: MakeSite, thresholds: dict[str, object], most: int, limit: str, bad: str
) -> None:
    here = site18(
        f"{TABLE}; CREATE TABLE u (id int PRIMARY KEY, n int CHECK (n < 10), import_batch_id uuid)",
        {"public.t": "t*", "public.u": "u*"},
    )
    tolerate(here, **thresholds)

    def delivery(spoiled: int) -> dict[str, str]:
        values = [bad if n < spoiled else "1" for n in range(12)]
        # Turn by turn: in each table about half of them.
        return {
            f"{name}.csv": lines("id,n", *(f"{n},{v}" for n, v in enumerate(values[odd::2])))
            for odd, name in enumerate("tu")
        }

    good = here.load(delivery(most))
    assert good.status == ("PARTIAL_SUCCESS" if most else "SUCCESS")
    assert (good.rejected_records, good.written_records) == (most, 12 - most)
    balance(here, good)
    here.deliver(delivery(most + 1))
    with pytest.raises(
        ThresholdError, match=f"{most + 1} of 12 records .*, above {limit}; nothing"
    ):
        here.run()
    assert here.newest().rejected_records == most + 1
    assert here.stamps("t") | here.stamps("u") == {good.batch_id: here.stamps("u")[good.batch_id]}


# Which way rows go


def test_a_feed_whose_last_batch_was_refused_rows_starts_in_staging(site18: MakeSite) -> None:
    here = site18(TABLE)
    tolerate(here)
    good, value, refused = "2,2", "2,x", "2,50"
    steps = [
        ("a", value, ("PARTIAL_SUCCESS", ["straight"])),
        ("b", refused, ("PARTIAL_SUCCESS", ["straight", "staged"])),
        ("c", good, ("SUCCESS", ["staged"])),
        ("d", good, ("SUCCESS", ["straight"])),
    ]
    for number, (key, record, expected) in enumerate(steps, 1):
        files = {"a.csv": lines("id,n", f"{number * 10},1", record.replace("2,", f"{number},"))}
        assert ways(here, files, key) == expected, key


# Other writers


@pytest.mark.parametrize("times", [1, 5])
def test_rows_that_others_write_meanwhile(
    site: MakeSite, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """Given keys that others take after rows were judged, they are judged anew, some times."""
    here = site(TABLE)
    tolerate(here)
    files = {"a.csv": lines("id,n", *(f"{n},1" for n in range(1, 9)), "9,50")}
    judged: list[int] = []
    judge = judging.judge

    def interfere(*arguments: object) -> int:
        out = judge(*arguments)  # type: ignore[arg-type]
        judged.append(out)
        if len(judged) <= times:
            here.sql("INSERT INTO t VALUES (%s)", len(judged))
        return out

    monkeypatch.setattr(isolating, "judge", interfere)
    here.deliver(files)
    if times == 1:
        batch = here.run()
        taken = Bad("a.csv", 1, "23505", None, "t_pkey")
        assert set_aside(here, batch, files) == [taken, Bad("a.csv", 9, "23514", None, "small")]
        balance(here, batch)
        assert here.stamps() == {None: 1, batch.batch_id: 7}
    else:
        with pytest.raises(PublishError, match="other writers changed the tables 5 times"):
            here.run()
        assert here.stamps() == {None: 5}
        assert here.newest().status == "FAILED"
        assert here.run().rejected_records == 6


# Runs that are killed


@pytest.mark.parametrize(
    "at",
    [
        At("bulk_write.parsed", 3),
        At("bulk_write.before_check"),
        At("bulk_write.before_commit"),
        At("bulk_write.after_commit"),
    ],
    ids=lambda at: f"{at.place}-{at.times}",
)
def test_a_run_killed_while_rows_are_isolated_leaves_nothing(site18: MakeSite, at: At) -> None:
    here = site18(TABLE)
    tolerate(here)
    files = {"a.csv": lines("id,n", "1,1", "2,50"), "b.csv": lines("id,n", "3,x", "4,4")}
    here.deliver(files)
    run = new_id()
    with importing(here, run, at=at) as child:
        assert child.outcome() is None
    published = at.place == "bulk_write.after_commit"
    assert here.stamps() == ({run: 2} if published else {})
    kept = here.count("SELECT count(*) FROM batch_audit.import_reject")
    assert kept == (2 if published else 0)
    finish(here, files)


def test_a_run_killed_in_the_middle_of_judging_leaves_nothing(site18: MakeSite) -> None:
    """Given a run that waits for a table it asks about, when killed, the next one completes."""
    here = site18(
        "CREATE TABLE outside (id int PRIMARY KEY); INSERT INTO outside VALUES (1);"
        "CREATE TABLE t (id int PRIMARY KEY, o int REFERENCES outside, j jsonb, import_batch_id uuid)"
    )
    tolerate(here)
    files = {"a.csv": lines("id,o,j", "1,1,1", "2,9,{", "3,9,", "4,1,")}
    here.deliver(files)
    waiting = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND wait_event_type = 'Lock' AND query LIKE '%batch_pipelines_breaches%'"
    )
    with here.connection.transaction(), importing(here, new_id()) as child:
        here.sql("LOCK TABLE outside IN ACCESS EXCLUSIVE MODE")
        deadline = time.monotonic() + 60
        while not here.count(waiting):
            assert time.monotonic() < deadline
            assert child.process.exitcode is None, child.outcome()
            # Within a transaction what others do is seen once.
            here.sql("SELECT pg_stat_clear_snapshot()")
            time.sleep(0.02)
        child.process.kill()
        assert child.outcome() is None
    assert here.stamps() == {}
    assert here.count("SELECT count(*) FROM batch_audit.import_reject") == 0
    finish(here, files)


def finish(here: Site, files: dict[str, str]) -> None:
    """Run again, which completes, and publishes two of four records."""
    batch = here.run()
    if batch.duplicate_of is not None:
        batch = batches.by_id(here.connection, batch.duplicate_of)
    assert batch.status == "PARTIAL_SUCCESS"
    assert here.stamps() == {batch.batch_id: 2}
    assert len(set_aside(here, batch, files)) == 2
    balance(here, batch)
    held = "SELECT count(*) FROM batch_audit.import_reject WHERE batch_id <> %s"
    assert here.count(held, batch.batch_id) == 0
