"""The views of the ledger answer what is asked most, and of one batch by indexes alone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import crc32c
import pytest

from batch_pipelines.engine.errors import DeliveryError, ValidationError
from batch_pipelines.engine.ledger.stages import STAGES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.postgres.database import Connection
    from tests.engine.conftest import MakeSite
    from tests.support_engine import Site

pytestmark = pytest.mark.versions

DDL = "CREATE TABLE t (a integer PRIMARY KEY, import_batch_id uuid)"
GOOD, OTHER, DAMAGED = "a\n1\n2\n", "a\n3\n4\n5\n", "a\n7\n"


@pytest.fixture
def here(site: MakeSite) -> tuple[Site, Batch, Batch, Batch]:
    """Batches that succeeded, failed at their checksums, and failed validation."""
    here = site(DDL)
    promise = f"{crc32c.crc32c(GOOD.encode()):08x}\n"
    good = here.load({"a.csv": GOOD, "b.csv": OTHER, "a.csv.crc32c": promise}, "good")
    here.deliver({"a.csv": DAMAGED, "a.csv.crc32c": promise}, "damaged")
    with pytest.raises(DeliveryError):
        here.run("damaged")
    here.deliver({"a.csv": "a\n10\n11\n"}, "wrong")
    here.run("wrong", stages=STAGES[:3])
    here.sql("DELETE FROM t WHERE a = 10")
    with pytest.raises(ValidationError):
        here.run("wrong", stages=["validate"])
    return here, good, here.newest("damaged"), here.newest("wrong")


def of(site: Site, view: str, batch: Batch) -> list[dict[str, Any]]:
    rows = site.sql(
        f"SELECT to_jsonb(v) FROM batch_audit.{view} v WHERE batch_id = '{batch.batch_id}'"
    )
    return [row for (row,) in rows]


def test_each_question_is_answered(here: tuple[Site, Batch, Batch, Batch]) -> None:
    site, good, damaged, wrong = here

    (row,) = of(site, "batch_integrity", good)
    assert (row["feed"], row["partition_key"], row["status"]) == ("orders", "good", "SUCCESS")
    # Each file is recorded by ingest and compared with that; one of them with its promise, too.
    assert (row["total_files"], row["invalid"]) == (2, 0)
    assert row["total_checks"] == row["valid"] + row["recorded"]
    assert row["valid"] > row["total_files"]
    (row,) = of(site, "batch_integrity", damaged)
    assert (row["status"], row["total_files"], row["invalid"]) == ("FAILED", 1, 1)

    (row,) = of(site, "batch_throughput", good)
    assert (row["file_count"], row["total_bytes"]) == (2, len(GOOD) + len(OTHER))
    assert row["avg_throughput_mbps"] > 0
    assert row["hardware_utilization_pct"] == (100 if crc32c.hardware_based else 0)
    if crc32c.hardware_based:
        assert row["total_simd_instructions"] == -(-len(GOOD) // 8) + -(-len(OTHER) // 8)

    assert of(site, "invalid_entity", good) == []
    (row,) = of(site, "invalid_entity", damaged)
    assert (row["entity_type"], row["entity_id"], row["expected_source"]) == (
        "file", "a.csv", "sidecar"
    )  # fmt: skip
    assert row["computed_crc32"] == f"{crc32c.crc32c(DAMAGED.encode()):08x}"
    assert row["expected_crc32"] == f"{crc32c.crc32c(GOOD.encode()):08x}"

    rates = {row["entity_type"]: row["success_rate"] for row in of(site, "entity_compliance", good)}
    assert rates == {"file": 100}
    rates = {row["entity_type"]: row for row in of(site, "entity_compliance", damaged)}
    assert rates["file"]["success_rate"] == 50
    assert rates["file"]["batch_start"] <= rates["file"]["batch_end"]

    hours = site.sql(
        "SELECT sum(batches_per_hour), min(success_rate) FROM batch_audit.hourly_success"
    )
    ((batches, worst),) = hours
    assert batches >= 3
    assert 0 < worst < 100

    assert of(site, "failed_batch", good) == []
    (row,) = of(site, "failed_batch", damaged)
    assert (row["status"], row["target_table"]) == ("FAILED", None)
    assert row["error_details"].startswith("a.csv: CRC32C is")
    (row,) = of(site, "failed_batch", wrong)
    assert (row["status"], row["target_table"]) == ("VALIDATION_FAILED", "public.t")
    assert row["exception"].startswith("failed: record_count")

    (row,) = of(site, "batch_metrics", good)
    assert (row["src_records"], row["tgt_records"], row["overall_status"]) == (5, 5, "SUCCESS")
    (row,) = of(site, "batch_metrics", wrong)
    assert (row["src_records"], row["tgt_records"], row["overall_status"]) == (2, 1, "FAILED")
    assert (row["src_extras"], row["tgt_extras"], row["mismatches"], row["matches"]) == (1, 0, 0, 1)


# Those that are asked about one batch.
VIEWS = (
    "batch_integrity", "batch_throughput", "invalid_entity", "entity_compliance", "failed_batch",
    "batch_metrics",
)  # fmt: skip
TABLES = """
SELECT relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'batch_id'
WHERE relnamespace = 'batch_audit'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
"""
MANY = """
INSERT INTO batch_audit.import_history (batch_id, job_id, feed, feed_version, partition_key, status,
    attempt, requested_by, correlation_id)
SELECT gen_random_uuid(), n, 'many', 1, n, CASE n % 10 WHEN 0 THEN 'FAILED' ELSE 'SUCCESS' END, 1, '', ''
FROM generate_series(1, 3000) n;
INSERT INTO batch_audit.crc32_audit (batch_id, entity_type, entity_id, computed_crc32, expected_crc32,
    expected_source, status, bytes_processed, processing_time_ms, hardware_utilized, created_at)
SELECT batch_id, 'file', n, n, n, 'ingest', CASE n WHEN 7 THEN 'invalid' ELSE 'valid' END, 1, 1, true,
    date_trunc('month', now(), 'UTC') + n % 2 * interval '32 days'
FROM batch_audit.import_history, generate_series(1, 10) n;
INSERT INTO batch_audit.validation_log (batch_id, run_id, target_table, status)
SELECT batch_id, batch_id, 't' || n, 'SUCCESS' FROM batch_audit.import_history, generate_series(1, 3) n;
INSERT INTO batch_audit.validation_summary (log_id, batch_id, target_table, checks, overall_status)
SELECT id, batch_id, target_table, '[]', status FROM batch_audit.validation_log;
INSERT INTO batch_audit.import_reject (batch_id, feed, target_table, file_name, record_number, raw,
    sqlstate, message, breaches)
SELECT batch_id, feed, 't', 'f', n, '', '22000', '', '[]'
FROM batch_audit.import_history, generate_series(1, 3) n;
"""


def scans(connection: Connection, relation: str, batch_id: str) -> list[str]:
    """Relations that a look-up of one batch reads from their beginning to their end."""
    return scanned(
        connection, f"SELECT * FROM batch_audit.{relation} WHERE batch_id = '{batch_id}'"
    )


def scanned(connection: Connection, question: str) -> list[str]:
    """Relations that a question reads from their beginning to their end."""
    query = f"EXPLAIN (FORMAT JSON) {question}"
    ((plan,),) = connection.execute(query.encode()).fetchall()

    def walk(node: dict[str, Any]) -> Iterator[str]:
        if node["Node Type"] == "Seq Scan":
            yield node["Relation Name"]
        for child in node.get("Plans", ()):
            yield from walk(child)

    return [*walk((plan if isinstance(plan, list) else json.loads(plan))[0]["Plan"])]


def test_a_look_up_of_one_batch_reads_no_table_of_the_ledger_to_its_end(db: Connection) -> None:
    db.execute(MANY)
    db.execute("ANALYZE")
    ((batch_id,),) = db.execute(
        "SELECT batch_id::text FROM batch_audit.import_history LIMIT 1"
    ).fetchall()
    # Sums there are none yet, and an empty table is read whole.
    read = {each for name in VIEWS for each in scans(db, name, batch_id)}
    assert read <= {"checksum_sum", "checksum_entity_sum"}
    db.execute(
        "SELECT batch_audit.sum_checksums(array_agg(batch_id)) FROM batch_audit.import_history"
    )
    db.execute("ANALYZE")
    assert {name: found for name in VIEWS if (found := scans(db, name, batch_id))} == {}
    # Those without rows here have an index all the same.
    db.execute("SET enable_seqscan = off")
    tables = [name for (name,) in db.execute(TABLES).fetchall()]
    assert "crc32_audit" in tables
    assert {name: found for name in tables if (found := scans(db, name, batch_id))} == {}


# Those that are asked about all batches.
GLOBAL = ("batch_integrity", "batch_throughput", "entity_compliance", "hourly_success")


def test_a_question_about_all_batches_reads_sums_and_no_single_checksum(db: Connection) -> None:
    db.execute(MANY)
    before = {name: told(db, name) for name in GLOBAL}
    db.execute(
        "SELECT batch_audit.sum_checksums(array_agg(batch_id))"
        " FROM (SELECT batch_id FROM batch_audit.import_history LIMIT 1500) h"
    )
    # Whether a batch has its sums or not, nobody can tell by the answer.
    assert {name: told(db, name) for name in GLOBAL} == before
    db.execute(
        "SELECT batch_audit.sum_checksums(array_agg(batch_id)) FROM batch_audit.import_history"
    )
    assert {name: told(db, name) for name in GLOBAL} == before
    db.execute("ANALYZE")
    for name in GLOBAL:
        read = scanned(db, f"SELECT * FROM batch_audit.{name}")
        assert [each for each in read if each.startswith("crc32_audit")] == [], name
    ((untouched,),) = db.execute(
        "EXPLAIN (ANALYZE, FORMAT JSON) SELECT * FROM batch_audit.entity_compliance"
        " WHERE batch_start >= '2020-01-01' ORDER BY batch_start DESC"
    ).fetchall()
    assert rows_read(untouched[0]["Plan"], "crc32_audit") == 0


def told(connection: Connection, view: str) -> list[str]:
    query = f"SELECT to_jsonb(v)::text FROM batch_audit.{view} v ORDER BY 1"
    return [text for (text,) in connection.execute(query.encode()).fetchall()]


def rows_read(node: dict[str, Any], relation: str) -> float:
    """Rows that a plan has read of a partitioned table."""
    own = node["Relation Name"].startswith(relation) if "Relation Name" in node else False
    here = node["Actual Rows"] * node["Actual Loops"] if own else 0
    return float(here + sum(rows_read(child, relation) for child in node.get("Plans", ())))
