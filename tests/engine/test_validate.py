"""Committed rows are compared with their source; what differs is named, and its values are not."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from batch_pipelines.engine.errors import StageOrderError, ValidationError
from batch_pipelines.engine.ledger import proofs, stages
from batch_pipelines.engine.ledger.stages import STAGES
from batch_pipelines.engine.reading import second_reader
from batch_pipelines.engine.reading.csv_again import scan_csv
from batch_pipelines.engine.validate import require_valid, validate
from tests.support_engine import new_id

if TYPE_CHECKING:
    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.ledger.proofs import Check
    from tests.engine.conftest import MakeSite
    from tests.support_engine import Content, Site

DDL = """
CREATE TABLE t (
    a integer PRIMARY KEY, b text, c numeric(10,2), d timestamptz, "Q,""q" boolean, j json,
    import_batch_id uuid
)
"""
HEADER = 'a,b,c,d,"Q,""q",j\n'
RECORDS = [
    "1,SECRET-a,12.50,2013-01-01 05:30Z,t,{}\n",
    '2,SECRET-m,-1.25,1969-12-31 23:59:59.000001+01,f,"{""SECRET"": 1}"\n',
    "3,SECRET-z,987654.32,2024-02-29 00:00Z,t,\n",
    '4,"",0.00,,,[]\n',
    "5,,7.75,2013-01-01 05:30Z,f,1\n",
    "6,SECRET-b,8.25,2013-01-01 05:31Z,f,2\n",
]  # fmt: skip
FILES: dict[str, Content] = {
    "a.csv": HEADER + "".join(RECORDS[:4]),
    "b.csv": HEADER + "".join(RECORDS[4:]),
}
CHECKS = [
    "record_count", "schema.a.csv", "schema.b.csv", "key_uniqueness", "aggregates.a", "aggregates.b",
    "aggregates.c", "aggregates.d", 'aggregates.Q,"q', "aggregates.j",
]  # fmt: skip


def publish(site: Site, files: dict[str, Content] | None = None) -> Batch:
    site.deliver(FILES if files is None else files)
    return site.run(stages=STAGES[:3])


def checks_of(site: Site, batch: Batch) -> dict[str, Check]:
    (found,) = proofs.validations(site.connection, batch.batch_id)
    return {check.name: check for check in found.checks}


def log(site: Site) -> list[tuple[str, str | None, bool]]:
    rows = site.sql(
        "SELECT status, exception, completed_at IS NOT NULL FROM batch_audit.validation_log ORDER BY id"
    )
    return [(status, why, ended) for status, why, ended in rows]


def ledger_text(site: Site) -> str:
    """All the ledger holds, as text."""
    tables = site.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'batch_audit'")
    return "\n".join(
        str(row)
        for (name,) in tables
        for row in site.sql(f"SELECT t::text FROM batch_audit.{name} t")
    )


@pytest.mark.versions
def test_equal_rows_are_found_equal(site: MakeSite) -> None:
    here = site(DDL)
    batch = publish(here)
    run_id = new_id()
    with here.work(run_id=run_id) as (connection, work):
        result = validate(connection, work)
    require_valid(result)
    assert (result.batch.batch_id, result.batch.status) == (batch.batch_id, "SUCCESS")
    assert result.batch.error_details is None
    assert result.batch.completed_at is not None
    (found,) = result.tables
    assert result.worked
    assert (found.target_table, found.src_records, found.tgt_records) == ("public.t", 6, 6)
    assert [check.name for check in found.checks] == [*CHECKS, "coverage"]
    assert {check.status for check in found.checks} == {"SUCCESS"} == {found.status}
    assert log(here) == [("SUCCESS", None, True)]
    assert here.sql(
        "SELECT s.batch_id::text, l.run_id::text, s.target_table, src_records, tgt_records,"
        " overall_status, jsonb_array_length(checks)"
        " FROM batch_audit.validation_summary s JOIN batch_audit.validation_log l ON l.id = log_id"
    ) == [(batch.batch_id, run_id, "public.t", 6, 6, "SUCCESS", len(CHECKS) + 1)]


def test_what_is_shown_is_what_its_statement_gives(site18: MakeSite) -> None:
    site = site18(DDL)
    batch = publish(site)
    # Rows of others do not count.
    site.sql(f"INSERT INTO t VALUES (100, 'other', 1, now(), true, '1', '{new_id()}')")
    site.run(stages=["validate"])
    checks = checks_of(site, batch)
    assert list(checks) == [*CHECKS, "coverage"]
    for name, check in checks.items():
        if name == "coverage":
            assert (check.sql, check.actual) == ("", "every column")
            continue
        rows = site.sql(check.sql)
        if name.startswith("schema."):
            assert {row[0] for row in rows} >= {"a", "b", "c", "d", 'Q,"q', "j"}
            assert check.actual == '["Q,\\"q", "a", "b", "c", "d", "j"]'
        elif name.startswith("aggregates."):
            ((values, total, low, _),) = rows
            shown = check.actual.split()
            assert shown[0] == f"values={values}"
            if total is not None and values >= 5:
                assert shown[1] == f"sum={total}"
            assert ("bounds#" in check.actual) == (low is not None)
        else:
            assert rows == [(int(check.actual),)]
        assert check.seconds >= 0
    assert checks["record_count"].actual == "6"
    assert checks["key_uniqueness"].actual == "0"
    assert checks["aggregates.a"].actual.startswith("values=6 sum=21 bounds#")
    assert checks["aggregates.b"].actual.startswith("values=5 sum=32 bounds#")
    assert checks["aggregates.c"].actual.startswith("values=6 sum=987681.57 bounds#")
    assert checks['aggregates.Q,"q'].actual == "values=5 sum=2"
    assert checks["aggregates.j"].actual == "values=5"


DIFFERENCES = {
    "a text of another length": ("UPDATE t SET b = 'SECRET' WHERE a = 2", {"aggregates.b"}),
    "the smallest text": ("UPDATE t SET b = 'RECRET-a' WHERE a = 4", {"aggregates.b"}),
    "an empty text for a null": ("UPDATE t SET b = '' WHERE a = 5", {"aggregates.b"}),
    "a cent": ("UPDATE t SET c = c + 0.01 WHERE a = 3", {"aggregates.c"}),
    "a microsecond": ("UPDATE t SET d = d + interval '1 us' WHERE a = 1", {"aggregates.d"}),
    "a boolean": ('UPDATE t SET "Q,""q" = true WHERE a = 2', {'aggregates.Q,"q'}),
    "a lost document": ("UPDATE t SET j = NULL WHERE a = 2", {"aggregates.j"}),
    "two columns": (
        "UPDATE t SET c = 0, d = '2000-01-01' WHERE a = 3",
        {"aggregates.c", "aggregates.d"},
    ),
    "another key": ("UPDATE t SET a = 30 WHERE a = 3", {"aggregates.a"}),
    "a deleted row": ("DELETE FROM t WHERE a = 1", {"record_count", *CHECKS[4:]}),
    "all rows deleted": ("DELETE FROM t", {"record_count", *CHECKS[4:]}),
    "a row that took the stamp": (
        'INSERT INTO t SELECT 7, b, c, d, "Q,""q", j, import_batch_id FROM t WHERE a = 1',
        {"record_count", *CHECKS[4:]},
    ),
    "a row that lost the stamp": (
        "UPDATE t SET import_batch_id = NULL WHERE a = 1",
        {"record_count", *CHECKS[4:]},
    ),
    "a key twice, in a table that lost its constraint": (
        "ALTER TABLE t DROP CONSTRAINT t_pkey; UPDATE t SET a = 2 WHERE a = 1",
        {"aggregates.a"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", DIFFERENCES)
def test_rows_that_differ_are_found_and_shown_and_mending_them_is_enough(
    site18: MakeSite, what: str
) -> None:
    change, failing = DIFFERENCES[what]
    site = site18(DDL)
    batch = publish(site)
    site.sql("CREATE TABLE kept AS SELECT * FROM t")
    site.sql(change)
    changed = site.rows()

    with pytest.raises(ValidationError) as error:
        site.run(stages=["validate"])

    checks = checks_of(site, batch)
    assert {name for name, check in checks.items() if check.status == "FAILED"} == failing
    for name in failing:
        assert checks[name].expected != checks[name].actual
        assert checks[name].expected
    now = site.newest()
    assert (now.batch_id, now.status) == (batch.batch_id, "VALIDATION_FAILED")
    named = ", ".join(f"public.t {name}" for name in checks if name in failing)
    assert now.error_details == (
        f"The published rows differ from their source in {named}. "
        f"`batch-pipelines show {batch.batch_id}` gives expected and actual values."
    )
    assert str(error.value) == f"orders/first: {now.error_details}"
    # Nothing was repaired or taken back behind anybody's back.
    assert site.rows() == changed
    ((status, why, ended),) = log(site)
    assert (status, ended) == ("FAILED", True)
    assert why == f"failed: {', '.join(name for name in checks if name in failing)}"
    with pytest.raises(StageOrderError, match="only a validated batch is archived; run validate"):
        site.run(stages=["archive"])
    assert not (site.settings.home / "archive").exists()
    text = ledger_text(site)
    for value in ("SECRET", "987654", "12.50", "2024-02-29"):
        assert value not in text

    site.sql("DELETE FROM t; INSERT INTO t SELECT * FROM kept")
    site.run(stages=["validate", "archive"])
    now = site.newest()
    assert (now.batch_id, now.status, now.error_details) == (batch.batch_id, "SUCCESS", None)
    assert [status for status, *_ in log(site)] == ["FAILED", "SUCCESS"]
    assert {check.status for check in checks_of(site, batch).values()} == {"SUCCESS"}
    assert stages.of_batch(site.connection, batch.batch_id)["archive"].status == "SUCCESS"


def test_the_rows_that_differ_are_named(site18: MakeSite) -> None:
    site = site18(DDL)
    batch = publish(site)
    site.sql("UPDATE t SET c = 1, b = 'SECRET' WHERE a = 3; DELETE FROM t WHERE a IN (1, 5)")
    site.sql("UPDATE t SET a = 20 WHERE a = 2")
    with pytest.raises(ValidationError):
        site.run(stages=["validate"])
    (found,) = proofs.validations(site.connection, batch.batch_id)
    assert found.rows is not None
    rows = found.rows
    assert (rows.src_extras, rows.tgt_extras, rows.mismatches, rows.matches) == (3, 1, 1, 2)
    shown = [(d.kind, d.key, d.file_name, d.record, d.columns) for d in rows.details]
    assert shown == [
        ("changed", {"a": "3"}, "a.csv", 3, ["b", "c"]),
        ("missing", {"a": "1"}, "a.csv", 1, None),
        ("missing", {"a": "2"}, "a.csv", 2, None),
        ("missing", {"a": "5"}, "b.csv", 1, None),
        ("added", {"a": "20"}, None, None, None),
    ]
    counted = site.sql(
        "SELECT src_extras, tgt_extras, mismatches, matches, jsonb_array_length(details)"
        " FROM batch_audit.validation_summary"
    )
    assert counted == [(3, 1, 1, 2, 5)]
    assert "SECRET" not in ledger_text(site)


def test_a_verdict_stands_where_rows_cannot_be_named(site18: MakeSite) -> None:
    site = site18(DDL)
    batch = publish(site)
    shutil.rmtree(site.settings.staging / batch.batch_id / "row_digests")
    site.sql("DELETE FROM t WHERE a = 1")
    with pytest.raises(ValidationError):
        site.run(stages=["validate"])
    (found,) = proofs.validations(site.connection, batch.batch_id)
    assert (found.status, found.rows) == ("FAILED", None)
    ((_, why, _),) = log(site)
    assert why is not None
    assert why.endswith(
        f"; rows cannot be named: Batch {batch.batch_id} has no bag, and staging has nothing of it."
    )


def test_a_key_that_stands_twice_in_the_table_is_found(site18: MakeSite) -> None:
    # Only a damaged index lets a key stand twice; one that is not ready takes no part in an INSERT.
    site = site18(DDL)
    batch = publish(site)
    site.sql("UPDATE pg_index SET indisready = false WHERE indexrelid = 't_pkey'::regclass")
    site.sql("INSERT INTO t SELECT * FROM t WHERE a = 1")
    with pytest.raises(ValidationError, match="key_uniqueness"):
        site.run(stages=["validate"])
    check = checks_of(site, batch)["key_uniqueness"]
    assert (check.expected, check.actual, check.status) == ("0", "1", "FAILED")


def test_each_table_has_findings_of_its_own(site18: MakeSite) -> None:
    site = site18(
        "CREATE TABLE p (a integer PRIMARY KEY, import_batch_id uuid);"
        "CREATE TABLE c (b bigint, a integer REFERENCES p, import_batch_id uuid)",
        {"public.c": "c*", "public.p": "p*"},
    )
    batch = publish(site, {"p.parquet": pa.table({"a": [1, 2]}), "c.csv": "b,a\n1,1\n2,1\n3,2\n"})
    site.sql("UPDATE c SET b = 7 WHERE b = 2")
    with pytest.raises(
        ValidationError, match=r"differ from their source in public\.c aggregates\.b\."
    ):
        site.run(stages=["validate"])
    found = proofs.validations(site.connection, batch.batch_id)
    assert [(each.target_table, each.src_records, each.status) for each in found] == [
        ("public.c", 3, "FAILED"),
        ("public.p", 2, "SUCCESS"),
    ]
    # No key is delivered to c, which has none.
    assert [check.name for check in found[0].checks] == [
        "record_count", "schema.c.csv", "aggregates.b", "aggregates.a", "coverage",
    ]  # fmt: skip


def test_an_empty_delivery_is_valid(site18: MakeSite) -> None:
    site = site18(DDL)
    batch = publish(site, {"a.csv": HEADER})
    site.run(stages=["validate"])
    assert site.newest().status == "SUCCESS"
    assert checks_of(site, batch)["record_count"].actual == "0"
    assert checks_of(site, batch)["aggregates.a"].actual == "values=0"


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("damage", ["gone", "cut off", "a bit", "the beginning", "a folder gone"])
def test_a_source_that_cannot_be_read_again_leaves_the_batch_published(
    site18: MakeSite, suffix: str, damage: str
) -> None:
    site = site18("CREATE TABLE t (a integer, import_batch_id uuid)")
    content: Content = "a\n1\n23\n" if suffix == "csv" else pa.table({"a": [1, 23]})
    batch = publish(site, {f"f.{suffix}": content})
    folder = site.settings.staging / batch.batch_id / "source"
    path = folder / f"f.{suffix}"
    data = path.read_bytes()
    path.chmod(0o644)
    match damage:
        case "gone":
            path.unlink()
        case "cut off":
            path.write_bytes(data[:-2])
        case "a bit":
            path.write_bytes(data[:-2] + bytes([data[-2] ^ 1]) + data[-1:])
        case "the beginning":
            path.write_bytes(b"\xff" + data[1:])
        case _:
            path.unlink()
            folder.rmdir()
    how = "gone" if "gone" in damage else "damaged"
    why = (
        f"f.{suffix}: its staged copy is {how}, so the rows cannot be validated. "
        "Import the partition again with --force."
    )
    with pytest.raises(ValidationError) as error:
        site.run(stages=["validate"])
    assert str(error.value) == why
    assert log(site) == [("UNVERIFIED", why, True)]
    assert site.count("SELECT count(*) FROM batch_audit.validation_summary") == 0
    now = site.newest()
    assert (now.batch_id, now.status, now.error_details) == (batch.batch_id, "PUBLISHED", None)
    record = stages.of_batch(site.connection, batch.batch_id)["validate"]
    assert (record.status, record.error_details) == ("FAILED", why)
    assert site.stamps() == {batch.batch_id: 2}
    with pytest.raises(StageOrderError):
        site.run(stages=["archive"])
    # The remedy that is told is one.
    done = site.run(force=True)
    assert (done.status, done.batch_id != batch.batch_id) == ("SUCCESS", True)
    assert site.stamps() == {done.batch_id: 2}


def test_a_file_the_two_readers_do_not_agree_on_is_not_passed(
    site18: MakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a word that only the second reader takes for no value, the batch is not passed."""

    def otherwise(*told: Any) -> str:
        return scan_csv(*told).replace("nullstr=['']", "nullstr=['x']")

    site = site18("CREATE TABLE t (a integer, b text, import_batch_id uuid)")
    batch = publish(site, {"f.csv": "a,b\n1,x\n"})
    monkeypatch.setattr(second_reader, "scan_csv", otherwise)
    with pytest.raises(ValidationError, match=r"aggregates\.b"):
        site.run(stages=["validate"])
    assert site.newest().batch_id == batch.batch_id


def test_a_validated_batch_is_reported_and_not_validated_again(site18: MakeSite) -> None:
    site = site18(DDL)
    publish(site)
    site.run(stages=["validate"])
    site.sql("DELETE FROM t")
    with site.work() as (connection, work):
        result = validate(connection, work)
    assert (result.worked, result.batch.status) == (False, "SUCCESS")
    assert [table.status for table in result.tables] == ["SUCCESS"]
    assert len(log(site)) == 1


def test_a_duplicate_reports_the_findings_of_its_original(site18: MakeSite) -> None:
    site = site18(DDL)
    first = site.load(FILES)
    second = site.load(FILES)
    assert (second.status, second.duplicate_of) == ("DUPLICATE", first.batch_id)
    with site.work(run_id=second.batch_id) as (connection, work):
        result = validate(connection, work)
    assert (result.worked, result.batch.batch_id) == (False, second.batch_id)
    assert [table.src_records for table in result.tables] == [6]


def test_a_table_changed_after_publish_is_an_error_and_no_verdict(site18: MakeSite) -> None:
    site = site18(DDL)
    batch = publish(site)
    site.sql("ALTER TABLE t DROP COLUMN c")
    with pytest.raises(Exception, match="column 'c' is not in public"):
        site.run(stages=["validate"])
    assert site.newest() == batch
    ((status, why, ended),) = log(site)
    assert (status, ended) == ("UNVERIFIED", True)
    assert why is not None
    assert "column 'c'" in why


def test_parquet_of_which_records_were_set_aside_is_read_a_second_time(site18: MakeSite) -> None:
    """Given keys to look for too, what was set aside is left out of both."""
    site = site18(
        "CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL, import_batch_id uuid)", thresholds={}
    )
    batch = site.load({"a.parquet": pa.table({"id": [1, 2, 3], "n": [1, None, 3]})})
    assert (batch.status, batch.written_records) == ("PARTIAL_SUCCESS", 2)
