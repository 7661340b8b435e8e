"""Bags that were deleted when their time was over, and bags of lines of the ledger."""

from __future__ import annotations

from alembic import op

revision = "0029"
down_revision = "0028"

UPGRADE = """
ALTER TABLE batch_audit.archive_manifest
    DROP CONSTRAINT archive_manifest_kind_check,
    DROP CONSTRAINT archive_manifest_state_check,
    ADD CONSTRAINT archive_manifest_kind_check CHECK (kind IN ('bag', 'rows', 'records')),
    ADD CONSTRAINT archive_manifest_state_check
        CHECK (state IN ('VALID', 'DAMAGED', 'MISSING', 'UNVERIFIED', 'DELETED'));
COMMENT ON COLUMN batch_audit.archive_manifest.state IS
    'What was found when it was last looked at; DELETED at checked_at, when its time was over.';
"""

DOWNGRADE = """
DELETE FROM batch_audit.archive_manifest WHERE kind = 'records' OR state = 'DELETED';
ALTER TABLE batch_audit.archive_manifest
    DROP CONSTRAINT archive_manifest_kind_check,
    DROP CONSTRAINT archive_manifest_state_check,
    ADD CONSTRAINT archive_manifest_kind_check CHECK (kind IN ('bag', 'rows')),
    ADD CONSTRAINT archive_manifest_state_check
        CHECK (state IN ('VALID', 'DAMAGED', 'MISSING', 'UNVERIFIED'));
COMMENT ON COLUMN batch_audit.archive_manifest.state IS
    'What was found when it was last looked at.';
"""


def upgrade() -> None:
    """Make room for them."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Forget where they stand, or stood."""
    op.execute(DOWNGRADE)
