"""A report that is made is kept, proven and signed; a part that fails stops no other."""

from __future__ import annotations

import csv
import datetime as dt
import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from batch_pipelines.engine.compliance.reading import KINDS, chosen
from batch_pipelines.engine.compliance.signing import check, find, sign
from batch_pipelines.engine.errors import ReportError
from batch_pipelines.engine.ledger import compliance_reports
from tests.engine.compliance.support import LEDGER, figures, report, rows

if TYPE_CHECKING:
    from batch_pipelines.engine.postgres.database import Connection

EVENTS = """
SELECT action, status, principal_id, details FROM batch_audit.audit_event
WHERE resource_type = 'compliance_report' AND resource_id = %s ORDER BY seq
"""
FAILED = """
INSERT INTO batch_audit.import_history (batch_id, job_id, feed, feed_version, partition_key, status,
    attempt, requested_by, correlation_id, started_at, error_details)
VALUES (gen_random_uuid(), '', %s, 1, %s, 'FAILED', 1, '', '', %s, %s)
"""


def test_what_was_made_is_kept_with_the_digest_of_each_file(db: Connection, tmp_path: Path) -> None:
    db.execute(LEDGER.encode())
    made = report(db, tmp_path)
    assert made.read.failed == ()
    for file in made.files:
        content = Path(file.place).read_bytes()
        assert (file.bytes, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())
        assert find(db, file.place).report_id == made.record.report_id
    assert compliance_reports.newest(db, 10) == [made.record]
    assert [each.type for each in compliance_reports.types(db, made.record.report_id)] == [*KINDS]
    told = db.execute(EVENTS, (made.record.report_id,)).fetchall()
    assert [row[:3] for row in told] == [
        ("report.started", "IN_PROGRESS", "a test"), ("report.made", "SUCCESS", "a test"),
    ]  # fmt: skip
    assert told[1][3]["content_sha256"] == made.read.content_sha256
    for statement in ("UPDATE batch_audit.compliance_report SET feed = 'x'",
                      "DELETE FROM batch_audit.compliance_report_file",
                      "TRUNCATE batch_audit.compliance_report_type"):  # fmt: skip
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
            db.execute(statement.encode())
    # No value of a row, which the quarantine and alerts have, is in any form of it.
    page, model = (made.place(form).read_text() for form in ("html", "json"))
    assert "secret" not in page + model
    assert (
        json.loads(model)["sections"][0]["figures"]["batches"]
        == figures(made.read, "summary")["batches"]
    )
    with zipfile.ZipFile(made.place("csv")) as archive:
        found = list(csv.DictReader(io.StringIO(archive.read("figures.csv").decode())))
    assert {row["type"] for row in found} == {*KINDS}


@pytest.mark.versions
def test_the_same_ledger_gives_the_same_report(db: Connection, tmp_path: Path) -> None:
    db.execute(LEDGER.encode())
    first, second = report(db, tmp_path), report(db, tmp_path)
    assert first.read.content_sha256 == second.read.content_sha256
    assert check(db, first.record.report_id, again=lambda: 0.0).changed == ()
    # Somebody acknowledges an alert of that month: the file stays what it was, the ledger says more.
    db.execute(
        "UPDATE batch_audit.alert SET acknowledged_at = '2026-03-20', acknowledged_by = 'ada' "
        "WHERE acknowledged_at IS NULL AND severity = 'critical' AND raised_at < '2026-03-20'"
    )
    found = check(db, first.record.report_id, again=lambda: 0.0)
    assert found.changed == ("findings", "critical", "overrides")
    assert found.problems == ()


def test_a_part_that_fails_stops_no_other(db: Connection, tmp_path: Path) -> None:
    db.execute(LEDGER.encode())
    whole = report(db, tmp_path)
    db.execute("ALTER TABLE batch_audit.feed_pause RENAME TO gone")
    made = report(db, tmp_path)
    (failed,) = made.read.failed
    assert failed.type == "overrides"
    assert failed.failure is not None
    assert "42P01" in failed.failure
    for kind in KINDS.keys() - {"overrides", "access"}:
        assert figures(made.read, kind) == figures(whole.read, kind)
    assert "Incomplete: overrides could not be made." in made.place("html").read_text()
    kept = {e.type: e.error_details for e in compliance_reports.types(db, made.record.report_id)}
    assert [type_ for type_, why in kept.items() if why] == ["overrides"]
    told = [row[:2] for row in db.execute(EVENTS, (made.record.report_id,)).fetchall()]
    assert told[1:] == [("report.type.failed", "FAILED"), ("report.made", "FAILED")]


def test_a_signature_is_an_event_over_the_digest(db: Connection, tmp_path: Path) -> None:
    made = report(db, tmp_path)
    signed = sign(db, made.record.report_id[:9], statement="Reviewed.", by="ada (command line)")
    (signature,) = signed.signatures
    assert (signature.principal_id, signature.statement) == ("ada (command line)", "Reviewed.")
    assert signature.content_sha256 == made.read.content_sha256
    *_, (action, status, principal, details) = db.execute(
        EVENTS, (made.record.report_id,)
    ).fetchall()
    assert (action, status, principal) == ("report.signed", "SUCCESS", "ada (command line)")
    assert details["files"] == {each.format: each.sha256 for each in made.files}
    assert check(db, str(made.place("html"))).signatures == signed.signatures


def test_nobody_signs_what_is_no_longer_what_was_made(db: Connection, tmp_path: Path) -> None:
    made = report(db, tmp_path)
    page = made.place("html")
    page.write_text(page.read_text().replace("No open finding", "No  open finding"))
    with pytest.raises(ReportError, match="is not what was made"):
        sign(db, made.record.report_id, statement="Reviewed.", by="ada")
    page.unlink()
    with pytest.raises(ReportError, match="cannot be read"):
        sign(db, made.record.report_id, statement="Reviewed.", by="ada")
    found = check(db, made.record.report_id)
    assert (found.signatures, len(found.problems)) == ((), 1)
    tries = [row[:2] for row in db.execute(EVENTS, (made.record.report_id,)).fetchall()[2:]]
    assert tries == [("report.signed", "FAILED")] * 2


def test_a_file_from_elsewhere_is_none_of_ours(db: Connection, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("<h1>No finding</h1>")
    with pytest.raises(ReportError, match="no file with its SHA-256"):
        find(db, str(tmp_path / "report.html"))
    for reference in ("", "%", "abc", str(tmp_path)):
        with pytest.raises(ReportError, match="no report, or more than one"):
            find(db, reference)


def test_names_that_mean_harm_stay_names(db: Connection, tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>", "=cmd|'/c calc'!A1", "a\u202eb"
    for number, name in enumerate(hostile):
        db.execute(
            FAILED,
            (name, name, f"2026-03-0{number + 1}", name),
        )
    made = report(db, tmp_path)
    page = made.place("html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "\u202e" not in page
    with zipfile.ZipFile(made.place("csv")) as archive:
        lines = list(csv.reader(io.StringIO(archive.read("summary-by_feed.csv").decode())))
    assert {line[0] for line in lines[1:]} == {hostile[0], f"'{hostile[1]}", "a⟨U+202E⟩b"}
    model = json.loads(made.place("json").read_text())
    assert {row[0] for row in model["sections"][0]["tables"]["by_feed"]["rows"]} == {*hostile}


def test_looks_at_values_and_signatures_are_told(db: Connection, tmp_path: Path) -> None:
    db.execute(LEDGER.encode())
    batches = db.execute(
        "SELECT batch_id, feed FROM batch_audit.import_history WHERE feed IN ('lab', 'orders') "
        "ORDER BY attempt LIMIT 2"
    ).fetchall()
    for batch_id, _ in batches:
        db.execute("SELECT batch_audit.open_values(%s, 'look', 'who looks')", (batch_id,))
    now = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=1)
    first = report(db, tmp_path, f"{now:%Y-%m}", as_of=now)
    assert figures(first.read, "access")["looks"] == 2
    sign(db, first.record.report_id, statement="Reviewed.", by="ada (command line)")
    later = report(db, tmp_path, f"{now:%Y-%m}", as_of=now, feed="lab", types=("access",))
    assert {row[4] for row in rows(later.read, "access", "looks")} == {"lab"}
    whole = report(db, tmp_path, f"{now:%Y-%m}", as_of=now, types=("access",))
    assert figures(whole.read, "access")["signed"] == 1
    statements = [row[-1] for row in rows(whole.read, "access", "reports")]
    assert statements.count("Reviewed.") == 1


def test_types_come_in_their_order_and_each_once() -> None:
    assert chosen([]) == (*KINDS,)
    assert chosen(["retention", "summary", "summary"]) == ("summary", "retention")
    with pytest.raises(ReportError, match="everything is no type of report"):
        chosen(["everything"])
