"""The ledger of the main job: batches, runs, leases, files, checksums, validation, archive."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None

# Tables that grow with every file and chunk are partitioned by month from the start: old months
# can then be archived and dropped. `ensure_month` makes the partition of a point in time; there is
# no DEFAULT partition, because it would have to be scanned whenever a month is added.
UPGRADE = """
CREATE TABLE batch_audit.import_history (
    batch_id uuid PRIMARY KEY,
    job_id text NOT NULL,
    feed text NOT NULL,
    feed_version integer NOT NULL,
    partition_key text NOT NULL,
    status text NOT NULL CHECK (status IN (
        'IN_PROGRESS', 'PUBLISHED', 'SUCCESS', 'PARTIAL_SUCCESS', 'VALIDATION_FAILED', 'FAILED',
        'DUPLICATE', 'ROLLED_BACK', 'SUPERSEDED', 'ARCHIVED')),
    attempt integer NOT NULL,
    identity text,
    duplicate_of uuid REFERENCES batch_audit.import_history,
    fingerprint text,
    requested_by text NOT NULL,
    correlation_id text NOT NULL,
    source_records bigint,
    written_records bigint,
    rejected_records bigint,
    skipped_records bigint,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    published_at timestamptz,
    completed_at timestamptz,
    rolled_back_at timestamptz,
    rolled_back_by text,
    superseded_by uuid REFERENCES batch_audit.import_history,
    rollback_possible_until timestamptz,
    error_details text,
    UNIQUE (feed, partition_key, attempt)
);
COMMENT ON TABLE batch_audit.import_history IS 'One row a batch: one attempt at loading a delivery.';
COMMENT ON COLUMN batch_audit.import_history.job_id IS
    'Id in the system the batch was adopted from, else the batch id.';
COMMENT ON COLUMN batch_audit.import_history.identity IS
    'SHA-256 over feed, version, partition key and the digests of the content.';
COMMENT ON COLUMN batch_audit.import_history.fingerprint IS
    'Names, sizes and times of the landed files: how the sensor knows a delivery again unread.';
CREATE INDEX ON batch_audit.import_history (status, started_at);
CREATE INDEX ON batch_audit.import_history (feed, identity);

CREATE TABLE batch_audit.batch_run (
    run_id uuid PRIMARY KEY,
    batch_id uuid NOT NULL REFERENCES batch_audit.import_history ON DELETE CASCADE,
    attached_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE batch_audit.batch_run IS 'Every Dagster run that worked on a batch.';
CREATE INDEX ON batch_audit.batch_run (batch_id);

CREATE TABLE batch_audit.batch_lease (
    feed text,
    partition_key text,
    token bigint NOT NULL,
    run_id uuid NOT NULL,
    holder text NOT NULL,
    lock_pid integer NOT NULL,
    lock_started_at timestamptz NOT NULL,
    work_pid integer,
    work_started_at timestamptz,
    acquired_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    released_at timestamptz,
    PRIMARY KEY (feed, partition_key)
);
COMMENT ON TABLE batch_audit.batch_lease IS 'Who works on a partition; the token fences off others.';
COMMENT ON COLUMN batch_audit.batch_lease.lock_pid IS
    'Backend that holds the session advisory lock; a pid is recycled, so its start time stands by.';

CREATE TABLE batch_audit.batch_stage (
    batch_id uuid NOT NULL REFERENCES batch_audit.import_history ON DELETE CASCADE,
    stage text NOT NULL CHECK (
        stage IN ('ingest', 'checksum', 'bulk_write', 'validate', 'archive')),
    run_id uuid NOT NULL,
    status text NOT NULL CHECK (status IN ('IN_PROGRESS', 'SUCCESS', 'FAILED')),
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    completed_at timestamptz,
    error_details text,
    PRIMARY KEY (batch_id, stage)
);
COMMENT ON TABLE batch_audit.batch_stage IS 'How far a batch has come: the last try of each stage.';

CREATE TABLE batch_audit.import_file (
    batch_id uuid NOT NULL REFERENCES batch_audit.import_history ON DELETE CASCADE,
    file_name text NOT NULL,
    target_table text NOT NULL,
    size bigint NOT NULL,
    format text NOT NULL,
    compression text,
    crc32c bigint NOT NULL,
    sha256 text NOT NULL,
    expected_crc32c bigint,
    expected_source text CHECK (expected_source IN ('manifest', 'sidecar', 'object_metadata')),
    records bigint,
    PRIMARY KEY (batch_id, file_name)
);
COMMENT ON COLUMN batch_audit.import_file.expected_crc32c IS 'What the sender promised, if anything.';
COMMENT ON COLUMN batch_audit.import_file.records IS
    'Counted by the checksum stage, independently of the parser that loads.';

CREATE TABLE batch_audit.crc32_audit (
    id bigint GENERATED ALWAYS AS IDENTITY,
    batch_id uuid,
    entity_type text NOT NULL,
    entity_id text NOT NULL,
    computed_crc32 bigint NOT NULL,
    expected_crc32 bigint,
    expected_source text CHECK (expected_source IN (
        'manifest', 'sidecar', 'object_metadata', 'ingest', 'readback')),
    status text NOT NULL CHECK (status IN ('valid', 'invalid', 'recorded')),
    bytes_processed bigint NOT NULL,
    processing_time_ms double precision NOT NULL,
    throughput_mbps double precision,
    hardware_utilized boolean NOT NULL,
    simd_instructions bigint,
    retry_count integer NOT NULL DEFAULT 0,
    error_details text,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT chk_batch_not_null CHECK (batch_id IS NOT NULL OR retry_count > 0),
    CHECK ((status = 'recorded') = (expected_crc32 IS NULL))
) PARTITION BY RANGE (created_at);
CREATE INDEX idx_crc32_batch ON batch_audit.crc32_audit (batch_id, created_at);
COMMENT ON TABLE batch_audit.crc32_audit IS
    'Every CRC32C computed: a file or chunk of it, against what it was expected to be.';
COMMENT ON COLUMN batch_audit.crc32_audit.throughput_mbps IS 'MB/s, 1 MB = 10^6 bytes.';
COMMENT ON COLUMN batch_audit.crc32_audit.simd_instructions IS
    'Derived, not counted: 8-byte CRC instructions that bytes_processed takes; null in software.';

CREATE TABLE batch_audit.batch_table (
    batch_id uuid NOT NULL REFERENCES batch_audit.import_history ON DELETE CASCADE,
    target_table text NOT NULL,
    source_records bigint NOT NULL,
    inserted bigint NOT NULL,
    updated bigint NOT NULL,
    unchanged bigint NOT NULL,
    rejected bigint NOT NULL,
    skipped bigint NOT NULL,
    superseded_within bigint NOT NULL,
    removed bigint NOT NULL,
    columns text[] NOT NULL,
    normalised text[] NOT NULL,
    digest_sum numeric NOT NULL,
    digest_moment numeric NOT NULL,
    PRIMARY KEY (batch_id, target_table),
    CONSTRAINT books_balance CHECK (
        inserted + updated + unchanged + rejected + skipped + superseded_within = source_records)
);
COMMENT ON TABLE batch_audit.batch_table IS
    'The balance of a batch in one table, and the digest of its rows as they were sent.';
COMMENT ON COLUMN batch_audit.batch_table.removed IS
    'Rows of the superseded batch that the new delivery no longer has.';
COMMENT ON COLUMN batch_audit.batch_table.columns IS
    'What the digest covers, in its order, so that a later ALTER TABLE does not break the proof.';
COMMENT ON COLUMN batch_audit.batch_table.normalised IS
    'Columns that arrived as text, proven as such, and were stored by PostgreSQL''s conversion.';

CREATE TABLE batch_audit.row_digest (
    batch_id uuid NOT NULL REFERENCES batch_audit.import_history ON DELETE CASCADE,
    target_table text NOT NULL,
    file_name text NOT NULL,
    chunk integer NOT NULL,
    first_record bigint NOT NULL,
    records bigint NOT NULL,
    digest_sum numeric NOT NULL,
    digest_moment numeric NOT NULL,
    PRIMARY KEY (batch_id, target_table, file_name, chunk)
);
COMMENT ON TABLE batch_audit.row_digest IS
    'Count, sum and second moment of the row digests of each chunk of the source.';

CREATE TABLE batch_audit.validation_log (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    batch_id uuid NOT NULL REFERENCES batch_audit.import_history ON DELETE CASCADE,
    run_id uuid NOT NULL,
    target_table text NOT NULL,
    status text NOT NULL CHECK (
        status IN ('IN_PROGRESS', 'SUCCESS', 'FAILED', 'PARTIAL_SUCCESS', 'UNVERIFIED')),
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    completed_at timestamptz,
    exception text
);
CREATE INDEX ON batch_audit.validation_log (batch_id, id);
CREATE INDEX ON batch_audit.validation_log (target_table, started_at);

CREATE TABLE batch_audit.validation_summary (
    log_id bigint PRIMARY KEY REFERENCES batch_audit.validation_log ON DELETE CASCADE,
    batch_id uuid NOT NULL REFERENCES batch_audit.import_history ON DELETE CASCADE,
    target_table text NOT NULL,
    src_records bigint,
    tgt_records bigint,
    src_extras bigint,
    tgt_extras bigint,
    mismatches bigint,
    matches bigint,
    checks jsonb NOT NULL,
    overall_status text NOT NULL CHECK (
        overall_status IN ('SUCCESS', 'FAILED', 'PARTIAL_SUCCESS', 'UNVERIFIED'))
);
CREATE INDEX ON batch_audit.validation_summary (batch_id);
COMMENT ON COLUMN batch_audit.validation_summary.src_extras IS
    'Rows only the source has, by key; null where the rows were not compared one by one.';
COMMENT ON COLUMN batch_audit.validation_summary.checks IS
    'Every check: name, SQL that anyone can run, expected, actual, status, duration.';

CREATE TABLE batch_audit.archive_manifest (
    batch_id uuid PRIMARY KEY REFERENCES batch_audit.import_history ON DELETE CASCADE,
    bag_path text NOT NULL,
    payload_files integer NOT NULL,
    payload_bytes bigint NOT NULL,
    tagmanifest_sha256 text NOT NULL,
    archived_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    verified_at timestamptz NOT NULL
);
COMMENT ON COLUMN batch_audit.archive_manifest.tagmanifest_sha256 IS
    'Digest of the bag''s tag manifest, which covers all its other digests.';

CREATE FUNCTION batch_audit.ensure_month(parent regclass, at timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    first date := date_trunc('month', at AT TIME ZONE 'UTC');
    child text := format('%s_%s', (SELECT relname FROM pg_class WHERE oid = parent),
                         to_char(first, 'YYYY_MM'));
BEGIN
    IF to_regclass(format('batch_audit.%I', child)) IS NULL THEN
        PERFORM pg_advisory_xact_lock(hashtextextended('batch_audit.ensure_month', 0));
        IF to_regclass(format('batch_audit.%I', child)) IS NULL THEN
            EXECUTE format(
                'CREATE TABLE batch_audit.%I PARTITION OF %s FOR VALUES FROM (%L) TO (%L)', child,
                parent, first::timestamp AT TIME ZONE 'UTC',
                (first + interval '1 month') AT TIME ZONE 'UTC');
        END IF;
    END IF;
END $$;
SELECT batch_audit.ensure_month('batch_audit.crc32_audit', now()),
       batch_audit.ensure_month('batch_audit.crc32_audit', now() + interval '1 month');
"""

DOWNGRADE = """
DROP FUNCTION batch_audit.ensure_month(regclass, timestamptz);
DROP TABLE batch_audit.archive_manifest, batch_audit.validation_summary,
    batch_audit.validation_log, batch_audit.row_digest, batch_audit.batch_table,
    batch_audit.crc32_audit, batch_audit.import_file, batch_audit.batch_stage,
    batch_audit.batch_lease, batch_audit.batch_run, batch_audit.import_history;
"""


def upgrade() -> None:
    """Create the ledger."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Drop the ledger with all it holds."""
    op.execute(DOWNGRADE)
