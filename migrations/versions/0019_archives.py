"""Every bag of a batch has a line of its own, with what was found when it was last looked at."""

from __future__ import annotations

from alembic import op

revision = "0019"
down_revision = "0018"

UPGRADE = """
ALTER TABLE batch_audit.archive_manifest RENAME bag_path TO place;
ALTER TABLE batch_audit.archive_manifest RENAME archived_at TO recorded_at;
ALTER TABLE batch_audit.archive_manifest
    DROP CONSTRAINT archive_manifest_pkey,
    ADD id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    ADD kind text NOT NULL DEFAULT 'bag' CHECK (kind IN ('bag', 'rows')),
    ADD strategy text NOT NULL DEFAULT 'compress'
        CHECK (strategy IN ('copy', 'compress', 'digests_only')),
    ADD key_id text,
    ADD state text NOT NULL DEFAULT 'VALID'
        CHECK (state IN ('VALID', 'DAMAGED', 'MISSING', 'UNVERIFIED')),
    ADD checked_at timestamptz,
    ADD problems text[] NOT NULL DEFAULT '{}',
    ADD UNIQUE (place);
UPDATE batch_audit.archive_manifest SET checked_at = verified_at;
ALTER TABLE batch_audit.archive_manifest
    ALTER checked_at SET NOT NULL,
    ALTER kind DROP DEFAULT,
    ALTER strategy DROP DEFAULT;
CREATE INDEX ON batch_audit.archive_manifest (batch_id, id);
CREATE INDEX ON batch_audit.archive_manifest (checked_at);
COMMENT ON TABLE batch_audit.archive_manifest IS
    'What was put away of a batch: bags of its delivery, one more after each replay, and of its rows.';
COMMENT ON COLUMN batch_audit.archive_manifest.place IS 'Full path or URL of the bag.';
COMMENT ON COLUMN batch_audit.archive_manifest.key_id IS
    'The public key of age for which it is encrypted; null where it is not.';
COMMENT ON COLUMN batch_audit.archive_manifest.state IS
    'What was found when it was last looked at.';
COMMENT ON COLUMN batch_audit.archive_manifest.verified_at IS
    'When all of it was last read, and was as it was sealed.';
COMMENT ON COLUMN batch_audit.archive_manifest.checked_at IS
    'When it was last looked at, whatever was found.';
COMMENT ON COLUMN batch_audit.archive_manifest.problems IS
    'What of it is not as it was sealed: files by their paths in the bag.';
"""

# The older ledger knows one bag of a batch: the newest.
DOWNGRADE = """
DELETE FROM batch_audit.archive_manifest AS a
WHERE kind <> 'bag' OR EXISTS (
    SELECT FROM batch_audit.archive_manifest AS b
    WHERE b.batch_id = a.batch_id AND b.kind = 'bag' AND b.id > a.id);
ALTER TABLE batch_audit.archive_manifest
    DROP id, DROP kind, DROP strategy, DROP key_id, DROP state, DROP checked_at, DROP problems,
    DROP CONSTRAINT archive_manifest_place_key,
    ADD PRIMARY KEY (batch_id);
ALTER TABLE batch_audit.archive_manifest RENAME place TO bag_path;
ALTER TABLE batch_audit.archive_manifest RENAME recorded_at TO archived_at;
DROP INDEX IF EXISTS batch_audit.archive_manifest_batch_id_id_idx;
COMMENT ON TABLE batch_audit.archive_manifest IS NULL;
COMMENT ON COLUMN batch_audit.archive_manifest.bag_path IS NULL;
COMMENT ON COLUMN batch_audit.archive_manifest.verified_at IS NULL;
"""


def upgrade() -> None:
    """Make room for several bags of a batch."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Keep the newest bag of each."""
    op.execute(DOWNGRADE)
