"""Column signatures: how rows were grouped and written, defaults they took, tables within a file."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"

UPGRADE = """
CREATE TABLE batch_audit.batch_signature (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    batch_id uuid NOT NULL REFERENCES batch_audit.import_history ON DELETE CASCADE,
    target_table text NOT NULL,
    columns text[] NOT NULL,
    entries bigint NOT NULL CHECK (entries >= 0),
    bulk boolean NOT NULL,
    statements bigint NOT NULL CHECK (statements >= 0),
    fallback boolean NOT NULL,
    seconds double precision NOT NULL CHECK (seconds >= 0)
);
CREATE INDEX ON batch_audit.batch_signature (batch_id, target_table);
COMMENT ON TABLE batch_audit.batch_signature IS
    'Rows of a batch that brought the same columns and were written alike.';
COMMENT ON COLUMN batch_audit.batch_signature.bulk IS
    'Whether one statement wrote all of them, or each was written by one of its own.';
COMMENT ON COLUMN batch_audit.batch_signature.fallback IS
    'Whether the table refused them together, and single bad records were searched for.';

ALTER TABLE batch_audit.batch_table ADD filled text[] NOT NULL DEFAULT '{}';
COMMENT ON COLUMN batch_audit.batch_table.filled IS
    'Columns whose default some records took; neither the digest nor aggregates cover them.';
ALTER TABLE batch_audit.import_file ADD table_records jsonb;
COMMENT ON COLUMN batch_audit.import_file.table_records IS
    'Where each line of a file says its table: the records of each, counted like all of them.';
"""

DOWNGRADE = """
ALTER TABLE batch_audit.import_file DROP table_records;
ALTER TABLE batch_audit.batch_table DROP filled;
DROP TABLE batch_audit.batch_signature;
"""


def upgrade() -> None:
    """Make room for column signatures."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Drop it."""
    op.execute(DOWNGRADE)
