"""Details of an alert keep the order in which they are told."""

from __future__ import annotations

from alembic import op

revision = "0015"
down_revision = "0014"

# jsonb sorts its keys.
UPGRADE = """
ALTER TABLE batch_audit.alert ALTER details DROP DEFAULT;
ALTER TABLE batch_audit.alert ALTER details TYPE json USING details::json;
ALTER TABLE batch_audit.alert ALTER details SET DEFAULT '{}';
"""
DOWNGRADE = """
ALTER TABLE batch_audit.alert ALTER details DROP DEFAULT;
ALTER TABLE batch_audit.alert ALTER details TYPE jsonb USING details::jsonb;
ALTER TABLE batch_audit.alert ALTER details SET DEFAULT '{}';
"""


def upgrade() -> None:
    """Keep the order."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Sort them again."""
    op.execute(DOWNGRADE)
