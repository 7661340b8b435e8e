"""Which small files were gathered into which batch."""

from __future__ import annotations

from alembic import op

revision = "0018"
down_revision = "0017"

UPGRADE = """
CREATE TABLE batch_audit.gathered_file (
    feed text,
    file_name text,
    partition_key text NOT NULL,
    gathered_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (feed, file_name)
);
CREATE INDEX ON batch_audit.gathered_file (feed, partition_key);
COMMENT ON TABLE batch_audit.gathered_file IS
    'Which files of a feed that gathers them make which partition; a name is in one for ever.';
"""


def upgrade() -> None:
    """Make room for gathered files."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Drop them; what lies in landing would be gathered anew."""
    op.execute("DROP TABLE batch_audit.gathered_file")
