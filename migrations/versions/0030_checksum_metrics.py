"""Checksums in the metrics: how many were valid, and how much was read for them."""

from __future__ import annotations

from alembic import op

revision = "0030"
down_revision = "0029"

# Updated in its place, so that a trigger sees what has come in addition; where a batch goes, nothing is
# taken back.
UPGRADE = """
ALTER TABLE batch_audit.checksum_sum ADD checked_bytes numeric, ADD checked_seconds double precision;
COMMENT ON COLUMN batch_audit.checksum_sum.checked_bytes IS
    'Bytes that were read for its checksums, each time; parts and rows apart.';

CREATE FUNCTION batch_audit.checked_of(batch uuid)
RETURNS TABLE (checked_bytes numeric, checked_seconds double precision)
LANGUAGE sql STABLE AS $$
SELECT sum(c.bytes_processed), sum(c.processing_time_ms) / 1e3
FROM batch_audit.crc32_audit AS c
WHERE c.batch_id = $1 AND c.entity_type NOT IN ('chunk', 'row')
$$;
COMMENT ON FUNCTION batch_audit.checked_of IS
    'How much was read for the checksums of a batch''s files, and in how many seconds.';

CREATE OR REPLACE FUNCTION batch_audit.sum_checksums(batches uuid[]) RETURNS void LANGUAGE sql AS $$
DELETE FROM batch_audit.checksum_entity_sum WHERE batch_id = ANY (batches);
DELETE FROM batch_audit.checksum_hour_sum WHERE batch_id = ANY (batches);
INSERT INTO batch_audit.checksum_sum
SELECT b.batch_id, l.*, c.* FROM unnest(batches) AS b (batch_id),
    batch_audit.checksums_of(b.batch_id) AS l, batch_audit.checked_of(b.batch_id) AS c
ON CONFLICT (batch_id) DO UPDATE
SET total_files = excluded.total_files, total_checks = excluded.total_checks, valid = excluded.valid,
    invalid = excluded.invalid, recorded = excluded.recorded, file_count = excluded.file_count,
    avg_throughput_mbps = excluded.avg_throughput_mbps, avg_latency_ms = excluded.avg_latency_ms,
    total_bytes = excluded.total_bytes,
    hardware_utilization_pct = excluded.hardware_utilization_pct,
    total_simd_instructions = excluded.total_simd_instructions,
    checked_bytes = excluded.checked_bytes, checked_seconds = excluded.checked_seconds;
INSERT INTO batch_audit.checksum_entity_sum
SELECT b.batch_id, l.* FROM unnest(batches) AS b (batch_id),
    batch_audit.entity_checksums_of(b.batch_id) AS l;
INSERT INTO batch_audit.checksum_hour_sum
SELECT b.batch_id, l.* FROM unnest(batches) AS b (batch_id),
    batch_audit.hour_checksums_of(b.batch_id) AS l;
$$;

CREATE FUNCTION batch_audit.measure_checksums() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    was batch_audit.checksum_sum;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        was := OLD;
    END IF;
    INSERT INTO batch_audit.metric_change (metric, feed, labels, value)
    SELECT m.metric, h.feed, m.labels, m.value
    FROM batch_audit.import_history AS h, (VALUES
        ('checksums', ARRAY['valid'], greatest(NEW.valid - coalesce(was.valid, 0), 0)::numeric),
        ('checksums', ARRAY['invalid'], greatest(NEW.invalid - coalesce(was.invalid, 0), 0)),
        ('checksums', ARRAY['recorded'], greatest(NEW.recorded - coalesce(was.recorded, 0), 0)),
        ('checksum_bytes', ARRAY[]::text[],
            greatest(coalesce(NEW.checked_bytes, 0) - coalesce(was.checked_bytes, 0), 0)),
        ('checksum_seconds', ARRAY[]::text[],
            greatest(coalesce(NEW.checked_seconds, 0) - coalesce(was.checked_seconds, 0), 0)::numeric)
    ) AS m (metric, labels, value) WHERE h.batch_id = NEW.batch_id AND m.value <> 0;
    RETURN NULL;
END $$;
CREATE TRIGGER measure_checksums AFTER INSERT OR UPDATE ON batch_audit.checksum_sum
    FOR EACH ROW EXECUTE FUNCTION batch_audit.measure_checksums();
-- What there is counts once, as if it came now.
UPDATE batch_audit.checksum_sum AS s SET (checked_bytes, checked_seconds) = (
    SELECT c.checked_bytes, c.checked_seconds FROM batch_audit.checked_of(s.batch_id) AS c);
INSERT INTO batch_audit.metric_change (metric, feed, labels, value)
SELECT 'checksums', h.feed, m.labels, sum(m.value)
FROM batch_audit.checksum_sum AS s JOIN batch_audit.import_history AS h USING (batch_id),
    LATERAL (VALUES (ARRAY['valid'], s.valid), (ARRAY['invalid'], s.invalid),
        (ARRAY['recorded'], s.recorded)) AS m (labels, value)
WHERE m.value <> 0 GROUP BY 1, 2, 3;
"""
DOWNGRADE = """
DROP TRIGGER measure_checksums ON batch_audit.checksum_sum;
DROP FUNCTION batch_audit.measure_checksums();
DELETE FROM batch_audit.metric_change WHERE metric LIKE 'checksum%';
DELETE FROM batch_audit.metric_total WHERE metric LIKE 'checksum%';
CREATE OR REPLACE FUNCTION batch_audit.sum_checksums(batches uuid[]) RETURNS void LANGUAGE sql AS $$
DELETE FROM batch_audit.checksum_sum WHERE batch_id = ANY (batches);
INSERT INTO batch_audit.checksum_sum
SELECT b.batch_id, l.* FROM unnest(batches) AS b (batch_id),
    batch_audit.checksums_of(b.batch_id) AS l;
INSERT INTO batch_audit.checksum_entity_sum
SELECT b.batch_id, l.* FROM unnest(batches) AS b (batch_id),
    batch_audit.entity_checksums_of(b.batch_id) AS l;
INSERT INTO batch_audit.checksum_hour_sum
SELECT b.batch_id, l.* FROM unnest(batches) AS b (batch_id),
    batch_audit.hour_checksums_of(b.batch_id) AS l;
$$;
DROP FUNCTION batch_audit.checked_of(uuid);
ALTER TABLE batch_audit.checksum_sum DROP checked_seconds, DROP checked_bytes;
"""


def upgrade() -> None:
    """Count checksums."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Count them no more."""
    op.execute(DOWNGRADE)
