"""Alerts for those who may see no key of a row, which those of critical rows name."""

from __future__ import annotations

from alembic import op

revision = "0037"
down_revision = "0036"

UPGRADE = """
CREATE VIEW batch_audit.alert_told AS
SELECT alert_id, kind, severity, feed, batch_id,
       CASE WHEN kind = 'critical_row' AND details->>'record' IS NOT NULL
            THEN format('%s is critical in a row of %s', details->>'condition', details->>'table')
            ELSE subject END AS subject,
       occurred_at, raised_at, escalated_at, acknowledged_at, acknowledged_by,
       acknowledgement_note, resolved_at
FROM batch_audit.alert;
COMMENT ON VIEW batch_audit.alert_told IS
    'Alerts without the keys of rows: of a critical row its condition and its table.';
"""


def upgrade() -> None:
    """Create the view."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Drop it."""
    op.execute("DROP VIEW batch_audit.alert_told")
