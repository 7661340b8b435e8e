"""The quarantine: records that could not be loaded, raw, each with its place and every reason."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"

UPGRADE = """
CREATE TABLE batch_audit.import_reject (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    batch_id uuid NOT NULL REFERENCES batch_audit.import_history ON DELETE CASCADE,
    feed text NOT NULL,
    target_table text NOT NULL,
    file_name text NOT NULL,
    record_number bigint NOT NULL,
    line_number bigint,
    byte_offset bigint,
    raw bytea NOT NULL,
    column_name text,
    sqlstate text NOT NULL,
    constraint_name text,
    message text NOT NULL,
    breaches json NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    replayed_at timestamptz,
    replayed_by uuid
);
CREATE UNIQUE INDEX ON batch_audit.import_reject (batch_id, file_name, record_number);
CREATE INDEX ON batch_audit.import_reject (feed, created_at);
COMMENT ON TABLE batch_audit.import_reject IS
    'The quarantine: one row a record that could not be loaded, as it was delivered.';
COMMENT ON COLUMN batch_audit.import_reject.line_number IS
    'Physical line on which the record begins, from 1; null where the format has no lines.';
COMMENT ON COLUMN batch_audit.import_reject.byte_offset IS
    'Where the record begins in the file, from 0; null where records have no place of their own.';
COMMENT ON COLUMN batch_audit.import_reject.raw IS 'The bytes delivered; of Parquet the row as JSON.';
COMMENT ON COLUMN batch_audit.import_reject.message IS
    'The first reason, which column, SQLSTATE and constraint belong to; it holds no value.';
COMMENT ON COLUMN batch_audit.import_reject.breaches IS
    'Every reason, the first one first: sqlstate, message, column, constraint.';
COMMENT ON COLUMN batch_audit.import_reject.replayed_at IS
    'When a replay loaded the record after its cause was mended; null while it is not loaded.';

CREATE VIEW batch_audit.import_reject_breach AS
SELECT r.id, r.batch_id, r.feed, r.target_table, r.file_name, r.record_number, r.replayed_at,
       b.place, b.breach ->> 'column' AS column_name, b.breach ->> 'sqlstate' AS sqlstate,
       b.breach ->> 'constraint' AS constraint_name, b.breach ->> 'message' AS message
FROM batch_audit.import_reject AS r
CROSS JOIN LATERAL json_array_elements(r.breaches) WITH ORDINALITY AS b (breach, place);
COMMENT ON VIEW batch_audit.import_reject_breach IS
    'One row a reason: a record that breaks two constraints stands here twice.';

ALTER TABLE batch_audit.import_history ADD source_bytes bigint, ADD wal_bytes bigint;
COMMENT ON COLUMN batch_audit.import_history.wal_bytes IS
    'Write-ahead log that the server wrote while the batch was published, for others too.';

CREATE VIEW batch_audit.latest_batch AS
SELECT DISTINCT ON (feed, partition_key) feed, partition_key, batch_id, status, published_at,
       written_records, rejected_records
FROM batch_audit.import_history
WHERE status IN ('SUCCESS', 'PARTIAL_SUCCESS')
ORDER BY feed, partition_key, attempt DESC;
COMMENT ON VIEW batch_audit.latest_batch IS
    'The validated batch in force of each partition: join import_batch_id with batch_id.';

ALTER TABLE batch_audit.batch_table ADD isolation_statements bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN batch_audit.batch_table.isolation_statements IS
    'Statements it took to find, by halving, records that no query over all could find.';
"""

DOWNGRADE = """
ALTER TABLE batch_audit.batch_table DROP isolation_statements;
DROP VIEW batch_audit.latest_batch;
ALTER TABLE batch_audit.import_history DROP wal_bytes, DROP source_bytes;
DROP VIEW batch_audit.import_reject_breach;
DROP TABLE batch_audit.import_reject;
"""


def upgrade() -> None:
    """Create the quarantine."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Drop the quarantine with all it holds."""
    op.execute(DOWNGRADE)
