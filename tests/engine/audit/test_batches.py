"""What the trail says of batches: every step, and enough to find what was changed behind its back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batch_pipelines.engine.audit.rebuild import COLUMNS, rebuild
from batch_pipelines.engine.audit.verify import require_holds, verify_audit
from batch_pipelines.engine.errors import AuditError, BatchError
from batch_pipelines.engine.ledger import totals
from tests.support_rollback import take_back

if TYPE_CHECKING:
    from pathlib import Path

    from tests.engine.conftest import MakeSite
    from tests.support_engine import Site

DDL = "CREATE TABLE public.t (id integer PRIMARY KEY, v text, import_batch_id uuid)"
ONE = {"a.csv": "id,v\n1,one\n2,two\n"}
HALF = {"rejected_rows": "50%"}
OTHER = {"a.csv": "id,v\n1,one\n2,zwei\nx,bad\n"}
_PUT_IN = """
INSERT INTO batch_audit.import_history (batch_id, job_id, feed, feed_version, partition_key, status,
    attempt, requested_by, correlation_id)
VALUES (gen_random_uuid(), 'x', 'f', 1, 'k', 'SUCCESS', 1, 'x', 'x')
"""


def steps(site: Site, batch_id: str) -> list[str]:
    found = site.sql(
        "SELECT action, status FROM batch_audit.audit_event WHERE resource_id = %s ORDER BY seq",
        batch_id,
    )
    return [f"{action.removeprefix('batch.')} {status}" for action, status in found]


@pytest.mark.versions
def test_every_step_of_a_batch_is_an_event(site: MakeSite, tmp_path: Path) -> None:
    here = site(
        DDL, thresholds=HALF, compliance={"regulation": "HIPAA", "data_classification": "PHI"}
    )
    batch = here.load(ONE)
    assert steps(here, batch.batch_id) == [
        "ingest.started IN_PROGRESS", "ingest.done SUCCESS",
        "checksum.started IN_PROGRESS", "checksum.done SUCCESS",
        "bulk_write.started IN_PROGRESS", "publish.started IN_PROGRESS", "bulk_write.done SUCCESS",
        "publish.done SUCCESS", "validate.started IN_PROGRESS", "validate.done SUCCESS",
        "ended SUCCESS", "archive.started IN_PROGRESS", "archive.done SUCCESS",
    ]  # fmt: skip
    ((context, compliance, correlation),) = here.sql(
        "SELECT DISTINCT session_context ->> 'program', compliance_context, correlation_id"
        " FROM batch_audit.audit_event"
    )
    assert (bool(context), compliance, correlation) == (
        True, {"regulation": ["HIPAA"], "data_classification": "PHI"}, batch.correlation_id,
    )  # fmt: skip
    corrected = here.load(OTHER)
    assert steps(here, batch.batch_id)[-1] == "superseded SUCCESS"
    take_back(here, corrected.batch_id)
    assert steps(here, batch.batch_id)[-1] == "reinstated SUCCESS"
    assert steps(here, corrected.batch_id)[-2:] == [
        "rollback.started IN_PROGRESS", "rollback.done SUCCESS",
    ]  # fmt: skip
    here.deliver(ONE)
    here.run(force=True)
    found = verify_audit(here.connection, tmp_path)
    assert (found.findings, found.batches, found.at_work) == ((), 3, 0)


def test_a_failure_a_duplicate_and_a_retry_end_in_events(site18: MakeSite, tmp_path: Path) -> None:
    here = site18(DDL)
    here.deliver({"a.csv": "id,w\n1,one\n"})
    with pytest.raises(BatchError):
        here.run()
    ((failed,),) = here.sql("SELECT batch_id::text FROM batch_audit.import_history")
    assert steps(here, failed)[-2:] == ["bulk_write.failed FAILED", "ended FAILED"]
    batch = here.load(ONE)
    here.deliver(ONE)
    duplicate = here.run()
    assert duplicate.duplicate_of == batch.batch_id
    assert steps(here, duplicate.batch_id)[1:] == [
        "ingest.done SUCCESS", "duplicate SUCCESS", "ended SUCCESS",
    ]  # fmt: skip
    ended = here.sql(
        "SELECT details ->> 'status' FROM batch_audit.audit_event"
        " WHERE action = 'batch.ended' ORDER BY seq"
    )
    assert ended == [("FAILED",), ("SUCCESS",), ("DUPLICATE",)]
    assert verify_audit(here.connection, tmp_path).findings == ()


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("UPDATE batch_audit.import_history SET written_records = 3", "another written_records"),
        ("UPDATE batch_audit.import_history SET requested_by = 'x'", "another requested_by"),
        ("UPDATE batch_audit.import_file SET sha256 = repeat('0', 64)", "import_file is not"),
        ("DELETE FROM batch_audit.crc32_audit", "crc32_audit is not"),
        ("UPDATE batch_audit.batch_table SET digest_sum = 0", "batch_table is not"),
        ("DELETE FROM batch_audit.import_reject", "import_reject is not"),
        ("UPDATE batch_audit.validation_summary SET overall_status = 'FAILED'", "_summary is not"),
        ("UPDATE batch_audit.validation_log SET run_id = gen_random_uuid()", "_log is not"),
        ("DELETE FROM batch_audit.import_history", "gone from import_history"),
        (_PUT_IN, "the trail knows nothing of it"),
    ],
)
def test_what_is_changed_behind_the_trails_back_is_named(
    site18: MakeSite, tmp_path: Path, statement: str, told: str
) -> None:
    here = site18(DDL, thresholds=HALF)
    batch = here.load(OTHER)
    assert verify_audit(here.connection, tmp_path).findings == ()
    here.sql(statement)
    found = verify_audit(here.connection, tmp_path)
    assert found.status == "FAILED"
    assert told in found.findings[0].message
    assert batch.batch_id in found.findings[0].message or "knows nothing" in told


def test_the_end_of_a_batch_is_anchored_and_a_bag_is_an_anchor_too(
    site18: MakeSite, tmp_path: Path
) -> None:
    here = site18(DDL)
    here.load(ONE)
    own = verify_audit(here.connection, here.settings.anchors_folder)
    assert (own.status, own.exposed, own.anchored > 10) == ("SUCCESS", 0, True)
    bags = verify_audit(here.connection, here.settings.home / "archive")
    # The bag was written before it could be told that it is there.
    assert (bags.anchors, bags.exposed) == (1, 1)
    (info,) = (here.settings.home / "archive").rglob("bag-info.txt")
    assert f"Audit-Anchor: {bags.anchored} " in info.read_text()
    here.sql("ALTER TABLE batch_audit.audit_event DISABLE TRIGGER append_only")
    here.sql("ALTER TABLE batch_audit.audit_head DISABLE TRIGGER ALL")
    here.sql("DELETE FROM batch_audit.audit_event WHERE seq > 4")
    here.sql(
        "UPDATE batch_audit.audit_head h SET seq = 4, hash = e.hash"
        " FROM batch_audit.audit_event e WHERE e.seq = 4"
    )
    found = verify_audit(here.connection, here.settings.home / "archive")
    assert "truncated" in {each.kind for each in found.findings}


def test_a_folder_of_anchors_that_cannot_be_written_fails_no_batch(site18: MakeSite) -> None:
    here = site18(DDL)
    here.settings.anchors_folder.parent.mkdir(parents=True, exist_ok=True)
    here.settings.anchors_folder.write_text("not a folder")
    assert here.load(ONE).status == "SUCCESS"


def counters(here: Site) -> dict[tuple[str, str, tuple[str, ...]], float]:
    found = totals.read(here.connection)
    return {(t.metric, t.feed, tuple(t.labels)): float(t.value) for t in found if t.value}


def test_import_history_can_be_rebuilt_from_the_trail(site18: MakeSite, tmp_path: Path) -> None:
    here = site18(DDL, thresholds=HALF, compliance={"regulation": "CLIA"})
    first = here.load(ONE)
    second = here.load(OTHER)
    take_back(here, second.batch_id)
    here.deliver({"a.csv": "id,w\n1,x\n"}, "other")
    with pytest.raises(BatchError):
        here.run("other")
    untold = "wal_bytes, publish_seconds, published_xids, superseded_rows_kept"
    whole = "SELECT to_jsonb(h) - string_to_array(%s, ', ') FROM batch_audit.import_history h ORDER BY 1"
    before, there = here.sql(whole, untold), counters(here)
    assert rebuild(here.connection, write=False, by="me").differing == ()
    here.sql("DELETE FROM batch_audit.import_history WHERE partition_key = 'other'")
    here.sql(
        "UPDATE batch_audit.import_history SET status = 'SUCCESS', written_records = 7,"
        " rolled_back_by = NULL, started_at = now() WHERE batch_id = %s",
        second.batch_id,
    )
    found = rebuild(here.connection, write=False, by="me")
    assert (found.batches, len(found.differing)) == (3, 2)
    assert first.batch_id not in found.differing
    counted = counters(here)
    rebuild(here.connection, write=True, by="me")
    assert here.sql(whole, untold) == before
    # What comes back was counted when it happened; how many there are is as it was.
    there = {key: value for key, value in there.items() if key[0] == "batches"}
    assert counters(here) == {k: v for k, v in counted.items() if k[0] != "batches"} | there
    assert "history" not in {e.kind for e in verify_audit(here.connection, tmp_path).findings}


def test_entries_tell_the_columns_that_rebuilding_writes(site18: MakeSite) -> None:
    here = site18(DDL)
    here.load(ONE)
    ((columns, told),) = here.sql(
        "SELECT array(SELECT attname::text FROM pg_attribute WHERE attnum > 0 AND NOT attisdropped"
        " AND attrelid = 'batch_audit.import_history'::regclass),"
        " array(SELECT jsonb_object_keys(batch_audit.history_facts(batch_id)))"
        " FROM batch_audit.import_history"
    )
    assert set(told) <= set(COLUMNS)
    untold = {"wal_bytes", "publish_seconds", "published_xids", "superseded_rows_kept"}
    assert set(columns) - set(COLUMNS) == untold, "a new column: should the trail tell it?"


def test_damage_is_an_alert(site18: MakeSite, tmp_path: Path) -> None:
    here = site18(DDL)
    here.load(ONE)
    require_holds(here.connection, verify_audit(here.connection, tmp_path))
    here.sql("UPDATE batch_audit.import_history SET written_records = 3")
    for _ in range(2):
        with pytest.raises(AuditError, match="import_history has another written_records"):
            require_holds(here.connection, verify_audit(here.connection, tmp_path))
    assert here.sql("SELECT kind, severity FROM batch_audit.alert") == [("audit", "critical")]
