"""Why a batch failed as one word, leases found fast, and partitions that people want to be run again."""

from __future__ import annotations

from alembic import op

revision = "0016"
down_revision = "0015"

UPGRADE = """
ALTER TABLE batch_audit.import_history ADD failure_cause text;
ALTER TABLE batch_audit.batch_stage ADD failure_cause text;
COMMENT ON COLUMN batch_audit.import_history.failure_cause IS
    'Why it failed, as one word of docs/recovery.md; null where it did not, or was not classified.';

CREATE INDEX batch_stage_failed ON batch_audit.batch_stage (batch_id) WHERE status = 'FAILED';
CREATE INDEX batch_lease_held ON batch_audit.batch_lease (feed, partition_key)
    WHERE released_at IS NULL;

CREATE TABLE batch_audit.rerun_request (
    feed text,
    partition_key text,
    occasion text,
    requested_by text NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (feed, partition_key, occasion)
);
COMMENT ON TABLE batch_audit.rerun_request IS
    'A failed partition that somebody wants to be run again, at the sensor''s next tick.';
COMMENT ON COLUMN batch_audit.rerun_request.occasion IS
    'Batch and number of tries that he saw: what was tried again since is no longer meant.';
"""
DOWNGRADE = """
DROP TABLE batch_audit.rerun_request;
DROP INDEX batch_audit.batch_lease_held, batch_audit.batch_stage_failed;
ALTER TABLE batch_audit.batch_stage DROP failure_cause;
ALTER TABLE batch_audit.import_history DROP failure_cause;
"""


def upgrade() -> None:
    """Make room for causes and requests."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Drop it."""
    op.execute(DOWNGRADE)
