"""The report of a batch: its numbers are those of the database, whatever became of the batch."""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING, Any

import crc32c
import pytest

from batch_pipelines.engine.alerts.alert import Alert
from batch_pipelines.engine.alerts.record import acknowledge, listed, raise_alert
from batch_pipelines.engine.errors import BatchError, ValidationError
from batch_pipelines.engine.ledger import rejects
from batch_pipelines.engine.ledger.stages import STAGES
from batch_pipelines.engine.reports.batch_facts import read_batch
from batch_pipelines.engine.reports.batch_page import batch_page
from batch_pipelines.engine.reports.export import csv_text, json_text
from batch_pipelines.engine.reports.html import page_html
from tests.engine.reports.test_page import Document
from tests.support_engine import new_id
from tests.support_rollback import take_back

if TYPE_CHECKING:
    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.reports.batch_facts import BatchFacts
    from batch_pipelines.engine.reports.page import Cell, Page
    from tests.engine.conftest import MakeSite
    from tests.support_engine import Site

pytestmark = pytest.mark.versions

NOW = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
DDL = """
CREATE TABLE p (id integer PRIMARY KEY, name text NOT NULL, import_batch_id uuid);
CREATE TABLE c (id integer PRIMARY KEY, parent integer NOT NULL REFERENCES p, host inet,
    import_batch_id uuid);
"""
TABLES = {"public.p": "p*", "public.c": "c*"}
SECRET = "GEHEIM"  # noqa: S105  # a value of a row
PARENTS = "id,name\n" + "".join(f"{n},name {n}\n" for n in range(1, 8)) + f"x,{SECRET}\n"
CHILDREN = "id,parent,host\n" + "".join(f"{n},{n % 9},10.0.0.{n}\n" for n in range(20))
DELIVERY = {
    "p.csv": PARENTS,
    "p.csv.crc32c": f"{crc32c.crc32c(PARENTS.encode()):08x}\n",
    "c 1.csv": CHILDREN,
    "c 2.csv": "id,parent,host\n30,1,10.1.0.1\n",
}


def report(site: Site, batch_id: str) -> tuple[BatchFacts, Page, str]:
    """The facts, the page and the HTML of a batch."""
    facts = read_batch(site.connection, batch_id, made_at=NOW, made_by="a test")
    page = batch_page(facts)
    return facts, page, page_html(page)


def rows(page: Page, name: str) -> list[dict[str, Cell]]:
    """The rows of a table of a page, by the heads of its columns."""
    (table,) = [each for each in page.tables if each.name == name]
    heads = [column.name for column in table.columns]
    return [dict(zip(heads, row, strict=True)) for row in table.rows]


def told(site: Site, batch_id: str) -> tuple[str, str]:
    """The verdict on a batch, once everything about it can be written."""
    facts, page, html = report(site, batch_id)
    assert json.loads(json_text(facts))["batch"]["batch_id"] == batch_id
    assert all(csv_text(table).count("\r\n") > len(table.rows) for table in page.tables)
    assert "script" not in Document(html).tags
    return page.level, page.verdict


def test_numbers_equal_independent_sql(site: MakeSite) -> None:
    here = site(DDL, TABLES, thresholds={"rejected_rows": "90%"})
    batch = here.load(DELIVERY)
    one = batch.batch_id
    _, page, html = report(here, one)

    stored = {
        f"public.{table}": here.count(
            f"SELECT count(*) FROM {table} WHERE import_batch_id = %s", one
        )
        for table in "pc"
    }
    aside = dict(
        here.sql(
            "SELECT target_table, count(*) FROM batch_audit.import_reject"
            " WHERE batch_id = %s GROUP BY 1", one,
        )
    )  # fmt: skip
    lines = {"public.p": 8, "public.c": 21}
    assert {row["table"]: row["inserted"] for row in rows(page, "balance")} == stored
    assert {row["table"]: row["set aside"] for row in rows(page, "balance")} == aside
    assert {row["table"]: row["counted in files"] for row in rows(page, "balance")} == lines
    assert {row["table"]: row["rows validated"] for row in rows(page, "balance")} == stored
    assert {row["balances"] for row in rows(page, "balance")} == {"yes"}
    assert sum(stored.values()) + sum(aside.values()) == 29
    assert page.verdict.startswith(
        f"{sum(stored.values())} of 29 records were loaded, and {sum(aside.values())} were set aside."
    )
    assert f"{sum(aside.values())} records were set aside" in html

    by_reason = here.sql(
        "SELECT b->>'message', count(*)::int"
        " FROM batch_audit.import_reject, json_array_elements(breaches) AS b"
        " WHERE batch_id = %s GROUP BY 1 ORDER BY 1", one,
    )  # fmt: skip
    assert sorted((row["message"], row["records"]) for row in rows(page, "rejects")) == by_reason

    landed = {path.name: path.read_bytes() for path in here.landing().glob("*.csv")}
    assert {row["file"]: row["bytes"] for row in rows(page, "files")} == {
        name: len(content) for name, content in landed.items()
    }
    assert {row["file"]: row["CRC32C"] for row in rows(page, "files")} == {
        name: f"{crc32c.crc32c(content):08x}" for name, content in landed.items()
    }
    assert [row["file"] for row in rows(page, "files") if row["promised"]] == ["p.csv"]

    checksums = here.sql(
        "SELECT status, count(*) FROM batch_audit.crc32_audit WHERE batch_id = %s GROUP BY 1", one
    )
    heads = {"valid": "valid", "invalid": "invalid", "recorded": "nothing to compare"}
    counted = {
        status: sum(int(str(row[head])) for row in rows(page, "checksum_counts"))
        for status, head in heads.items()
    }
    assert {status: n for status, n in counted.items() if n} == dict(checksums)

    checks = here.sql(
        "SELECT s.target_table, c->>'name', c->>'expected', c->>'actual', c->>'status'"
        " FROM batch_audit.validation_summary s, jsonb_array_elements(checks) c"
        " WHERE batch_id = %s", one,
    )  # fmt: skip
    heads_of_checks = ("table", "check", "expected", "actual", "is")
    assert sorted(tuple(row[h] for h in heads_of_checks) for row in rows(page, "checks")) == sorted(
        checks
    )
    (own,) = {
        sql["statement"]
        for sql in rows(page, "statements")
        if sql["check"] == "public.p record_count"
    }
    assert here.count(str(own)) == stored["public.p"]

    timed = here.sql(
        "SELECT stage, extract(epoch FROM completed_at - started_at)::float8"
        " FROM batch_audit.batch_stage WHERE batch_id = %s ORDER BY started_at", one,
    )  # fmt: skip
    assert [row["stage"] for row in rows(page, "stages")] == [stage for stage, _ in timed]
    assert [row["seconds"] for row in rows(page, "stages")] == pytest.approx([t for _, t in timed])

    (bag,) = rows(page, "bags")
    ((place, size),) = here.sql("SELECT place, payload_bytes FROM batch_audit.archive_manifest")
    assert (bag["bag"], bag["bytes"], bag["is"]) == (place, size, "VALID")
    chained = here.sql(
        "SELECT seq, encode(hash, 'hex'), action FROM batch_audit.audit_event WHERE resource_id = %s"
        " AND resource_type = 'batch' ORDER BY seq", one,
    )  # fmt: skip
    assert [(row["entry"], row["SHA-256"], row["what"]) for row in rows(page, "events")] == chained


def test_no_value_of_a_row_is_in_a_report(site18: MakeSite) -> None:
    site = site18(DDL, TABLES, thresholds={"rejected_rows": "90%"}, validate_digests=True)
    site.deliver(DELIVERY)
    batch = site.run(stages=STAGES[:3])
    # A row whose key is a secret differs, and is named by validation.
    site.sql(f"UPDATE p SET name = '{SECRET}' WHERE id = 3")
    with pytest.raises(ValidationError):
        site.run(stages=["validate"])
    facts, page, html = report(site, batch.batch_id)
    assert rejects.count(site.connection, batch.batch_id)["public.p"] == 1
    everything = html + json_text(facts) + "".join(csv_text(table) for table in page.tables)
    assert SECRET not in everything
    assert page.level == "bad"
    # Nor the key of a critical row, which its alert has.
    details = {"condition": "high", "table": "public.p", "record": f"id={SECRET}"}
    raise_alert(
        site.connection,
        Alert(
            "critical_row",
            "critical",
            f"high is critical: id={SECRET}",
            "k",
            None,
            batch.batch_id,
            details,
        ),
    )
    facts, _, html = report(site, batch.batch_id)
    assert "high is critical in a row of public.p" in html
    assert SECRET not in html + json_text(facts)
    (difference,) = rows(page, "differing_rows")
    assert (difference["file"], difference["record"]) == ("p.csv", 3)
    assert "key" not in json.loads(json_text(facts))["validations"][1]["differing"][0]


# What a trigger of the ledger does, after publish has proven the rows, only validation sees.
FORGETFUL = """
CREATE FUNCTION forget() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN UPDATE public.c SET host = NULL WHERE id < 0; RETURN NULL; END';
CREATE TRIGGER forgets AFTER INSERT ON batch_audit.batch_table EXECUTE FUNCTION forget();
"""
PARENT, CHILD = "id,name\n1,one\n", "id,parent,host\n"


def test_each_state_has_its_verdict(site18: MakeSite) -> None:
    site = site18(DDL + FORGETFUL, TABLES, thresholds={"rejected_rows": 1})
    small = {"p.csv": PARENT, "c.csv": CHILD + "1,1,10.0.0.1\n"}
    found: dict[str, tuple[str, str]] = {}

    def keep(batch: Batch) -> None:
        found[batch.status] = told(site, batch.batch_id)

    first = site.load(small)
    keep(first)
    duplicate = site.load(small)
    second = site.load({**small, "c.csv": CHILD + "1,1,10.0.0.1\n2,9,\n"})
    keep(second)
    other = {"p.csv": "id,name\n9,nine\n", "c.csv": CHILD + "9,9,\n"}
    taken = site.load(other, key="taken")
    take_back(site, taken.batch_id)
    site.deliver({**small, "p.csv": "id,name\nx,1\ny,2\n"}, key="refused")
    site.deliver({"p.csv": PARENT}, key="incomplete")
    site.deliver(
        {**small, "c.csv": CHILD + "-1,1,10.0.0.1\n", "p.csv": "id,name\n5,five\n1,one\n"},
        key="wrong",
    )
    for key in ("refused", "incomplete", "wrong"):
        with pytest.raises(BatchError):
            site.run(key)
    site.deliver({"p.csv": "id,name\n77,n\n", "c.csv": CHILD + "70,77,\n"}, key="begun")
    begun = site.run("begun", stages=STAGES[:2])
    for each in site.history():
        keep(each)
    site.run("begun", run_id=new_id(), stages=["bulk_write"])
    keep(site.newest("begun"))
    assert begun.batch_id == site.newest("begun").batch_id

    again = "Nothing was done: the same delivery had been loaded already"
    assert found == {
        "SUCCESS": ("good", "All 2 records were loaded. 13 of 13 checks against the source hold."),
        "DUPLICATE": (
            "plain",
            f"{again} as batch {first.batch_id} (orders/first), which is SUPERSEDED now.",
        ),
        "SUPERSEDED": (
            "plain", f"A corrected delivery has taken its place: batch {second.batch_id}.",
        ),
        "PARTIAL_SUCCESS": (
            "warn",
            "2 of 3 records were loaded, and 1 were set aside. 13 of 13 checks against the source hold.",
        ),
        "ROLLED_BACK": ("warn", "It was taken back by a tester: a test"),
        "VALIDATION_FAILED": (
            "bad", "Its rows are visible, and wrong: 12 of 13 checks against the source hold, 1 failed.",
        ),
        "FAILED": ("bad", "It failed in ingest, and nothing of it is visible."),
        "IN_PROGRESS": ("plain", "It is running, and nothing of it is visible."),
        "PUBLISHED": (
            "warn", "All 2 records were loaded. What is loaded is visible, and not validated yet.",
        ),
    }  # fmt: skip
    assert duplicate.status == "DUPLICATE"


def test_what_was_not_checked_is_said(site18: MakeSite) -> None:
    site = site18(DDL, TABLES)
    batch = site.load({"p.csv": PARENT, "c.csv": CHILD})
    _, page, _ = report(site, batch.batch_id)
    assert [(row["where"], row["why"]) for row in rows(page, "unchecked")] == [
        ("c.csv", "nobody promised a checksum; it is known as it arrived"),
        ("p.csv", "nobody promised a checksum; it is known as it arrived"),
        ("public.c", "never verified since"),
        ("public.p", "never verified since"),
    ]
    site.deliver({"p.csv": PARENT}, key="incomplete")
    with pytest.raises(BatchError):
        site.run("incomplete")
    _, page, _ = report(site, site.newest("incomplete").batch_id)
    assert [row["what"] for row in rows(page, "unchecked")] == [
        f"stage {stage}" for stage in STAGES[1:]
    ]


def test_an_open_alert_and_a_damaged_bag_are_told_first(site18: MakeSite) -> None:
    site = site18(DDL, TABLES)
    batch = site.load({"p.csv": PARENT, "c.csv": CHILD})
    for n, severity in enumerate(("warning", "critical", "info")):
        raise_alert(
            site.connection,
            Alert("kind", severity, f"subject <{n}>", f"k/{n}", site.feed.feed, batch.batch_id),  # type: ignore[arg-type]
        )
    (seen,) = [each for each in listed(site.connection) if each.alert.severity == "warning"]
    acknowledge(site.connection, seen.alert_id, by="Ada", note="=seen")
    site.sql(
        "UPDATE batch_audit.archive_manifest SET state = 'DAMAGED', problems = '{a.csv is gone}'"
    )
    _, page, html = report(site, batch.batch_id)
    assert page.level == "bad"
    ((place,),) = site.sql("SELECT place FROM batch_audit.archive_manifest")
    assert [each.text.split(":")[0] for each in page.attention] == [
        f"The bag {place} is DAMAGED; a.csv is gone", f"Alert {seen.alert_id + 1} is open",
    ]  # fmt: skip
    assert [(row["by"], row["note"]) for row in rows(page, "alerts")] == [
        ("Ada", "=seen"), (None, None), (None, None),
    ]  # fmt: skip
    assert "subject &lt;1&gt;" in html


def test_a_batch_whose_rows_wait(site18: MakeSite) -> None:
    site = site18(DDL, TABLES, publish="after_validation")
    site.deliver({"p.csv": PARENT, "c.csv": CHILD})
    batch = site.run(stages=STAGES[:3])
    assert told(site, batch.batch_id)[0] == "plain"
    _, page, _ = report(site, batch.batch_id)
    assert (
        page.attention[0].text == "Rows wait and are not visible: 0 for public.c, 1 for public.p."
    )


def test_a_batch_without_tables(site18: MakeSite) -> None:
    none: dict[str, Any] = {"source": {"path": "landing/{batch}/*"}, "tables": "none"}
    site = site18("", feed="letters")
    site.feed = site.feed.model_validate({"feed": "letters", **none})
    batch = site.load({"a letter.pdf": b"\x00\xff", "b.tif": b""})
    level, verdict = told(site, batch.batch_id)
    assert level == "warn"
    assert verdict.startswith("2 files were received, and have no rows to load. 2 of ")


def test_names_of_senders_are_no_markup(site18: MakeSite) -> None:
    column = '"><img src=x onerror=alert(1)>'
    quoted = '"' + column.replace('"', '""') + '"'
    site = site18(
        f'CREATE TABLE "t<b>" ({quoted} integer PRIMARY KEY, import_batch_id uuid)',
        {"public.t<b>": "*"},
    )
    name = "=cmd|'<script>alert(1)<\u2044script>\u202efdp.csv"
    batch = site.load({name: f"{quoted}\n1\n"}, key="a=b")
    _, page, html = report(site, batch.batch_id)
    assert batch.status == "SUCCESS"
    assert not {"script", "img", "b", "i"} & {*Document(html).tags}
    (files,) = [table for table in page.tables if table.name == "files"]
    assert "'=cmd|'<script>alert(1)<\u2044script>⟨U+202E⟩fdp.csv" in csv_text(files)
