"""Write-audit-publish: rows that wait, in a schema of their own, until validation has passed."""

from __future__ import annotations

from alembic import op

revision = "0014"
down_revision = "0013"

# A new schema is its owner's alone: rows that wait are seen by who loads them.
UPGRADE = """
CREATE SCHEMA batch_staging;
COMMENT ON SCHEMA batch_staging IS
    'Rows of batches whose feeds say `publish: after_validation`, until they are published.';

CREATE TABLE batch_audit.staged_table (
    batch_id uuid NOT NULL REFERENCES batch_audit.import_history ON DELETE CASCADE,
    target_table text NOT NULL,
    staging_table text NOT NULL UNIQUE,
    purpose text NOT NULL CHECK (purpose IN ('load', 'replay')),
    layout jsonb NOT NULL,
    records bigint NOT NULL,
    digest_sum numeric NOT NULL,
    digest_moment numeric NOT NULL,
    source_sum numeric NOT NULL,
    source_moment numeric NOT NULL,
    chunks jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (batch_id, target_table)
);
COMMENT ON TABLE batch_audit.staged_table IS
    'A table of the schema batch_staging, in which rows of a batch wait until validation has passed.';
COMMENT ON COLUMN batch_audit.staged_table.purpose IS
    'Whether the batch is loaded, or records that had been set aside are replayed.';
COMMENT ON COLUMN batch_audit.staged_table.layout IS
    'What the rows were judged as: columns and their types, column signatures, key, files.';
COMMENT ON COLUMN batch_audit.staged_table.digest_sum IS
    'Of all columns as they wait; source_sum is of the rows as they were sent.';
COMMENT ON COLUMN batch_audit.staged_table.chunks IS
    'Digests of the source''s chunks, without the records that were set aside.';
"""

DOWNGRADE = """
DROP TABLE batch_audit.staged_table;
DROP SCHEMA batch_staging CASCADE;
"""


def upgrade() -> None:
    """Make room for rows that wait."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Drop it; batches whose rows wait have to be imported again."""
    op.execute(DOWNGRADE)
