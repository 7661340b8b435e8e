"""What a sender promises of a file beside its CRC32C, and files that do not keep to it."""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"

# A row that is audited is no file.
VIEWS = """
CREATE OR REPLACE VIEW batch_audit.batch_integrity AS
SELECT a.batch_id, h.feed, h.partition_key, h.status, a.total_files, a.total_checks, a.valid, a.invalid,
       a.recorded
FROM (SELECT batch_id,
             count(DISTINCT entity_id) FILTER (WHERE entity_type NOT IN ({parts})) AS total_files,
             count(*) AS total_checks, count(*) FILTER (WHERE status = 'valid') AS valid,
             count(*) FILTER (WHERE status = 'invalid') AS invalid,
             count(*) FILTER (WHERE status = 'recorded') AS recorded
      FROM batch_audit.crc32_audit GROUP BY batch_id) AS a
JOIN batch_audit.import_history AS h ON h.batch_id = a.batch_id;

CREATE OR REPLACE VIEW batch_audit.batch_throughput AS
SELECT batch_id, count(*) AS file_count, avg(throughput_mbps) AS avg_throughput_mbps,
       avg(processing_time_ms) AS avg_latency_ms, sum(bytes_processed) AS total_bytes,
       round(avg(hardware_utilized::int) * 100, 1) AS hardware_utilization_pct,
       sum(simd_instructions) AS total_simd_instructions
FROM (SELECT DISTINCT ON (batch_id, entity_type, entity_id) batch_id, throughput_mbps,
             processing_time_ms, bytes_processed, hardware_utilized, simd_instructions
      FROM batch_audit.crc32_audit WHERE entity_type NOT IN ({parts})
      ORDER BY batch_id, entity_type, entity_id, created_at DESC, id DESC) AS a
GROUP BY batch_id;
"""
UPGRADE = """
ALTER TABLE batch_audit.import_file
    ADD expected_size bigint,
    ADD expected_digests jsonb NOT NULL DEFAULT '{}',
    ADD problem text,
    ADD set_aside boolean NOT NULL DEFAULT false,
    ADD CHECK (NOT set_aside OR problem IS NOT NULL);
COMMENT ON COLUMN batch_audit.import_file.expected_digests IS
    'Other checksums that the sender promised: {source: {algorithm: hex digits}}.';
COMMENT ON COLUMN batch_audit.import_file.problem IS
    'What of the file is not as its sender or its store says; null where everything is.';
COMMENT ON COLUMN batch_audit.import_file.set_aside IS
    'Whether the batch went on without it: none of its rows was parsed.';

ALTER TABLE batch_audit.crc32_audit
    ADD digest_algorithm text,
    ADD computed_digest text,
    ADD expected_digest text,
    DROP CONSTRAINT crc32_audit_check,
    ADD CONSTRAINT compared_or_recorded CHECK (CASE status
        WHEN 'recorded' THEN expected_crc32 IS NULL AND expected_digest IS NULL
        WHEN 'valid' THEN expected_crc32 IS NOT NULL OR expected_digest IS NOT NULL
        ELSE true END),
    ADD CONSTRAINT whole_digest CHECK (
        num_nulls(digest_algorithm, computed_digest, expected_digest) IN (0, 3));
COMMENT ON COLUMN batch_audit.crc32_audit.retry_count IS
    'How often the same was computed and compared before, for the same batch.';
COMMENT ON COLUMN batch_audit.crc32_audit.digest_algorithm IS
    'Where a digest other than the CRC32C was promised and compared: which, as in sha256.';
"""

# What the older ledger has no words for: digests that were compared, and sizes that differed.
DOWNGRADE = """
DELETE FROM batch_audit.crc32_audit
WHERE expected_crc32 IS NULL AND status <> 'recorded';
ALTER TABLE batch_audit.crc32_audit
    DROP CONSTRAINT whole_digest,
    DROP CONSTRAINT compared_or_recorded,
    DROP expected_digest,
    DROP computed_digest,
    DROP digest_algorithm,
    ADD CONSTRAINT crc32_audit_check CHECK ((status = 'recorded') = (expected_crc32 IS NULL));
COMMENT ON COLUMN batch_audit.crc32_audit.retry_count IS NULL;
ALTER TABLE batch_audit.import_file
    DROP set_aside, DROP problem, DROP expected_digests, DROP expected_size;
"""


def upgrade() -> None:
    """Make room for what is promised of files, and for those set aside."""
    op.execute(UPGRADE)
    op.execute(VIEWS.replace("{parts}", "'chunk', 'row'"))


def downgrade() -> None:
    """Drop it."""
    op.execute(DOWNGRADE)
    op.execute(VIEWS.replace("{parts}", "'chunk'"))
