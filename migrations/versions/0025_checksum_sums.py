"""Sums of the checksums of each batch, so that questions about all batches read no single checksum."""

from __future__ import annotations

from alembic import op

revision = "0025"
down_revision = "0024"

TABLES = """
CREATE TABLE batch_audit.checksum_sum (
    batch_id uuid PRIMARY KEY REFERENCES batch_audit.import_history ON DELETE CASCADE,
    total_files bigint NOT NULL,
    total_checks bigint NOT NULL,
    valid bigint NOT NULL,
    invalid bigint NOT NULL,
    recorded bigint NOT NULL,
    file_count bigint,
    avg_throughput_mbps double precision,
    avg_latency_ms double precision,
    total_bytes numeric,
    hardware_utilization_pct numeric,
    total_simd_instructions numeric
);
COMMENT ON TABLE batch_audit.checksum_sum IS
    'What batch_integrity and batch_throughput say of a batch, written with its checksums.';
CREATE TABLE batch_audit.checksum_entity_sum (
    batch_id uuid NOT NULL REFERENCES batch_audit.checksum_sum ON DELETE CASCADE,
    entity_type text NOT NULL,
    batch_start timestamptz NOT NULL,
    batch_end timestamptz NOT NULL,
    total_validations bigint NOT NULL,
    valid_count bigint NOT NULL,
    not_compared bigint NOT NULL,
    PRIMARY KEY (batch_id, entity_type)
);
CREATE INDEX ON batch_audit.checksum_entity_sum (batch_start);
COMMENT ON TABLE batch_audit.checksum_entity_sum IS 'What entity_compliance says of a batch.';
CREATE TABLE batch_audit.checksum_hour_sum (
    batch_id uuid NOT NULL REFERENCES batch_audit.checksum_sum ON DELETE CASCADE,
    hour timestamptz NOT NULL,
    compared bigint NOT NULL,
    valid bigint NOT NULL,
    throughput_sum double precision NOT NULL,
    throughput_count bigint NOT NULL,
    PRIMARY KEY (batch_id, hour)
);
CREATE INDEX ON batch_audit.checksum_hour_sum (hour);
CREATE INDEX legal_hold_batch ON batch_audit.legal_hold (batch_id) WHERE batch_id IS NOT NULL;
COMMENT ON TABLE batch_audit.checksum_hour_sum IS 'The part that a batch has in hourly_success.';
"""

# Functions and not views: their batch is a parameter of the innermost query, where no planner takes the
# condition out, groups all checksums there are, and picks the batch's afterwards. An entity is several
# times in crc32_audit (chunks of it, what ingest saw, what the sender promised); what is said of sizes
# counts it once, and parts not at all.
SUMS = """
CREATE FUNCTION batch_audit.checksums_of(batch uuid)
RETURNS TABLE (total_files bigint, total_checks bigint, valid bigint, invalid bigint,
    recorded bigint, file_count bigint, avg_throughput_mbps double precision,
    avg_latency_ms double precision, total_bytes numeric, hardware_utilization_pct numeric,
    total_simd_instructions numeric)
LANGUAGE sql STABLE AS $$
SELECT a.total_files, a.total_checks, a.valid, a.invalid, a.recorded, t.file_count,
       t.avg_throughput_mbps, t.avg_latency_ms, t.total_bytes, t.hardware_utilization_pct,
       t.total_simd_instructions
FROM (SELECT count(DISTINCT c.entity_id)
                 FILTER (WHERE c.entity_type NOT IN ('chunk', 'row')) AS total_files,
             count(*) AS total_checks, count(*) FILTER (WHERE c.status = 'valid') AS valid,
             count(*) FILTER (WHERE c.status = 'invalid') AS invalid,
             count(*) FILTER (WHERE c.status = 'recorded') AS recorded
      FROM batch_audit.crc32_audit AS c WHERE c.batch_id = $1) AS a,
     (SELECT count(*) AS file_count, avg(l.throughput_mbps) AS avg_throughput_mbps,
             avg(l.processing_time_ms) AS avg_latency_ms, sum(l.bytes_processed) AS total_bytes,
             round(avg(l.hardware_utilized::int) * 100, 1) AS hardware_utilization_pct,
             sum(l.simd_instructions) AS total_simd_instructions
      FROM (SELECT DISTINCT ON (c.entity_type, c.entity_id) c.throughput_mbps, c.processing_time_ms,
                   c.bytes_processed, c.hardware_utilized, c.simd_instructions
            FROM batch_audit.crc32_audit AS c
            WHERE c.batch_id = $1 AND c.entity_type NOT IN ('chunk', 'row')
            ORDER BY c.entity_type, c.entity_id, c.created_at DESC, c.id DESC) AS l) AS t
WHERE a.total_checks > 0
$$;
CREATE FUNCTION batch_audit.entity_checksums_of(batch uuid)
RETURNS TABLE (entity_type text, batch_start timestamptz, batch_end timestamptz,
    total_validations bigint, valid_count bigint, not_compared bigint)
LANGUAGE sql STABLE AS $$
SELECT c.entity_type, min(c.created_at), max(c.created_at), count(*),
       count(*) FILTER (WHERE c.status = 'valid'), count(*) FILTER (WHERE c.status = 'recorded')
FROM batch_audit.crc32_audit AS c WHERE c.batch_id = $1 GROUP BY 1
$$;
CREATE FUNCTION batch_audit.hour_checksums_of(batch uuid)
RETURNS TABLE (hour timestamptz, compared bigint, valid bigint,
    throughput_sum double precision, throughput_count bigint)
LANGUAGE sql STABLE AS $$
SELECT date_trunc('hour', c.created_at, 'UTC'), count(*) FILTER (WHERE c.status <> 'recorded'),
       count(*) FILTER (WHERE c.status = 'valid'), coalesce(sum(c.throughput_mbps), 0),
       count(c.throughput_mbps)
FROM batch_audit.crc32_audit AS c WHERE c.batch_id = $1 GROUP BY 1
$$;
COMMENT ON FUNCTION batch_audit.checksums_of IS 'What checksum_sum is made of, computed now.';
COMMENT ON FUNCTION batch_audit.entity_checksums_of IS
    'What checksum_entity_sum is made of, computed now.';
COMMENT ON FUNCTION batch_audit.hour_checksums_of IS 'What checksum_hour_sum is made of, computed now.';
CREATE VIEW batch_audit.unsummed_batch AS
SELECT h.batch_id FROM batch_audit.import_history AS h
WHERE NOT EXISTS (SELECT FROM batch_audit.checksum_sum AS s WHERE s.batch_id = h.batch_id);
COMMENT ON VIEW batch_audit.unsummed_batch IS
    'Batches without sums, whose checksums were written by others than us, or that have none.';

CREATE FUNCTION batch_audit.sum_checksums(batches uuid[]) RETURNS void LANGUAGE sql AS $$
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
COMMENT ON FUNCTION batch_audit.sum_checksums IS
    'Sum up the checksums of batches, in place of earlier sums; whoever writes checksums calls it.';
SELECT batch_audit.sum_checksums(array_agg(batch_id)) FROM batch_audit.import_history
WHERE adopted_from IS NULL;
"""

VIEWS = """
CREATE OR REPLACE VIEW batch_audit.batch_integrity AS
SELECT a.batch_id, h.feed, h.partition_key, h.status, a.total_files, a.total_checks, a.valid, a.invalid,
       a.recorded
FROM (SELECT * FROM batch_audit.checksum_sum
      UNION ALL
      SELECT u.batch_id, l.* FROM batch_audit.unsummed_batch AS u,
          batch_audit.checksums_of(u.batch_id) AS l) AS a
JOIN batch_audit.import_history AS h ON h.batch_id = a.batch_id;

CREATE OR REPLACE VIEW batch_audit.batch_throughput AS
SELECT batch_id, file_count, avg_throughput_mbps, avg_latency_ms, total_bytes,
       hardware_utilization_pct, total_simd_instructions
FROM (SELECT * FROM batch_audit.checksum_sum
      UNION ALL
      SELECT u.batch_id, l.* FROM batch_audit.unsummed_batch AS u,
          batch_audit.checksums_of(u.batch_id) AS l) AS a
WHERE file_count > 0;

CREATE OR REPLACE VIEW batch_audit.entity_compliance AS
SELECT batch_id, entity_type, batch_start, batch_end, total_validations, valid_count, not_compared,
       round(100.0 * valid_count / nullif(total_validations - not_compared, 0), 2) AS success_rate
FROM (SELECT * FROM batch_audit.checksum_entity_sum
      UNION ALL
      SELECT u.batch_id, l.* FROM batch_audit.unsummed_batch AS u,
          batch_audit.entity_checksums_of(u.batch_id) AS l) AS a;

CREATE OR REPLACE VIEW batch_audit.hourly_success AS
SELECT hour, count(*) AS batches_per_hour, sum(compared)::bigint AS total_validations,
       round(100.0 * sum(valid) / nullif(sum(compared), 0), 2) AS success_rate,
       sum(throughput_sum) / nullif(sum(throughput_count), 0)::float8 AS avg_throughput_mbps
FROM (SELECT * FROM batch_audit.checksum_hour_sum
      UNION ALL
      SELECT u.batch_id, l.* FROM batch_audit.unsummed_batch AS u,
          batch_audit.hour_checksums_of(u.batch_id) AS l) AS a
GROUP BY hour;
"""

# As they were: of each batch by its checksums.
OLD_VIEWS = """
CREATE OR REPLACE VIEW batch_audit.batch_integrity AS
SELECT a.batch_id, h.feed, h.partition_key, h.status, a.total_files, a.total_checks, a.valid, a.invalid,
       a.recorded
FROM (SELECT batch_id,
             count(DISTINCT entity_id) FILTER (WHERE entity_type NOT IN ('chunk', 'row')) AS total_files,
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
      FROM batch_audit.crc32_audit WHERE entity_type NOT IN ('chunk', 'row')
      ORDER BY batch_id, entity_type, entity_id, created_at DESC, id DESC) AS a
GROUP BY batch_id;

CREATE OR REPLACE VIEW batch_audit.entity_compliance AS
SELECT batch_id, entity_type, min(created_at) AS batch_start, max(created_at) AS batch_end,
       count(*) AS total_validations, count(*) FILTER (WHERE status = 'valid') AS valid_count,
       count(*) FILTER (WHERE status = 'recorded') AS not_compared,
       round(100.0 * count(*) FILTER (WHERE status = 'valid')
             / nullif(count(*) FILTER (WHERE status <> 'recorded'), 0), 2) AS success_rate
FROM batch_audit.crc32_audit GROUP BY batch_id, entity_type;

CREATE OR REPLACE VIEW batch_audit.hourly_success AS
SELECT date_trunc('hour', created_at, 'UTC') AS hour, count(DISTINCT batch_id) AS batches_per_hour,
       count(*) FILTER (WHERE status <> 'recorded') AS total_validations,
       round(100.0 * count(*) FILTER (WHERE status = 'valid')
             / nullif(count(*) FILTER (WHERE status <> 'recorded'), 0), 2) AS success_rate,
       avg(throughput_mbps) AS avg_throughput_mbps
FROM batch_audit.crc32_audit GROUP BY 1;
"""
DOWNGRADE = """
DROP INDEX batch_audit.legal_hold_batch;
DROP FUNCTION batch_audit.sum_checksums(uuid[]);
DROP VIEW batch_audit.unsummed_batch;
DROP FUNCTION batch_audit.hour_checksums_of(uuid), batch_audit.entity_checksums_of(uuid),
    batch_audit.checksums_of(uuid);
DROP TABLE batch_audit.checksum_hour_sum, batch_audit.checksum_entity_sum, batch_audit.checksum_sum;
"""


def upgrade() -> None:
    """Sum up what there is."""
    op.execute(TABLES)
    op.execute(SUMS)
    op.execute(VIEWS)


def downgrade() -> None:
    """Drop the sums; the views read the checksums again."""
    op.execute(OLD_VIEWS)
    op.execute(DOWNGRADE)
