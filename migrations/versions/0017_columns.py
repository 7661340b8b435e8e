"""How true columns keep what is sent, and those that the server changes; a feed's recent batches."""

from __future__ import annotations

from alembic import op

revision = "0017"
down_revision = "0016"

UPGRADE = """
ALTER TABLE batch_audit.batch_table ADD server_changed text[] NOT NULL DEFAULT '{}';
COMMENT ON COLUMN batch_audit.batch_table.server_changed IS
    'Columns that the feed said the server changes: nothing is proven of them.';

CREATE TABLE batch_audit.batch_column (
    batch_id uuid NOT NULL REFERENCES batch_audit.import_history ON DELETE CASCADE,
    target_table text NOT NULL,
    column_name text NOT NULL,
    place integer NOT NULL,
    fidelity text NOT NULL CHECK (fidelity IN (
        'exact', 'normalised', 'lossy', 'server_changed', 'filled', 'computed')),
    reason text NOT NULL,
    PRIMARY KEY (batch_id, target_table, column_name)
);
CREATE INDEX import_history_feed_started ON batch_audit.import_history (feed, started_at);
COMMENT ON TABLE batch_audit.batch_column IS
    'How true a column keeps what a batch brings; written before the batch is published.';
COMMENT ON COLUMN batch_audit.batch_column.fidelity IS
    'exact: the very value; normalised: the same, written otherwise; lossy: may be rounded; '
    'server_changed, as the feed says; filled: some are defaults; computed: all are PostgreSQL''s own.';
"""
# A table of which some column is not proven was validated all the same.
FAILED = """
CREATE OR REPLACE VIEW batch_audit.failed_batch AS
SELECT h.batch_id, h.feed, h.partition_key, h.attempt, h.status, h.error_details, h.started_at,
       v.target_table, v.status AS validation_status, v.started_at AS validation_started_at, v.exception
FROM batch_audit.import_history AS h
LEFT JOIN (SELECT DISTINCT ON (batch_id, target_table)
                  batch_id, target_table, status, started_at, exception
           FROM batch_audit.validation_log ORDER BY batch_id, target_table, id DESC) AS v
    ON v.batch_id = h.batch_id AND {condition}
WHERE h.status IN ('FAILED', 'VALIDATION_FAILED') OR v.target_table IS NOT NULL;
"""
_NOW = "(v.status = 'FAILED' OR v.status = 'UNVERIFIED' AND v.exception IS NOT NULL)"
_BEFORE = "v.status IN ('FAILED', 'UNVERIFIED')"


def upgrade() -> None:
    """Make room for what is known of columns."""
    op.execute(UPGRADE)
    op.execute(FAILED.format(condition=_NOW))


def downgrade() -> None:
    """Drop it."""
    op.execute(FAILED.format(condition=_BEFORE))
    op.execute("DROP TABLE batch_audit.batch_column")
    op.execute("DROP INDEX batch_audit.import_history_feed_started")
    op.execute("ALTER TABLE batch_audit.batch_table DROP server_changed")
