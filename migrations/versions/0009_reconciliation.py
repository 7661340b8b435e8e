"""Reconciliation: validation of batches that another system has loaded, in the same log."""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"

UPGRADE = """
ALTER TABLE batch_audit.validation_log
    ALTER batch_id DROP NOT NULL,
    ALTER run_id DROP NOT NULL,
    ADD feed text,
    ADD requested_by text,
    ADD CHECK ((batch_id IS NULL) = (feed IS NOT NULL));
COMMENT ON COLUMN batch_audit.validation_log.batch_id IS
    'The batch; null where another system loaded the rows: then reconciled_batch has its batch ids.';
COMMENT ON COLUMN batch_audit.validation_log.run_id IS
    'The Dagster run that did it; null where the command line did.';
COMMENT ON COLUMN batch_audit.validation_log.feed IS
    'The feed by which rows that another system loaded were compared.';
ALTER TABLE batch_audit.validation_summary ALTER batch_id DROP NOT NULL;

CREATE TABLE batch_audit.reconciled_batch (
    log_id bigint NOT NULL REFERENCES batch_audit.validation_log ON DELETE CASCADE,
    feed text NOT NULL,
    target_table text NOT NULL,
    batch_load_id text NOT NULL,
    PRIMARY KEY (log_id, batch_load_id)
);
CREATE INDEX ON batch_audit.reconciled_batch (feed, target_table, batch_load_id, log_id);
COMMENT ON TABLE batch_audit.reconciled_batch IS
    'A batch of another system in an entry of validation_log; several where compared together.';
COMMENT ON COLUMN batch_audit.reconciled_batch.batch_load_id IS
    'The id that the other system gave its batch.';
"""

DOWNGRADE = """
DROP TABLE batch_audit.reconciled_batch;
DELETE FROM batch_audit.validation_log WHERE batch_id IS NULL;
ALTER TABLE batch_audit.validation_summary ALTER batch_id SET NOT NULL;
ALTER TABLE batch_audit.validation_log
    DROP feed,
    DROP requested_by,
    ALTER run_id SET NOT NULL,
    ALTER batch_id SET NOT NULL;
COMMENT ON COLUMN batch_audit.validation_log.batch_id IS NULL;
COMMENT ON COLUMN batch_audit.validation_log.run_id IS NULL;
"""


def upgrade() -> None:
    """Make room for batches of other systems."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Drop what was found of them."""
    op.execute(DOWNGRADE)
