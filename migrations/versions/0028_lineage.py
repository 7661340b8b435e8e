"""Lineage: which events of which batches a catalog outside has been told."""

from __future__ import annotations

from alembic import op

revision = "0028"
down_revision = "0027"

UPGRADE = """
CREATE TABLE batch_audit.lineage_sent (
    batch_id uuid NOT NULL REFERENCES batch_audit.import_history ON DELETE CASCADE,
    event_type text NOT NULL CHECK (event_type IN ('START', 'COMPLETE', 'FAIL', 'ABORT')),
    occurred_at timestamptz NOT NULL,
    sent_at timestamptz NOT NULL,
    PRIMARY KEY (batch_id, event_type, occurred_at)
);
COMMENT ON TABLE batch_audit.lineage_sent IS
    'An OpenLineage event of a batch that was taken; what is missing is sent within a day.';
"""
DOWNGRADE = """
DROP TABLE batch_audit.lineage_sent;
"""


def upgrade() -> None:
    """Make room for them."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Drop them; those of the last day would be sent again."""
    op.execute(DOWNGRADE)
