"""Critical records: rows of a batch that people were told of at once."""

from __future__ import annotations

from alembic import op

revision = "0020"
down_revision = "0019"

UPGRADE = """
ALTER TABLE batch_audit.import_history ADD critical_records bigint;
COMMENT ON COLUMN batch_audit.import_history.critical_records IS
    'Rows that fulfil a critical_when of the feed, one for each condition; null where it has none.';

CREATE TABLE batch_audit.critical_record (
    critical_record_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    batch_id uuid NOT NULL REFERENCES batch_audit.import_history ON DELETE CASCADE,
    target_table text NOT NULL,
    condition text NOT NULL,
    record_key text NOT NULL,
    alert_key text
);
CREATE UNIQUE INDEX ON batch_audit.critical_record
    (batch_id, target_table, condition, md5(record_key));
COMMENT ON TABLE batch_audit.critical_record IS
    'A row that fulfils a critical_when of its feed as it became visible, one for each condition.';
COMMENT ON COLUMN batch_audit.critical_record.record_key IS
    'Its key, or file and record where the table has none: a JSON object of texts, no other values.';
COMMENT ON COLUMN batch_audit.critical_record.alert_key IS
    'deduplication_key of the alert that tells of it; of an earlier batch where it was told then.';
"""
DOWNGRADE = """
DROP TABLE batch_audit.critical_record;
ALTER TABLE batch_audit.import_history DROP critical_records;
"""


def upgrade() -> None:
    """Make room for them."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Drop them."""
    op.execute(DOWNGRADE)
