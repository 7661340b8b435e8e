"""Verification: the types that digests were taken in, what was proven again, answers as views."""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"

UPGRADE = """
ALTER TABLE batch_audit.batch_table ADD column_types text[] DEFAULT '{}';
COMMENT ON COLUMN batch_audit.batch_table.column_types IS
    'The types of `columns` in the digest, so that a later change of a type does not break the proof; '
    'empty where they were not kept, null where a replay came after such a change.';

ALTER TABLE batch_audit.validation_summary ADD details jsonb NOT NULL DEFAULT '[]';
COMMENT ON COLUMN batch_audit.validation_summary.details IS
    'Differing rows, up to a limit: kind, key, file and record, names of columns; no values.';

CREATE INDEX row_before_image_previous
ON batch_audit.row_before_image (previous_batch_id, target_table) WHERE previous_batch_id IS NOT NULL;

CREATE TABLE batch_audit.verification_log (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    batch_id uuid NOT NULL REFERENCES batch_audit.import_history ON DELETE CASCADE,
    target_table text NOT NULL,
    run_id uuid,
    requested_by text NOT NULL,
    status text NOT NULL CHECK (
        status IN ('SUCCESS', 'FAILED', 'PARTIAL_SUCCESS', 'UNVERIFIED')),
    started_at timestamptz NOT NULL,
    completed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expected_rows bigint,
    actual_rows bigint,
    replaced bigint,
    changed bigint,
    missing bigint,
    added bigint,
    duplicated bigint,
    not_covered text[] NOT NULL,
    sql text NOT NULL,
    exception text,
    details jsonb NOT NULL
);
CREATE INDEX ON batch_audit.verification_log (batch_id, id);
CREATE INDEX ON batch_audit.verification_log (target_table, started_at);
COMMENT ON TABLE batch_audit.verification_log IS
    'A batch proven again in one table: its rows of today against what was recorded of them.';
COMMENT ON COLUMN batch_audit.verification_log.run_id IS
    'The Dagster run that did it; null where the command line did.';
COMMENT ON COLUMN batch_audit.verification_log.replaced IS
    'Rows that later batches in force have updated since; the images they keep count as the rows.';
COMMENT ON COLUMN batch_audit.verification_log.changed IS
    'Rows that differ from what was recorded; null, like the next three, where rows were not compared.';
COMMENT ON COLUMN batch_audit.verification_log.not_covered IS
    'Columns that no digest covers: converted by PostgreSQL, or filled with defaults.';
COMMENT ON COLUMN batch_audit.verification_log.details IS
    'Differing rows, up to a limit: kind, key, file and record, names of columns; no values.';
"""

# Each groups or filters by batch_id, so that a condition on it reaches the indexes of the ledger. An
# entity stands several times in crc32_audit (chunks of it, what ingest saw, what the sender promised);
# what is said of sizes counts it once, and chunks not at all.
VIEWS = """
CREATE VIEW batch_audit.batch_integrity AS
SELECT a.batch_id, h.feed, h.partition_key, h.status, a.total_files, a.total_checks, a.valid, a.invalid,
       a.recorded
FROM (SELECT batch_id, count(DISTINCT entity_id) FILTER (WHERE entity_type <> 'chunk') AS total_files,
             count(*) AS total_checks, count(*) FILTER (WHERE status = 'valid') AS valid,
             count(*) FILTER (WHERE status = 'invalid') AS invalid,
             count(*) FILTER (WHERE status = 'recorded') AS recorded
      FROM batch_audit.crc32_audit GROUP BY batch_id) AS a
JOIN batch_audit.import_history AS h ON h.batch_id = a.batch_id;
COMMENT ON VIEW batch_audit.batch_integrity IS
    'How many checksums of a batch are valid, invalid, or had nothing to be compared with.';

CREATE VIEW batch_audit.batch_throughput AS
SELECT batch_id, count(*) AS file_count, avg(throughput_mbps) AS avg_throughput_mbps,
       avg(processing_time_ms) AS avg_latency_ms, sum(bytes_processed) AS total_bytes,
       round(avg(hardware_utilized::int) * 100, 1) AS hardware_utilization_pct,
       sum(simd_instructions) AS total_simd_instructions
FROM (SELECT DISTINCT ON (batch_id, entity_type, entity_id) *
      FROM batch_audit.crc32_audit WHERE entity_type <> 'chunk'
      ORDER BY batch_id, entity_type, entity_id, created_at DESC, id DESC) AS a
GROUP BY batch_id;
COMMENT ON VIEW batch_audit.batch_throughput IS
    'Size and speed of the last checksum of each file of a batch, and what the processor did for it.';

CREATE VIEW batch_audit.invalid_entity AS
SELECT a.batch_id, h.feed, h.partition_key, a.entity_type, a.entity_id,
       lpad(to_hex(a.computed_crc32), 8, '0') AS computed_crc32,
       lpad(to_hex(a.expected_crc32), 8, '0') AS expected_crc32, a.expected_source, a.error_details,
       a.created_at
FROM batch_audit.crc32_audit AS a
JOIN batch_audit.import_history AS h ON h.batch_id = a.batch_id
WHERE a.status = 'invalid';
COMMENT ON VIEW batch_audit.invalid_entity IS 'Checksums that are not what was expected.';

CREATE VIEW batch_audit.entity_compliance AS
SELECT batch_id, entity_type, min(created_at) AS batch_start, max(created_at) AS batch_end,
       count(*) AS total_validations, count(*) FILTER (WHERE status = 'valid') AS valid_count,
       count(*) FILTER (WHERE status = 'recorded') AS not_compared,
       round(100.0 * count(*) FILTER (WHERE status = 'valid')
             / nullif(count(*) FILTER (WHERE status <> 'recorded'), 0), 2) AS success_rate
FROM batch_audit.crc32_audit GROUP BY batch_id, entity_type;
COMMENT ON VIEW batch_audit.entity_compliance IS
    'Of each kind of entity in a batch, the share of compared checksums that are valid, in percent.';

CREATE VIEW batch_audit.hourly_success AS
SELECT date_trunc('hour', created_at, 'UTC') AS hour, count(DISTINCT batch_id) AS batches_per_hour,
       count(*) FILTER (WHERE status <> 'recorded') AS total_validations,
       round(100.0 * count(*) FILTER (WHERE status = 'valid')
             / nullif(count(*) FILTER (WHERE status <> 'recorded'), 0), 2) AS success_rate,
       avg(throughput_mbps) AS avg_throughput_mbps
FROM batch_audit.crc32_audit GROUP BY 1;
COMMENT ON VIEW batch_audit.hourly_success IS
    'Per hour (UTC): batches, compared checksums, and the share of them that are valid, in percent.';

CREATE VIEW batch_audit.batch_metrics AS
SELECT DISTINCT ON (s.batch_id, s.target_table) s.batch_id, s.target_table, s.src_records, s.tgt_records,
       s.src_extras, s.tgt_extras, s.mismatches, s.matches, s.overall_status
FROM batch_audit.validation_summary AS s ORDER BY s.batch_id, s.target_table, s.log_id DESC;
COMMENT ON VIEW batch_audit.batch_metrics IS 'What validating a batch found last in each of its tables.';

CREATE VIEW batch_audit.failed_batch AS
SELECT h.batch_id, h.feed, h.partition_key, h.attempt, h.status, h.error_details, h.started_at,
       v.target_table, v.status AS validation_status, v.started_at AS validation_started_at, v.exception
FROM batch_audit.import_history AS h
LEFT JOIN (SELECT DISTINCT ON (batch_id, target_table) *
           FROM batch_audit.validation_log ORDER BY batch_id, target_table, id DESC) AS v
    ON v.batch_id = h.batch_id AND v.status IN ('FAILED', 'UNVERIFIED')
WHERE h.status IN ('FAILED', 'VALIDATION_FAILED') OR v.target_table IS NOT NULL;
COMMENT ON VIEW batch_audit.failed_batch IS
    'Batches that failed, and tables whose last validation failed or could not be done, with why.';
"""

DOWNGRADE = """
DROP VIEW batch_audit.failed_batch, batch_audit.batch_metrics, batch_audit.hourly_success,
    batch_audit.entity_compliance, batch_audit.invalid_entity, batch_audit.batch_throughput,
    batch_audit.batch_integrity;
DROP TABLE batch_audit.verification_log;
DROP INDEX batch_audit.row_before_image_previous;
ALTER TABLE batch_audit.validation_summary DROP details;
ALTER TABLE batch_audit.batch_table DROP column_types;
"""


def upgrade() -> None:
    """Make room for verification."""
    op.execute(UPGRADE)
    op.execute(VIEWS)


def downgrade() -> None:
    """Drop it."""
    op.execute(DOWNGRADE)
