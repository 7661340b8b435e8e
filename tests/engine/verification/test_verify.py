"""Given a batch of long ago, when its rows are proven again, every one that differs is named."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from psycopg.conninfo import make_conninfo

from batch_pipelines.engine.archive import archive
from batch_pipelines.engine.bulk_write import bulk_write
from batch_pipelines.engine.feed_parts.table import Table
from batch_pipelines.engine.ledger import archives, proofs, verifications
from batch_pipelines.engine.ledger.stages import STAGES
from batch_pipelines.engine.postgres.database import Database
from batch_pipelines.engine.validate import validate
from batch_pipelines.engine.verification.verify import Verifier
from tests.engine.verification.support_verify import counts, named, verify, verify_table
from tests.support_engine import new_id

if TYPE_CHECKING:
    from batch_pipelines.engine.ledger.batches import Batch
    from tests.engine.conftest import MakeSite
    from tests.support_engine import Site

DDL = "CREATE TABLE t (id integer PRIMARY KEY, a integer, b text, import_batch_id uuid)"
HEAD = "id,a,b\n"
RECORDS = [f"{n},{n % 7},text {n}\n" for n in range(1, 101)]
FILE = HEAD + "".join(RECORDS)


def assert_proven(site: Site, batch: Batch, rows: int, replaced: int = 0) -> None:
    found = verify_table(site, batch)
    assert (found.status, found.exception, found.details) == ("SUCCESS", None, [])
    assert (found.expected_rows, found.actual_rows, found.replaced) == (rows, rows, replaced)
    assert counts(found) == (0, 0, 0, 0)


@pytest.mark.versions
def test_rows_as_they_were_are_proven_and_that_is_recorded(site: MakeSite) -> None:
    here = site(DDL)
    batch = here.load({"f.csv": FILE})
    here.load({"f.csv": "id,a,b\n1000,1,x\n"}, "other")
    here.sql("INSERT INTO t VALUES (2000, 1, 'typed in by hand')")
    assert_proven(here, batch, 100)
    (kept,) = verifications.newest(here.connection, batch.batch_id)
    assert (kept.target_table, kept.status, kept.details) == ("public.t", "SUCCESS", [])
    if here.connection.info.server_version >= 180000:
        # What was asked can be asked by hand.
        (balance,) = proofs.tables(here.connection, batch.batch_id)
        assert here.sql(kept.sql) == [(100, balance.digest_sum, balance.digest_moment)]


@pytest.mark.versions
def test_each_kind_of_difference_is_named(site: MakeSite) -> None:
    here = site(DDL)
    batch = here.load(
        {"a.csv": HEAD + "".join(RECORDS[:60]), "b.csv": HEAD + "".join(RECORDS[60:])}
    )
    here.sql("UPDATE t SET a = 99 WHERE id = 3")
    here.sql("UPDATE t SET a = -1, b = NULL WHERE id = 64")
    here.sql("UPDATE t SET import_batch_id = NULL WHERE id = 5")
    here.sql(f"UPDATE t SET import_batch_id = '{new_id()}', b = '' WHERE id = 6")
    here.sql("DELETE FROM t WHERE id IN (10, 71)")
    here.sql(f"INSERT INTO t VALUES (1000, 1, 'x', '{batch.batch_id}')")
    here.sql("UPDATE t SET id = 1001 WHERE id = 20")
    found = verify_table(here, batch)
    assert (found.status, found.exception) == ("FAILED", None)
    assert (found.expected_rows, found.actual_rows) == (100, 97)
    assert counts(found) == (4, 3, 2, 0)
    assert named(found.details, "changed") == {
        "3": ["a"], "64": ["a", "b"], "5": ["import_batch_id"], "6": ["b", "import_batch_id"]
    }  # fmt: skip
    places = {(row.file_name, row.record) for row in found.details if row.kind == "missing"}
    assert places == {("a.csv", 10), ("a.csv", 20), ("b.csv", 11)}
    assert set(named(found.details, "added")) == {"1000", "1001"}


def test_equal_rows_of_a_table_without_key_count_as_often_as_they_occur(site: MakeSite) -> None:
    here = site("CREATE TABLE t (a integer, b text, import_batch_id uuid)")
    batch = here.load({"f.csv": "a,b\n1,x\n1,x\n1,x\n2,y\n3,z\n"})
    assert_proven(here, batch, 5)
    here.sql("DELETE FROM t WHERE ctid = (SELECT ctid FROM t WHERE a = 1 LIMIT 1)")
    here.sql("INSERT INTO t SELECT * FROM t WHERE a = 2")
    here.sql("UPDATE t SET b = 'Z' WHERE a = 3")
    found = verify_table(here, batch)
    assert counts(found) == (0, 2, 1, 1)
    shown = [(row.kind, row.key, row.record, row.place is not None) for row in found.details]
    # Of three equal records the last one has no row left.
    assert shown == [
        ("missing", None, 3, False), ("missing", None, 5, False),
        ("added", None, None, True), ("duplicated", None, 4, True),
    ]  # fmt: skip


def test_a_copy_of_a_row_is_named_by_its_key_where_the_table_has_lost_its_own(
    site: MakeSite,
) -> None:
    here = site(DDL)
    batch = here.load({"f.csv": FILE})
    here.sql("ALTER TABLE t DROP CONSTRAINT t_pkey")
    here.sql("INSERT INTO t SELECT * FROM t WHERE id = 7")
    here.sql("INSERT INTO t SELECT id, 0, b, import_batch_id FROM t WHERE id = 8")
    found = verify_table(here, batch)
    assert counts(found) == (0, 0, 0, 2)
    assert set(named(found.details, "duplicated")) == {"7", "8"}
    assert [row.record for row in found.details] == [7, 8]


def upserting(here: Site) -> Site:
    table = Table(table="public.t", write="upsert")
    here.feed = here.feed.model_copy(update={"tables": (table,)})
    return here


def test_rows_that_later_batches_have_updated_are_told_apart(site: MakeSite) -> None:
    here = upserting(site(DDL))
    first = here.load({"f.csv": FILE}, "first")
    second = here.load({"f.csv": HEAD + "1,70,new\n2,70,new\n500,1,own\n"}, "second")
    third = here.load({"f.csv": HEAD + "2,71,newer\n3,71,newer\n"}, "third")
    assert_proven(here, first, 100, replaced=3)
    assert_proven(here, second, 3, replaced=1)
    assert_proven(here, third, 2)
    # The correction has no row 1, which goes back to the first batch, nor 2, which stays the third's.
    here.load({"f.csv": HEAD + "500,2,own\n"}, "second")
    assert_proven(here, first, 100, replaced=2)
    here.sql("UPDATE t SET a = 1000 WHERE id = 1")
    found = verify_table(here, first)
    assert (counts(found), named(found.details, "changed")) == ((1, 0, 0, 0), {"1": ["a"]})


def test_a_row_that_was_changed_before_it_was_replaced_is_found(site: MakeSite) -> None:
    here = upserting(site(DDL))
    first = here.load({"f.csv": FILE}, "first")
    here.sql("UPDATE t SET b = 'by hand' WHERE id = 9")
    here.load({"f.csv": HEAD + "9,70,new\n10,70,new\n"}, "second")
    found = verify_table(here, first)
    assert (found.replaced, counts(found)) == (2, (1, 0, 0, 0))
    assert named(found.details, "changed") == {"9": ["b"]}


def test_nothing_is_left_of_a_superseded_batch(site: MakeSite) -> None:
    here = site(DDL)
    old = here.load({"f.csv": FILE})
    here.load({"f.csv": HEAD + "1,1,x\n"})
    assert_proven(here, old, 0)
    here.sql(f"INSERT INTO t VALUES (50, 1, 'back', '{old.batch_id}')")
    found = verify_table(here, old)
    assert (found.status, found.expected_rows, counts(found)) == ("FAILED", 0, (0, 0, 1, 0))
    assert named(found.details, "added") == {"50": None}


def test_a_replay_belongs_to_its_batch(site: MakeSite) -> None:
    here = site(DDL + "; ALTER TABLE t ADD CHECK (a < 50)", thresholds={})
    batch = here.load({"f.csv": FILE + "200,60,x\n201,61,y\n"})
    here.sql("ALTER TABLE t DROP CONSTRAINT t_a_check; ALTER TABLE t ADD CHECK (a < 61)")
    with here.work() as (connection, work):
        bulk_write(connection, work, replay=True)
        # Not archived yet: the newest evidence is in staging.
        here.sql("UPDATE t SET b = 'other' WHERE id = 200")
        found = verify_table(here, batch)
        assert named(found.details, "changed") == {"200": ["b"]}
        here.sql("UPDATE t SET b = 'x' WHERE id = 200")
        validate(connection, work)
        archive(connection, work)
    assert_proven(here, batch, 101)
    here.sql("DELETE FROM t WHERE id = 200")
    assert [(d.kind, d.record) for d in verify_table(here, batch).details] == [("missing", 101)]


def test_a_replay_into_a_type_that_was_widened_for_it_leaves_the_digests_unproven(
    site18: MakeSite,
) -> None:
    here = site18(DDL, thresholds={})
    batch = here.load({"f.csv": FILE + "200,5000000000,x\n"})
    here.sql("ALTER TABLE t ALTER a TYPE bigint")
    assert_proven(here, batch, 100)
    with here.work() as (connection, work):
        bulk_write(connection, work, replay=True)
    found = verify_table(here, batch)
    assert (found.status, found.actual_rows) == ("UNVERIFIED", 101)
    assert found.exception is not None
    assert found.exception.startswith(
        "the type of a column was changed before records were replayed"
    )
    here.sql("DELETE FROM t WHERE id = 200")
    found = verify_table(here, batch)
    assert (found.status, named(found.details, "missing")) == ("FAILED", {"200": None})


def test_a_role_without_temporary_tables_learns_that_rows_differ(site18: MakeSite) -> None:
    here = site18(DDL)
    if here.sql("SELECT rolsuper FROM pg_roles WHERE rolname = current_user") != [(True,)]:
        pytest.skip("needs a role that may create others")
    batch = here.load({"f.csv": FILE})
    here.sql("UPDATE t SET a = 1000 WHERE id = 1")
    name = here.connection.info.dbname
    here.sql(f"REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC")
    role = f"reader_{name[-12:]}"
    here.sql(f"CREATE ROLE {role} LOGIN; GRANT pg_read_all_data TO {role};"
             f"GRANT USAGE ON SCHEMA batch_audit TO {role};"
             f"GRANT INSERT ON batch_audit.verification_log TO {role}")  # fmt: skip
    try:
        url = make_conninfo(here.database.url, user=role)
        with Database(url).connect("verify") as connection:
            verifier = Verifier(here.settings, {}, "a test")
            (found,) = verifier.verify(connection, batch).tables
    finally:
        here.sql(f"DROP OWNED BY {role}; DROP ROLE {role}")
    assert (found.status, found.changed) == ("FAILED", None)
    assert "rows cannot be named: PostgreSQL refused: permission denied to create temp" in str(
        found.exception
    )


def test_before_it_is_archived_the_evidence_is_in_staging(site: MakeSite) -> None:
    here = site(DDL)
    here.deliver({"f.csv": FILE})
    batch = here.run(stages=STAGES[:3])
    here.sql("UPDATE t SET a = a + 1 WHERE id = 50; DELETE FROM t WHERE id = 51")
    found = verify_table(here, batch)
    assert (counts(found), named(found.details, "changed")) == ((1, 1, 0, 0), {"50": ["a"]})


def test_columns_that_no_digest_covers_are_said_to_be_unproven(site: MakeSite) -> None:
    here = site(
        "CREATE TABLE t (id integer PRIMARY KEY, j jsonb, k interval, import_batch_id uuid)"
    )
    batch = here.load({"f.csv": "id,j,k\n1,{},1 day\n2,[],2 days\n"})
    found = verify_table(here, batch)
    assert (found.status, found.not_covered) == ("PARTIAL_SUCCESS", ["j", "k"])
    here.sql("DELETE FROM t WHERE id = 2")
    found = verify_table(here, batch)
    assert (found.status, counts(found)) == ("FAILED", (0, 1, 0, 0))


def test_rows_of_which_no_column_is_covered_are_counted(site: MakeSite) -> None:
    here = site("CREATE TABLE t (j jsonb, import_batch_id uuid)")
    batch = here.load({"f.csv": "j\n1\n2\n"})
    assert verify_table(here, batch).status == "PARTIAL_SUCCESS"
    here.sql("INSERT INTO t SELECT * FROM t WHERE j = '1'")
    found = verify_table(here, batch)
    assert (found.status, found.actual_rows, found.added, found.duplicated) == ("FAILED", 3, 0, 1)


def test_a_key_may_have_any_name(site: MakeSite) -> None:
    here = site(
        "CREATE TABLE t (record text, crc32c date, sent int, import_batch_id uuid,"
        " PRIMARY KEY (record, crc32c))"
    )
    batch = here.load({"f.csv": "record,crc32c,sent\nü ',2024-01-01,1\nb,2024-01-02,2\n"})
    here.sql("UPDATE t SET sent = 5 WHERE sent = 1")
    (row,) = verify_table(here, batch).details
    assert (row.key, row.columns) == ({"record": "ü '", "crc32c": "2024-01-01"}, ["sent"])


def test_each_table_of_a_batch_is_verified_by_itself(site18: MakeSite) -> None:
    here = site18(
        "CREATE TABLE p (a integer PRIMARY KEY, import_batch_id uuid);"
        "CREATE TABLE c (b bigint PRIMARY KEY, a integer REFERENCES p, import_batch_id uuid)",
        {"public.c": "c*", "public.p": "p*"},
    )
    batch = here.load({"p.csv": "a\n1\n2\n", "c.csv": "b,a\n1,1\n2,1\n"})
    here.sql("UPDATE c SET a = 2 WHERE b = 1")
    found = verify(here, batch)
    assert found.status == "FAILED"
    assert [(each.target_table, each.status) for each in found.tables] == [
        ("public.c", "FAILED"), ("public.p", "SUCCESS"),
    ]  # fmt: skip


@pytest.mark.parametrize("damage", ["a bit of it", "its end", "gone", "the manifest", "the bag"])
def test_evidence_that_was_tampered_with_is_not_believed(site18: MakeSite, damage: str) -> None:
    here = site18(DDL)
    batch = here.load({"f.csv": FILE})
    archived = archives.bag(here.connection, batch.batch_id)
    assert archived is not None
    bag = Path(archived.place)
    kept = bag / "data" / "row_digests" / "public.t.parquet"
    content = kept.read_bytes()
    match damage:
        case "a bit of it":
            kept.write_bytes(content[:50] + bytes([content[50] ^ 1]) + content[51:])
        case "its end":
            kept.write_bytes(content[:-10])
        case "gone":
            kept.unlink()
        case "the manifest":
            (bag / "manifest-sha256.txt").write_text("nothing")
        case _:
            shutil.rmtree(bag)
    # The digest in the ledger still proves what is right ...
    assert verify_table(here, batch).status == "SUCCESS"
    # ... and finds what is not; only names are lost.
    here.sql("UPDATE t SET a = 1000 WHERE id = 1")
    found = verify_table(here, batch)
    assert (found.status, found.changed, found.details) == ("FAILED", None, [])
    assert found.exception is not None
    assert found.exception.startswith(f"rows cannot be named: {bag}")
    assert "Restore it from a backup" in found.exception


def test_where_the_source_cannot_be_read_rows_are_named_without_columns(site18: MakeSite) -> None:
    here = site18(DDL)
    batch = here.load({"f.csv": FILE})
    here.sql("UPDATE t SET a = 1000 WHERE id = 1")
    archived = archives.bag(here.connection, batch.batch_id)
    assert archived is not None
    (Path(archived.place) / "data" / "source" / "f.csv.zst").write_bytes(b"other")
    found = verify_table(here, batch)
    assert named(found.details, "changed") == {"1": None}
    assert found.exception is not None
    assert found.exception.startswith("which columns differ cannot be told: ")


def test_a_ledger_that_contradicts_itself_is_found(site18: MakeSite) -> None:
    here = site18(DDL)
    batch = here.load({"f.csv": FILE})
    here.sql("UPDATE batch_audit.batch_table SET digest_sum = digest_sum + 1")
    found = verify_table(here, batch)
    assert (found.status, counts(found)) == ("FAILED", (0, 0, 0, 0))
    assert found.exception == "the ledger contradicts itself: `batch_table` and `row_digest` differ"


def test_a_table_that_is_gone_is_no_success(site18: MakeSite) -> None:
    here = site18(DDL)
    batch = here.load({"f.csv": FILE})
    here.sql("DROP TABLE t")
    found = verify_table(here, batch)
    assert (found.status, found.exception) == (
        "FAILED", "the table, or its column for the stamp, is gone"
    )  # fmt: skip


def test_a_duplicate_is_verified_as_what_it_is_one_of(site18: MakeSite) -> None:
    here = site18(DDL)
    first = here.load({"f.csv": FILE})
    second = here.load({"f.csv": FILE})
    assert second.status == "DUPLICATE"
    assert verify(here, second).batch.batch_id == first.batch_id


def test_no_value_of_a_row_gets_into_the_ledger(site18: MakeSite) -> None:
    here = site18(DDL)
    batch = here.load({"f.csv": HEAD + "1,1,SECRET-one\n2,2,SECRET-two\n"})
    here.sql("UPDATE t SET b = 'SECRET-three' WHERE id = 1")
    assert verify_table(here, batch).status == "FAILED"
    rows = here.sql("SELECT v::text FROM batch_audit.verification_log v")
    assert "SECRET" not in str(rows)


def test_rows_without_a_recorded_digest_are_only_counted(site18: MakeSite) -> None:
    """Given a batch as adoption leaves it, of which no digest is known, it is not called proven."""
    here = site18(DDL)
    batch = here.load({"f.csv": FILE})
    here.sql("UPDATE batch_audit.batch_table SET columns = '{}', column_types = '{}',"
             " digest_sum = 0, digest_moment = 0")  # fmt: skip
    found = verify_table(here, batch)
    assert (found.status, found.actual_rows) == ("UNVERIFIED", 100)
    assert found.exception == "no digest of the rows was recorded, so they were only counted"
