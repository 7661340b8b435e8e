"""Publish: what a batch writes, what the ledger says of it, and what stops it before its end.

What bad records do is also in `test_publish`, runs beside each other in `test_together`, types in
`writing/test_types`, corrections in `writing/test_superseding`.
"""

from __future__ import annotations

import random
import struct
from contextlib import suppress
from typing import TYPE_CHECKING

import psycopg
import pytest

from batch_pipelines.engine.bulk_write import bulk_write
from batch_pipelines.engine.errors import (
    BatchError,
    DeliveryError,
    LeaseLostError,
    PublishError,
    ThresholdError,
)
from batch_pipelines.engine.failpoints import armed
from batch_pipelines.engine.ledger import proofs, rejects, stages
from batch_pipelines.engine.ledger.stages import STAGES
from batch_pipelines.engine.postgres.lease import acquire
from batch_pipelines.engine.reading import blocks
from tests.support_engine import KEY, Site, do_stage, new_id
from tests.support_rejects import Bad, check_bad_records, tolerate

if TYPE_CHECKING:
    from collections.abc import Callable

    from batch_pipelines.engine.ledger.stages import Stage
    from tests.engine.conftest import MakeSite

TABLE = "CREATE TABLE t (id int PRIMARY KEY, name text, import_batch_id uuid)"
CONTENT = "id,name\n1,a\n2,b\n3,\n"
UNTIL_CHECKSUM: tuple[Stage, ...] = ("ingest", "checksum")


def refused(site: Site, error: type[BatchError] = PublishError) -> str:
    """Run all stages; the batch fails and nothing of it is visible. Returns why."""
    before = {table.table: site.stamps(table.table) for table in site.feed.tables}
    with pytest.raises(error) as raised:
        site.run()
    batch = site.newest()
    assert (batch.status, batch.error_details) == ("FAILED", str(raised.value))
    assert batch.published_at is None
    assert {table.table: site.stamps(table.table) for table in site.feed.tables} == before
    assert proofs.tables(site.connection, batch.batch_id) == []
    return str(raised.value)


# What is written


@pytest.mark.versions
def test_every_row_of_a_batch_has_its_stamp_and_no_other_row(site: MakeSite) -> None:
    orders = site(TABLE)
    orders.sql("INSERT INTO t VALUES (100, 'typed in by hand')")
    batch = orders.load({"a.csv": CONTENT, "b.csv": "name,id\nd,4\n"})
    assert orders.stamps() == {batch.batch_id: 4, None: 1}
    written = "SELECT id, name FROM t WHERE import_batch_id = %s ORDER BY 1"
    assert orders.sql(written, batch.batch_id) == [(1, "a"), (2, "b"), (3, None), (4, "d")]


def test_columns_that_are_not_delivered_get_their_default(site: MakeSite) -> None:
    orders = site(
        "CREATE TABLE t (key bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id int,"
        " kind text NOT NULL DEFAULT 'new', twice int GENERATED ALWAYS AS (id * 2) STORED,"
        " import_batch_id uuid)"
    )
    assert orders.load({"a.csv": "id\n7\n"}).status == "SUCCESS"
    assert orders.sql("SELECT key, id, kind, twice FROM t") == [(1, 7, "new", 14)]


@pytest.mark.parametrize("content", ["id,name\n", "id,name", "id,name\n\n\n"])
def test_a_delivery_without_records_is_a_batch_without_rows(site18: MakeSite, content: str) -> None:
    orders = site18(TABLE)
    batch = orders.load({"a.csv": content})
    assert (batch.status, batch.source_records, batch.written_records) == ("SUCCESS", 0, 0)
    (table,) = proofs.tables(orders.connection, batch.batch_id)
    assert (table.source_records, table.inserted, table.digest_sum) == (0, 0, 0)


def test_parents_and_children_may_refer_to_each_other(site: MakeSite) -> None:
    """Given keys in a circle, a child before its parent and a row that is its own, all are loaded."""
    orders = site(
        """
        CREATE TABLE a (id int PRIMARY KEY, b int, up int REFERENCES a, import_batch_id uuid);
        CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a, import_batch_id uuid);
        ALTER TABLE a ADD FOREIGN KEY (b) REFERENCES b DEFERRABLE INITIALLY DEFERRED;
        """,
        {"public.a": "a*", "public.b": "b*"},
    )
    batch = orders.load({"a.csv": "id,b,up\n1,20,2\n2,10,2\n", "b.csv": "id,a\n10,1\n20,2\n"})
    assert batch.status == "SUCCESS"
    assert orders.stamps("a") == orders.stamps("b") == {batch.batch_id: 2}


@pytest.mark.versions
def test_a_deferred_key_is_checked_before_the_proof(site: MakeSite) -> None:
    orders = site(
        "CREATE TABLE parent (id int PRIMARY KEY);"
        "CREATE TABLE t (id int, parent int CONSTRAINT later REFERENCES parent"
        " DEFERRABLE INITIALLY DEFERRED, import_batch_id uuid)"
    )
    files = {"a.csv": "id,parent\n1,\n2,9\n"}
    orders.deliver(files)
    with armed("bulk_write.before_check", lambda _: pytest.fail("the key was not checked before")):
        refused(orders, ThresholdError)
    check_bad_records(orders, files, Bad("a.csv", 2, "23503", "parent", "later"))


def test_what_a_trigger_writes_elsewhere_is_its_own_affair(site18: MakeSite) -> None:
    orders = site18(TABLE)
    orders.sql(
        """
        CREATE TABLE log (id int);
        CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO log VALUES (NEW.id); RETURN NEW; END $$;
        CREATE TRIGGER note BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION note();
        """
    )
    assert orders.load({"a.csv": CONTENT}).status == "SUCCESS"
    assert orders.count("SELECT count(*) FROM log") == 3


# What the ledger says


def test_the_books_of_a_published_batch(site18: MakeSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a batch in several chunks, its balance, digests and columns are in the ledger."""
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 40)
    orders = site18(TABLE)
    lines = "".join(f"{number},name {number}\n" for number in range(100, 120))
    batch = orders.load({"a.csv": "id,name\n" + lines, "b.csv": CONTENT})
    assert (batch.source_records, batch.written_records, batch.rejected_records) == (23, 23, 0)
    assert batch.published_at is not None
    (table,) = proofs.tables(orders.connection, batch.batch_id)
    assert (table.source_records, table.inserted, table.updated, table.unchanged) == (23, 23, 0, 0)
    assert (table.rejected, table.skipped, table.superseded_within, table.removed) == (0, 0, 0, 0)
    assert (table.columns, table.normalised) == (["id", "name"], [])

    chunks = orders.sql(
        "SELECT file_name, chunk, first_record, records, digest_sum, digest_moment"
        " FROM batch_audit.row_digest ORDER BY 1, 2"
    )
    assert len(chunks) > 4
    assert sum(chunk[4] for chunk in chunks) == table.digest_sum
    assert sum(chunk[5] for chunk in chunks) == table.digest_moment
    for file, records in (("a.csv", 20), ("b.csv", 3)):
        own = [chunk[1:4] for chunk in chunks if chunk[0] == file]
        assert [number for number, _, _ in own] == list(range(len(own)))
        expected_first = 1
        for _, first_record, count in own:
            assert first_record == expected_first
            expected_first += count
        assert expected_first == records + 1


def test_the_digest_in_the_ledger_is_the_one_of_the_stored_rows(site18: MakeSite) -> None:
    """Anyone can ask PostgreSQL 18 whether a batch's rows are still those that were delivered."""
    orders = site18(TABLE)
    batch = orders.load({"a.csv": CONTENT})
    (table,) = proofs.tables(orders.connection, batch.batch_id)
    ask = (
        "SELECT sum(c), sum((c - 2147483648) * (c - 2147483648)) FROM"
        " (SELECT crc32c(record_send(ROW(id, name))) AS c FROM t WHERE import_batch_id = %s) AS s"
    )
    assert orders.sql(ask, batch.batch_id) == [(table.digest_sum, table.digest_moment)]
    orders.sql("UPDATE t SET name = 'c' WHERE id = 1")
    assert orders.sql(ask, batch.batch_id) != [(table.digest_sum, table.digest_moment)]


def test_its_result_says_what_was_done_and_asked_again_it_reports(site18: MakeSite) -> None:
    orders = site18(TABLE)
    orders.deliver({"a.csv": CONTENT})
    orders.run(stages=UNTIL_CHECKSUM)
    with orders.work() as (connection, work):
        first = bulk_write(connection, work)
    assert (first.worked, first.batch.status, first.superseded) == (True, "PUBLISHED", None)
    assert [table.inserted for table in first.tables] == [3]
    assert {name: [c.name for c in columns] for name, columns in first.columns.items()} == {
        "public.t": ["id", "name"]
    }
    orders.sql("DELETE FROM t WHERE id = 3")
    with orders.work() as (connection, work):
        again = bulk_write(connection, work)
    assert (again.worked, again.batch, again.tables) == (False, first.batch, first.tables)
    assert orders.count("SELECT count(*) FROM t") == 2


def test_progress_is_told(site18: MakeSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 40)
    orders = site18(TABLE)
    orders.deliver({"a.csv": "id,name\n" + "".join(f"{number},x\n" for number in range(50))})
    told: list[tuple[str, int, int]] = []
    with orders.work(progress=lambda *heard: told.append(heard)) as (connection, work):
        for stage in STAGES[:3]:
            do_stage(stage, connection, work)
    assert told == sorted(told)
    assert len(told) > 3
    assert told[-1] == ("bulk_write", 50, 50)


# What stops it


@pytest.mark.parametrize(
    ("ddl", "files", "bad"),
    [
        pytest.param(
            "id int CONSTRAINT even CHECK (id % 2 = 0)",
            {"a.csv": "id\n2\n", "b.csv": "id\n4\n5\n"},
            [Bad("b.csv", 2, "23514", None, "even")],
            id="a check with a percent sign, in the second file",
        ),
        pytest.param(
            "id int, other int, CONSTRAINT less CHECK (id < other)",
            {"a.csv": "id,other\n1,2\n,1\n3,3\n"},
            [Bad("a.csv", 3, "23514", None, "less")],
            id="a check of two columns, which null passes",
        ),
        pytest.param(
            "id int UNIQUE",
            {"a.csv": "id\n1\n\n2\n", "b.csv": "id\n\n3\n1\n"},
            [Bad("b.csv", 2, "23505", None, "t_id_key")],
            id="a key of the first file again in the second",
        ),
        pytest.param(
            "a int, b text, UNIQUE NULLS NOT DISTINCT (a, b)",
            {"a.csv": "a,b\n,x\n,y\n1,\n,x\n"},
            [Bad("a.csv", 4, "23505", None, "t_a_b_key")],
            id="nulls that count as equal",
        ),
        pytest.param(
            "id int, tags text[] CONSTRAINT any_tag CHECK (cardinality(tags) > 0)",
            {"a.csv": "id,tags\n1,{a}\n2,{}\n"},
            [Bad("a.csv", 2, "23514", None, "any_tag")],
            id="a check of a column that is loaded as text",
        ),
        pytest.param(
            "id int, code char(3) UNIQUE",
            {"a.csv": "id,code\n1,ab\n2,abc\n3,ab \n"},
            [Bad("a.csv", 3, "23505", None, "t_code_key")],
            id="a key that is loaded as text",
        ),
    ],
)
def test_a_record_that_breaks_a_constraint_is_set_aside(
    site: MakeSite, ddl: str, files: dict[str, str], bad: list[Bad]
) -> None:
    orders = site(f"CREATE TABLE t ({ddl}, import_batch_id uuid)")
    check_bad_records(orders, files, *bad)


def test_a_key_of_an_earlier_batch_is_set_aside(site18: MakeSite) -> None:
    """Given two partitions that bring the same key, the first keeps it."""
    orders = site18(TABLE)
    first = orders.load({"a.csv": CONTENT}, "one")
    files = {"a.csv": "id,name\n4,d\n2,other\n"}
    said = check_bad_records(orders, files, Bad("a.csv", 2, "23505", None, "t_pkey"), key="two")
    assert "other" not in said
    assert orders.stamps() == {first.batch_id: 3, orders.newest("two").batch_id: 1}


@pytest.mark.versions
def test_a_key_of_a_partitioned_table(site: MakeSite) -> None:
    orders = site(
        "CREATE TABLE t (id int PRIMARY KEY, import_batch_id uuid) PARTITION BY RANGE (id);"
        "CREATE TABLE low PARTITION OF t FOR VALUES FROM (0) TO (100)"
    )
    files = {"a.csv": "id\n1\n2\n1\n"}
    check_bad_records(orders, files, Bad("a.csv", 3, "23505", None, "t_pkey"))
    # That no partition takes it only trying tells.
    files = {"a.csv": "id\n1\n200\n300\n2\n"}
    bad = [Bad("a.csv", record, "23514") for record in (2, 3)]
    check_bad_records(orders, files, *bad, by_trying=True)


@pytest.mark.parametrize(
    ("ddl", "sqlstate", "constraint"),
    [
        pytest.param(
            "ALTER TABLE t ADD CONSTRAINT once EXCLUDE USING btree (name WITH =)",
            "23P01",
            "once",
            id="an exclusion",
        ),
        pytest.param(
            "ALTER TABLE t ADD CONSTRAINT once EXCLUDE USING btree (name WITH =)"
            " DEFERRABLE INITIALLY DEFERRED",
            "23P01",
            "once",
            id="a deferred exclusion",
        ),
        pytest.param(
            "CREATE TRIGGER raises BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION raises()",
            "P0001",
            None,
            id="a trigger",
        ),
        pytest.param(
            "CREATE CONSTRAINT TRIGGER raises AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION raises()",
            "P0001",
            None,
            id="a deferred trigger",
        ),
    ],
)
def test_a_record_that_only_trying_finds_is_set_aside(
    site: MakeSite, ddl: str, sqlstate: str, constraint: str | None
) -> None:
    orders = site(TABLE)
    orders.sql(
        "CREATE FUNCTION raises() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN IF NEW.id IN (7, 31) THEN RAISE EXCEPTION 'no %', NEW.name; END IF;"
        " RETURN NEW; END $$;" + ddl
    )
    names = ["geheim" if n in {3, 7, 31} else f"name {n}" for n in range(1, 65)]
    files = {"a.csv": "id,name\n" + "".join(f"{n},{name}\n" for n, name in enumerate(names, 1))}
    bad = [Bad("a.csv", record, sqlstate, None, constraint) for record in (7, 31)]
    said = check_bad_records(orders, files, *bad, by_trying=True)
    assert "geheim" not in said
    tried = "SELECT isolation_statements FROM batch_audit.batch_table WHERE rejected > 0"
    # 1 + 2 k log2 n
    assert 0 < orders.count(tried) <= 1 + 2 * len(bad) * 6


@pytest.mark.versions
@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param(
            "RETURN NULL;", "public.t: 0 rows are stored of 3; nothing was", id="drops rows"
        ),
        pytest.param(
            "NEW.import_batch_id := NULL; RETURN NEW;",
            "public.t: 0 rows are stored of 3; nothing was written.",
            id="takes the stamp away",
        ),
        pytest.param(
            "NEW.name := NEW.name || ' '; RETURN NEW;",
            "public.t: the digests of the stored rows differ from those of the source",
            id="changes a value",
        ),
    ],
)
def test_a_trigger_that_interferes_stops_the_publish(
    site: MakeSite, body: str, message: str
) -> None:
    orders = site(TABLE)
    tolerate(orders)
    orders.sql(
        "CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN {body} RETURN NEW; END $$;"
        "CREATE TRIGGER meddle BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION meddle()"
    )
    orders.deliver({"a.csv": "id,name\n1,geheim\n2,b\n3,c\n"})
    found = refused(orders)
    assert found.startswith(message)
    assert "geheim" not in found


def test_a_misplaced_quote_does_not_swallow_records(site18: MakeSite) -> None:
    """Given quotes that readers of a file understand differently, each costs its line, and is told."""
    orders = site18("CREATE TABLE t (id int, name text, import_batch_id uuid)")
    files = {"a.csv": 'id,name\n1,5" pipe\n2,b\n3,6" pipe\n4,d\n'}
    said = check_bad_records(orders, files, *(Bad("a.csv", n, "22P04") for n in (1, 3)))
    assert "2 of 4 records" in said
    assert "a.csv, record 1 (line 2): a quote is out of place or not closed" in said


def test_a_table_that_is_gone_by_now(site18: MakeSite) -> None:
    orders = site18(TABLE)
    orders.deliver({"a.csv": CONTENT})
    orders.run(stages=UNTIL_CHECKSUM)
    orders.sql("ALTER TABLE t RENAME TO other")
    with pytest.raises(BatchError, match=r"there is no table public\.t"):
        orders.run(stages=STAGES[2:])
    assert orders.newest().status == "FAILED"
    orders.sql("ALTER TABLE other RENAME TO t")
    assert orders.run(stages=STAGES[2:]).status == "SUCCESS"


def test_files_for_one_table_must_bring_the_same_columns(site18: MakeSite) -> None:
    orders = site18(TABLE)
    orders.deliver({"a.csv": CONTENT, "b.csv": "id\n4\n"})
    assert "b.csv: its columns differ from those of a.csv in name" in refused(orders, BatchError)


def test_a_staged_copy_that_is_gone(site18: MakeSite) -> None:
    orders = site18(TABLE)
    orders.deliver({"a.csv": CONTENT})
    batch = orders.run(stages=UNTIL_CHECKSUM)
    (orders.settings.staging / batch.batch_id / "source" / "a.csv").unlink()
    with pytest.raises(DeliveryError, match=r"a\.csv: its staged copy is gone\. Run the whole"):
        orders.run(stages=STAGES[2:])
    assert orders.run().status == "SUCCESS"


# Bits that flip


@pytest.mark.parametrize(
    ("records", "rejected"),
    [
        pytest.param(["1,t,ab,1.50,2013-01-01 05:00Z", ',f,"",-7,'], 0, id="straight"),
        pytest.param(
            ["1,t,ab,1.50,2013-01-01 05:00Z", ',f,"",-7,', "3,t,c,2,", ",t,c,1,", "3,f,d,1,"],
            1,
            id="staged, with a contested key",
        ),
    ],
)
def test_no_bit_can_flip_between_encoder_and_server_unseen(
    site: MakeSite, records: list[str], rejected: int
) -> None:
    """Given one bit flipped anywhere in what is sent, it is an error, or exactly what was meant.

    What was meant may come of a flip that PostgreSQL refuses, for the rows are sent a second time then;
    of a boolean's byte, of which anything but zero is true; of a numeric's own scale, which the
    column's replaces. A good record never ends among those that cannot be loaded.
    """
    orders = site(
        "CREATE TABLE t (id int, yes boolean, name text, amount numeric(10,2), at timestamptz,"
        " CONSTRAINT once UNIQUE (id, import_batch_id), import_batch_id uuid)"
    )
    if rejected:
        orders.sql("ALTER TABLE t DROP CONSTRAINT once; CREATE UNIQUE INDEX once ON t (id)")
    tolerate(orders)
    files = {"a.csv": "id,yes,name,amount,at\n" + "".join(f"{line}\n" for line in records)}
    orders.load(files)
    expected = orders.rows()
    kept = [(r.record_number, r.sqlstate) for r in set_aside_now(orders)]
    assert len(kept) == rejected
    sent: list[bytes] = []

    def listen(encoded: bytes) -> bytes:
        sent.append(encoded)
        return encoded

    with armed("bulk_write.encoded", listen):
        orders.run(force=True)
    rows = max(sent, key=len)
    # Of the place that staged rows bring, see below.
    places = [
        rows.find(struct.pack(">iq", 8, n)) + 4 for n in range(1, rejected * len(records) + 1)
    ]
    unproven = {8 * first + bit for first in places for bit in range(64)}
    whole = [bit for bit in range(8 * len(rows)) if bit not in unproven]
    bits = random.Random(20_130_101).sample(whole, 40)  # noqa: S311
    published = 0
    for bit in bits:

        def flip(encoded: bytes, bit: int = bit) -> bytes:
            if len(encoded) != len(rows):
                return encoded
            changed = bytearray(encoded)
            changed[bit // 8] ^= 1 << bit % 8
            return bytes(changed)

        with armed("bulk_write.encoded", flip):
            try:
                orders.run(stages=STAGES[:3], force=True)
            except BatchError:
                assert orders.newest().status == "FAILED"
            else:
                published += 1
                assert [(r.record_number, r.sqlstate) for r in set_aside_now(orders)] == kept, bit
        assert orders.rows() == expected, bit
    assert 0 < published < len(bits)


def test_no_bit_can_flip_in_the_place_of_a_staged_row(site18: MakeSite) -> None:
    """Given a flipped place that makes a later record the first of a contest, it does not win."""
    orders = site18("CREATE TABLE t (id int UNIQUE, name text, j jsonb, import_batch_id uuid)")
    tolerate(orders)
    orders.deliver({"a.csv": "id,name,j\n1,a,1\n2,b,1\n3,c,1\n4,d,1\n3,e,1\n"})
    fifth, first = struct.pack(">iq", 8, 5), struct.pack(">iq", 8, 1)
    with (
        armed("bulk_write.encoded", lambda sent: sent.replace(fifth, first)),
        suppress(PublishError),
    ):
        orders.run(stages=STAGES[:3])
    assert orders.sql("SELECT name FROM t WHERE id = 3") in ([], [("c",)])


def set_aside_now(site: Site) -> list[rejects.RejectRecord]:
    return rejects.of_batch(site.connection, site.newest().batch_id)


# Who may publish


def test_a_run_whose_token_was_raised_publishes_nothing(site18: MakeSite) -> None:
    orders = site18(TABLE)
    orders.deliver({"a.csv": CONTENT})

    def taken_over(_: object) -> None:
        orders.sql("UPDATE batch_audit.batch_lease SET token = token + 1")

    with (
        armed("bulk_write.before_fence", taken_over),
        pytest.raises(LeaseLostError, match=r"orders/first: run .* no longer holds the lease"),
    ):
        orders.run()
    assert orders.stamps() == {}
    assert orders.newest().status == "IN_PROGRESS"  # the run that took over decides about it
    assert orders.run().status == "SUCCESS"


def test_a_run_whose_lease_expired_publishes_nothing(site18: MakeSite) -> None:
    orders = site18(TABLE)
    orders.deliver({"a.csv": CONTENT})

    def expire(_: object) -> None:
        orders.sql("UPDATE batch_audit.batch_lease SET expires_at = clock_timestamp()")

    with armed("bulk_write.before_fence", expire), pytest.raises(LeaseLostError):
        orders.run()
    assert orders.stamps() == {}
    assert orders.run().status == "SUCCESS"


def test_a_run_that_was_taken_over_just_before_its_commit(site: MakeSite) -> None:
    """Given an expired lease, when another run takes over in the middle of publish, it alone writes."""
    orders = site(TABLE)
    orders.deliver({"a.csv": CONTENT})
    second = new_id()

    def take_over(_: psycopg.Connection) -> None:
        orders.sql("UPDATE batch_audit.batch_lease SET expires_at = clock_timestamp()")
        acquire(orders.database, "orders", KEY, second, seconds=60).close()

    with (
        armed("bulk_write.before_fence", take_over),
        pytest.raises(
            BatchError, match=r"no longer holds the lease|PostgreSQL ended the statement"
        ),
    ):
        orders.run()
    assert orders.stamps() == {}
    assert orders.run().status == "SUCCESS"
    assert orders.count("SELECT count(*) FROM t") == 3


# Connections that break


def ended(connection: psycopg.Connection) -> Callable[[object], None]:
    def end(publishing: object) -> None:
        assert isinstance(publishing, psycopg.Connection)
        connection.execute("SELECT pg_terminate_backend(%s, 5000)", (publishing.info.backend_pid,))

    return end


@pytest.mark.parametrize(
    "place", ["bulk_write.before_check", "bulk_write.before_fence", "bulk_write.before_commit"]
)
def test_a_connection_lost_before_its_commit_has_written_nothing(
    site: MakeSite, place: str
) -> None:
    orders = site(TABLE)
    orders.deliver({"a.csv": CONTENT})
    with armed(place, ended(orders.connection)):
        message = refused(orders)
    assert message.startswith("PostgreSQL ended the statement")
    assert orders.run(stages=STAGES[2:]).status == "SUCCESS"


@pytest.mark.parametrize("how", ["ended", "raised"])
def test_a_commit_whose_answer_was_lost_counts(site: MakeSite, how: str) -> None:
    """Given a COMMIT that PostgreSQL has done and nobody heard of, the batch is published, once."""
    orders = site(TABLE)
    orders.deliver({"a.csv": CONTENT})

    def lose(publishing: object) -> None:
        if how == "ended":
            ended(orders.connection)(publishing)
        raise psycopg.OperationalError("the server closed the connection unexpectedly")

    with armed("bulk_write.after_commit", lose):
        batch = orders.run()
    assert batch.status == "SUCCESS"
    assert orders.stamps() == {batch.batch_id: 3}
    assert stages.of_batch(orders.connection, batch.batch_id)["bulk_write"].status == "SUCCESS"
