"""Opened rejects have every column, so that retention can put them away as they are."""

from __future__ import annotations

from alembic import op

revision = "0039"
down_revision = "0038"

_VIEW = """
CREATE OR REPLACE VIEW batch_audit.opened_reject WITH (security_barrier) AS
SELECT id, batch_id, feed, target_table, file_name, record_number, line_number, byte_offset, raw,
       column_name, sqlstate, constraint_name, message, breaches, created_at, replayed_at, replayed_by,
       skipped{more}
FROM batch_audit.import_reject WHERE batch_id = (SELECT batch_audit.opened_batch());
COMMENT ON VIEW batch_audit.opened_reject IS
    'Rejects with their values, of the batch that this session has opened by open_values.';
"""
UPGRADE = _VIEW.format(more=", raw_bytes")
DOWNGRADE = "DROP VIEW batch_audit.opened_reject;" + _VIEW.format(more="")


def upgrade() -> None:
    """Add the column that the view lacks."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Take it away; the next upgrade gives each role its rights again."""
    op.execute(DOWNGRADE)
