"""Every number of a report is that of an independent question, month by month, and months add up."""

from __future__ import annotations

import datetime as dt
import statistics
import uuid
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from batch_pipelines.engine.compliance.scope import month
from tests.engine.compliance.support import LEDGER, VIENNA, figures, report, rows

if TYPE_CHECKING:
    from pathlib import Path

    from batch_pipelines.engine.compliance.making import Made
    from batch_pipelines.engine.postgres.database import Connection

pytestmark = pytest.mark.versions

GOOD = {"SUCCESS", "PARTIAL_SUCCESS"}
# Midnight of the first of April in Vienna, whose clock was set in March; and of the first of March.
EDGES = """
INSERT INTO batch_audit.import_history (batch_id, job_id, feed, feed_version, partition_key, status,
    attempt, requested_by, correlation_id, started_at, source_records)
SELECT gen_random_uuid(), '', 'edges', 1, at, 'SUCCESS', 1, '', '', at::timestamptz, 1
FROM unnest(ARRAY['2026-02-28 22:59:59.999999+00', '2026-02-28 23:00:00+00',
                  '2026-03-31 21:59:59.999999+00', '2026-03-31 22:00:00+00']) AS at
"""


def table(db: Connection, statement: str) -> list[dict[str, Any]]:
    """Every row of a table, to be counted here and not by SQL."""
    cursor = db.execute(statement.encode())
    assert cursor.description is not None
    names = [column.name for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def percent(part: int, whole: int) -> float | None:
    return None if whole == 0 else int(10_000 * part / whole) / 100


def outcome(batch: dict[str, Any]) -> str:
    return str(batch["status_before"] if batch["status"] == "SUPERSEDED" else batch["status"])


def expected(db: Connection, made: Made, feeds: set[str] | None) -> dict[str, dict[str, Any]]:
    """Count what the report counts, from plain rows."""
    span = made.read.scope.span

    def of(statement: str, when: str) -> list[dict[str, Any]]:
        return [
            row for row in table(db, statement)
            if span.start <= row[when] < span.end and (feeds is None or row["feed"] in feeds)
        ]  # fmt: skip

    history = "SELECT * FROM batch_audit.import_history"
    batches = of(history, "started_at")
    ids = {each["batch_id"] for each in batches}
    states = [outcome(each) for each in batches]
    ended = [state for state in states if state not in {"IN_PROGRESS", "PUBLISHED", "DUPLICATE"}]
    sized = {b["batch_id"] for b in batches if b["status"] != "DUPLICATE"}
    sizes = [
        row["size"] for row in table(db, "SELECT * FROM batch_audit.import_file")
        if row["batch_id"] in sized
    ]  # fmt: skip
    checksums = of(
        "SELECT a.*, h.feed FROM batch_audit.crc32_audit a "
        "JOIN batch_audit.import_history h USING (batch_id)", "created_at",
    )  # fmt: skip
    compared = [row for row in checksums if row["status"] != "recorded"]
    validations = of(
        "SELECT v.status, v.started_at, h.feed FROM batch_audit.validation_log v "
        "JOIN batch_audit.import_history h USING (batch_id)", "started_at",
    )  # fmt: skip
    rejects = [
        row for row in table(db, "SELECT batch_id, replayed_at FROM batch_audit.import_reject")
        if row["batch_id"] in ids
    ]  # fmt: skip
    alerts = {row["deduplication_key"]: row for row in table(db, "SELECT * FROM batch_audit.alert")}
    told = [
        (alerts[row["alert_key"]]["raised_at"] - alerts[row["alert_key"]]["occurred_at"]).total_seconds()
        for row in table(db, "SELECT * FROM batch_audit.critical_record") if row["batch_id"] in ids
    ]  # fmt: skip
    critical = [
        row for row in alerts.values()
        if row["kind"] == "critical_row" and span.start <= row["raised_at"] < span.end
        and (feeds is None or row["feed"] in feeds)
    ]  # fmt: skip
    validated = [row["status"] for row in validations if row["status"] != "IN_PROGRESS"]
    return {
        "summary": {
            "batches": len(batches),
            "ended": len(ended),
            "succeeded": sum(state in GOOD for state in ended),
            "success_rate": percent(sum(state in GOOD for state in ended), len(ended)),
            "files": len(sizes),
            "bytes": sum(sizes),
            "records": sum(each["source_records"] for each in batches),
            "written": sum(each["written_records"] or 0 for each in batches),
            "rejected": sum(each["rejected_records"] for each in batches),
            "skipped": sum(each["skipped_records"] for each in batches),
            "critical": sum(each["critical_records"] or 0 for each in batches),
        },
        "integrity": {
            "checksums": len(checksums),
            "compared": len(compared),
            "invalid": sum(row["status"] == "invalid" for row in checksums),
            "valid_rate": percent(sum(row["status"] == "valid" for row in compared), len(compared)),
            "validations": len(validations),
            "validations_failed": validated.count("FAILED"),
            "validations_unverified": validated.count("UNVERIFIED"),
            "validation_rate": percent(sum(state in GOOD for state in validated), len(validated)),
        },
        "quarantine": {
            "rejects": len(rejects),
            "replayed": sum(row["replayed_at"] is not None for row in rejects),
        },
        "critical": {
            "critical_rows": len(told),
            "raised_median": statistics.median(told) if told else None,
            "raised_p95": statistics.quantiles(told, n=20, method="inclusive")[-1]
            if told
            else None,
            "raised_worst": max(told, default=None),
            "alerts": len(critical),
            "escalated": sum(row["escalated_at"] is not None for row in critical),
            "acknowledged": sum(row["acknowledged_at"] is not None for row in critical),
            "unacknowledged": sum(row["acknowledged_at"] is None for row in critical),
        },
    }


def assert_equal(made: Made, wanted: dict[str, dict[str, Any]]) -> None:
    for kind, numbers in wanted.items():
        found = figures(made.read, kind)
        for name, number in numbers.items():
            if isinstance(number, float):
                assert abs((found[name] or 0) - number) < 1e-6, (kind, name)
            else:
                assert found[name] == number, (kind, name)


def test_numbers_are_those_of_plain_counting(db: Connection, tmp_path: Path) -> None:
    db.execute(LEDGER.encode())
    for key in ("2026-02", "2026-03", "2026-05"):
        made = report(db, tmp_path, key)
        assert_equal(made, expected(db, made, None))
    hipaa = report(db, tmp_path, regulation="hipaa")
    assert_equal(hipaa, expected(db, hipaa, {"lab", "visits"}))
    orders = report(db, tmp_path, feed="orders")
    assert_equal(orders, expected(db, orders, {"orders"}))
    clia = report(db, tmp_path, regulation="CLIA", feed="lab")
    assert_equal(clia, expected(db, clia, {"lab"}))
    # Lines add up to the figures above them.
    made = report(db, tmp_path)
    totals = figures(made.read, "summary")
    for name in ("by_feed", "by_status", "by_day"):
        place = 2 if name == "by_status" else 1
        found = [row[place] for row in rows(made.read, "summary", name)]
        assert sum(number for number in found if isinstance(number, int)) == totals["batches"], name
    under = {row[0]: row[1] for row in rows(made.read, "summary", "by_regulation")}
    by_feed = {row[0]: row[1] for row in rows(made.read, "summary", "by_feed")}
    assert under == {
        "CLIA": by_feed["lab"], "none": by_feed["orders"],
        "HIPAA": int(str(by_feed["lab"])) + int(str(by_feed["visits"])),
    }  # fmt: skip
    only = report(db, tmp_path, entity_type="chunk")
    assert {row[0] for row in rows(only.read, "integrity", "by_entity_type")} == {"chunk"}
    assert (figures(only.read, "integrity")["checksums"] or 0) < (
        figures(made.read, "integrity")["checksums"] or 0
    )


# What became of a batch since, and whether it had succeeded.
SINCE = """
INSERT INTO batch_audit.import_history (batch_id, job_id, feed, feed_version, partition_key, status,
    attempt, requested_by, correlation_id, started_at, status_before)
SELECT gen_random_uuid(), '', 'since', 1, n, s.status, 1, '', '', '2026-03-10', s.before
FROM (VALUES (1, 'ARCHIVED', 'SUCCESS'), (2, 'SUPERSEDED', 'ARCHIVED'), (3, 'SUPERSEDED', NULL),
    (4, 'SUPERSEDED', 'VALIDATION_FAILED'), (5, 'ROLLED_BACK', NULL)) AS s (n, status, before)
"""


def test_what_was_archived_and_superseded_since_had_succeeded(
    db: Connection, tmp_path: Path
) -> None:
    db.execute(SINCE.encode())
    found = figures(report(db, tmp_path).read, "summary")
    assert (found["ended"], found["succeeded"], found["success_rate"]) == (5, 3, 60)


CHECKS = """
INSERT INTO batch_audit.validation_summary (log_id, batch_id, target_table, checks, overall_status)
SELECT id, batch_id, target_table, '[{"name": "record_count", "status": "SUCCESS"},
    {"name": "aggregates.a", "status": "FAILED"}, {"name": "aggregates.b", "status": "SUCCESS"},
    {"name": "coverage.b", "status": "UNVERIFIED"}]', 'FAILED'
FROM batch_audit.validation_log
"""


def test_checksums_and_checks_are_told_by_batch_where_they_are_bad(
    db: Connection, tmp_path: Path
) -> None:
    db.execute(LEDGER.encode())
    db.execute(CHECKS.encode())
    made = report(db, tmp_path, feed="lab")
    integrity = figures(made.read, "integrity")
    checksums = Counter(
        (row["batch_id"], row["entity_type"], row["status"])
        for row in table(db, "SELECT * FROM batch_audit.crc32_audit")
    )
    told = rows(made.read, "integrity", "checksums_by_batch")
    assert sum(int(str(row[6])) for row in told) == integrity["checksums"]
    for _, _, batch, kind, _, _, computed, compared, valid, invalid, rate, _ in told:
        counted = {
            status: checksums[uuid.UUID(str(batch)), str(kind), status]
            for status in ("valid", "invalid", "recorded")
        }
        assert (computed, valid, invalid) == (
            sum(counted.values()), counted["valid"], counted["invalid"],
        )  # fmt: skip
        assert compared == counted["valid"] + counted["invalid"]
        assert rate == percent(counted["valid"], int(str(compared)))
    worst = [int(str(row[9])) for row in told]
    assert worst == sorted(worst, reverse=True)
    number = int(integrity["validations"] or 0)
    assert rows(made.read, "integrity", "checks") == [
        ("aggregates", 2 * number, number, number, 0), ("coverage", number, 0, 0, number),
        ("record_count", number, number, 0, 0),
    ]  # fmt: skip
    bad = rows(made.read, "integrity", "bad_checks")
    assert Counter(row[4:] for row in bad) == {
        ("aggregates.a", "FAILED"): number, ("coverage.b", "UNVERIFIED"): 100 - number,
    }  # fmt: skip
    assert [row[5] for row in bad] == sorted(str(row[5]) for row in bad)


def test_findings_are_open_whatever_their_age(db: Connection, tmp_path: Path) -> None:
    db.execute(LEDGER.encode())
    made = report(db, tmp_path, "2026-04")
    end = month("2026-04", VIENNA).end
    batches = table(db, "SELECT * FROM batch_audit.import_history ORDER BY attempt")
    last = {
        (b["feed"], b["partition_key"]): b["attempt"] for b in batches if b["status"] != "DUPLICATE"
    }
    found = figures(made.read, "findings")
    seen = Counter(b["status"] for b in batches if b["started_at"] < end)
    failed = [
        b for b in batches
        if b["status"] == "FAILED" and b["started_at"] < end
        and last[b["feed"], b["partition_key"]] == b["attempt"]
    ]  # fmt: skip
    assert len(failed) > 0
    assert found["failed"] == len(failed)
    assert found["validation_failed"] == seen["VALIDATION_FAILED"]
    assert found["unvalidated"] == 0
    db.execute("UPDATE batch_audit.import_history SET status = 'PUBLISHED' WHERE feed = 'lab'")
    (wanted,) = db.execute(
        "SELECT count(*) FROM batch_audit.import_history WHERE feed = 'lab' AND started_at < %s",
        (end,),
    ).fetchall()
    assert figures(report(db, tmp_path, "2026-04").read, "findings")["unvalidated"] == wanted[0]
    # No lease is held: all that is in progress is dead.
    assert found["dead_runs"] == seen["IN_PROGRESS"]
    alerts = table(db, "SELECT * FROM batch_audit.alert")
    assert found["unacknowledged"] == sum(
        a["acknowledged_at"] is None and a["resolved_at"] is None and a["raised_at"] < end
        for a in alerts
    )
    assert (found["carried"] or 0) > 0
    listed = rows(made.read, "findings", "failed")
    assert {row[-1] for row in listed} == {True, False}
    overruled = figures(report(db, tmp_path, "2026-03").read, "overrides")
    assert (overruled["paused"], overruled["resumed"], overruled["overruled"]) == (1, 1, 1)
    assert figures(made.read, "overrides")["overruled"] == 0


def test_a_moment_belongs_to_one_month_of_the_time_zone(db: Connection, tmp_path: Path) -> None:
    db.execute(EDGES.encode())
    found = {
        key: figures(report(db, tmp_path, key, feed="edges").read, "summary")["batches"]
        for key in ("2026-02", "2026-03", "2026-04")
    }
    assert found == {"2026-02": 1, "2026-03": 2, "2026-04": 1}
    days = rows(report(db, tmp_path, feed="edges").read, "summary", "by_day")
    assert [row[0] for row in days] == ["2026-03-01", "2026-03-31"]


def test_what_comes_after_is_not_told_and_the_rest_is_marked_partial(
    db: Connection, tmp_path: Path
) -> None:
    db.execute(LEDGER.encode())
    now = dt.datetime(2026, 3, 15, tzinfo=dt.UTC)
    made = report(db, tmp_path, as_of=now)
    assert made.record.is_partial
    counted = table(db, "SELECT * FROM batch_audit.import_history")
    start = month("2026-03", VIENNA).start
    assert figures(made.read, "summary")["batches"] == sum(
        start <= row["started_at"] < now for row in counted
    )
    assert "Partial: 2026-03 is not over before" in made.place("html").read_text()


# Large ones that grow with every batch: a month of them is found by an index, or in its partition.
GROWING = {"import_history", "import_file", "import_reject", "validation_log", "validation_summary",
           "verification_log", "alert", "critical_record", "archive_manifest"}  # fmt: skip
MANY = """
INSERT INTO batch_audit.import_history (batch_id, job_id, feed, feed_version, partition_key, status,
    attempt, requested_by, correlation_id, started_at, critical_records)
SELECT gen_random_uuid(), n, 'old', 1, n, 'SUCCESS', 1, '', '',
    timestamptz '1990-01-01' + n * interval '1 day', 1
FROM generate_series(1, 20000) AS n;
INSERT INTO batch_audit.import_file (batch_id, file_name, target_table, size, format, crc32c, sha256)
SELECT batch_id, 'f', 't', 1, 'csv', 1, 'x' FROM batch_audit.import_history;
INSERT INTO batch_audit.import_reject (batch_id, feed, target_table, file_name, record_number, raw,
    sqlstate, message, breaches)
SELECT batch_id, feed, 't', 'f1', 1, '', '23514', '', '[]' FROM batch_audit.import_history;
INSERT INTO batch_audit.validation_log (batch_id, run_id, target_table, status, started_at)
SELECT batch_id, batch_id, 't', 'SUCCESS', started_at FROM batch_audit.import_history;
INSERT INTO batch_audit.validation_summary (log_id, batch_id, target_table, checks, overall_status)
SELECT id, batch_id, target_table, '[]', status FROM batch_audit.validation_log;
INSERT INTO batch_audit.critical_record (batch_id, target_table, condition, record_key, alert_key)
SELECT batch_id, 't', 'k', '{}', batch_id::text FROM batch_audit.import_history;
INSERT INTO batch_audit.alert (deduplication_key, kind, severity, feed, batch_id, subject, occurred_at,
    raised_at, resolved_at)
SELECT batch_id, 'critical_row', 'critical', feed, batch_id, '', started_at, started_at, started_at
FROM batch_audit.import_history;
INSERT INTO batch_audit.archive_manifest (batch_id, place, kind, strategy, payload_files,
    payload_bytes, tagmanifest_sha256, verified_at, checked_at, recorded_at)
SELECT batch_id, batch_id::text, 'bag', 'copy', 1, 1, '', started_at, started_at, started_at
FROM batch_audit.import_history;
ANALYZE;
"""


def test_a_month_is_read_without_reading_all_there_is(db: Connection, tmp_path: Path) -> None:
    db.execute(MANY.encode())
    db.execute("SELECT pg_stat_force_next_flush()")
    scans = "SELECT relname, seq_tup_read FROM pg_stat_user_tables WHERE schemaname = 'batch_audit'"
    before = {row["relname"]: row["seq_tup_read"] for row in table(db, scans)}
    report(db, tmp_path, "2020-03")
    db.execute("SELECT pg_stat_force_next_flush()")
    after = {row["relname"]: row["seq_tup_read"] for row in table(db, scans)}
    read = {name: after[name] - before[name] for name in GROWING}
    assert {name: number for name, number in read.items() if number} == {}
