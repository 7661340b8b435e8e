"""Write modes: the images of rows before an upsert, and records skipped because their key was taken."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"

UPGRADE = """
CREATE TABLE batch_audit.row_before_image (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    batch_id uuid NOT NULL REFERENCES batch_audit.import_history ON DELETE CASCADE,
    target_table text NOT NULL,
    row_key jsonb NOT NULL,
    image jsonb NOT NULL,
    previous_batch_id uuid,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE UNIQUE INDEX ON batch_audit.row_before_image (batch_id, target_table, row_key);
COMMENT ON TABLE batch_audit.row_before_image IS
    'What a batch overwrote: one row for each row that was there before.';
COMMENT ON COLUMN batch_audit.row_before_image.row_key IS 'The key''s columns, each value as text.';
COMMENT ON COLUMN batch_audit.row_before_image.image IS
    'All columns but the stamp, each value as PostgreSQL writes it as text; null is null.';
COMMENT ON COLUMN batch_audit.row_before_image.previous_batch_id IS
    'The stamp before; null where the row was not written by a batch.';

ALTER TABLE batch_audit.import_reject ADD skipped boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN batch_audit.import_reject.skipped IS
    'Whether the feed has the record passed over because its key was taken; it counts as skipped then.';
CREATE OR REPLACE VIEW batch_audit.import_reject_breach AS
SELECT r.id, r.batch_id, r.feed, r.target_table, r.file_name, r.record_number, r.replayed_at,
       b.place, b.breach ->> 'column' AS column_name, b.breach ->> 'sqlstate' AS sqlstate,
       b.breach ->> 'constraint' AS constraint_name, b.breach ->> 'message' AS message
FROM batch_audit.import_reject AS r
CROSS JOIN LATERAL json_array_elements(r.breaches) WITH ORDINALITY AS b (breach, place)
WHERE NOT r.skipped;
"""

DOWNGRADE = """
DELETE FROM batch_audit.import_reject WHERE skipped;
CREATE OR REPLACE VIEW batch_audit.import_reject_breach AS
SELECT r.id, r.batch_id, r.feed, r.target_table, r.file_name, r.record_number, r.replayed_at,
       b.place, b.breach ->> 'column' AS column_name, b.breach ->> 'sqlstate' AS sqlstate,
       b.breach ->> 'constraint' AS constraint_name, b.breach ->> 'message' AS message
FROM batch_audit.import_reject AS r
CROSS JOIN LATERAL json_array_elements(r.breaches) WITH ORDINALITY AS b (breach, place);
ALTER TABLE batch_audit.import_reject DROP skipped;
DROP TABLE batch_audit.row_before_image;
"""


def upgrade() -> None:
    """Make room for what write modes leave."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Drop it."""
    op.execute(DOWNGRADE)
