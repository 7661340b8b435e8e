"""Erasure: a person's rows removed by key, and what is kept of that without a value."""

from __future__ import annotations

from alembic import op

revision = "0038"
down_revision = "0037"

# Counts that are null while nothing was erased: roots over rows of before have no such column.
UPGRADE = """
CREATE TABLE batch_audit.erasure (
    erasure_id uuid PRIMARY KEY,
    feed text NOT NULL,
    target_table text NOT NULL,
    key_columns text[] NOT NULL,
    key_salt bytea,
    key_hash bytea,
    reason text NOT NULL CHECK (reason <> ''),
    requested_by text NOT NULL,
    state text NOT NULL DEFAULT 'IN_PROGRESS' CHECK (state IN ('IN_PROGRESS', 'DONE')),
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    completed_at timestamptz,
    CHECK (num_nulls(key_salt, key_hash) IN (0, 2)),
    CHECK ((state = 'DONE') = (completed_at IS NOT NULL)),
    CHECK (state = 'IN_PROGRESS' OR key_hash IS NULL)
);
COMMENT ON TABLE batch_audit.erasure IS
    'The erasure of a person''s rows by key: for whom it was done is not kept.';
COMMENT ON COLUMN batch_audit.erasure.key_hash IS
    'scrypt of the key with key_salt: by it the same command goes on. Forgotten when all is done.';

CREATE TABLE batch_audit.erasure_place (
    place_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    erasure_id uuid NOT NULL REFERENCES batch_audit.erasure ON DELETE CASCADE,
    kind text NOT NULL CHECK (kind IN ('rows', 'before_images', 'superseded_rows', 'quarantine',
        'bag', 'rows_bag', 'records_bag')),
    batch_id uuid REFERENCES batch_audit.import_history,
    place text,
    found bigint NOT NULL,
    erased bigint,
    positions jsonb NOT NULL DEFAULT '{}',
    dropped text[] NOT NULL DEFAULT '{}',
    state text NOT NULL DEFAULT 'FOUND' CHECK (state IN ('FOUND', 'REWRITTEN', 'ERASED')),
    new_place text,
    old_sha256 text,
    new_sha256 text,
    ended_at timestamptz
);
CREATE INDEX ON batch_audit.erasure_place (erasure_id);
CREATE INDEX ON batch_audit.erasure_place (batch_id);
COMMENT ON TABLE batch_audit.erasure_place IS
    'Where an erasure has found records of the person, how many, and how far it came there.';
COMMENT ON COLUMN batch_audit.erasure_place.batch_id IS 'The batch; null of rows typed in by hand.';
COMMENT ON COLUMN batch_audit.erasure_place.positions IS
    'Numbers of the records by file, or of lines by table: never a value.';
COMMENT ON COLUMN batch_audit.erasure_place.dropped IS
    'Delivered files that leave the bag as a whole, since single records cannot be cut out of them.';
COMMENT ON COLUMN batch_audit.erasure_place.old_sha256 IS
    'Of a bag: SHA-256 of its tag manifest before the erasure.';
COMMENT ON COLUMN batch_audit.erasure_place.new_sha256 IS
    'Of the bag that has taken its place; null where none has.';

ALTER TABLE batch_audit.values_opening DROP CONSTRAINT values_opening_purpose_check,
    ADD CONSTRAINT values_opening_purpose_check CHECK (
        purpose IN ('look', 'export', 'archive', 'erase'));

ALTER TABLE batch_audit.batch_table ADD erased bigint, ADD erased_rejects bigint;
COMMENT ON COLUMN batch_audit.batch_table.erased IS
    'Rows of the batch that were erased since; its digest is of the others. Null for none.';
COMMENT ON COLUMN batch_audit.batch_table.erased_rejects IS
    'Of the records counted as rejected, those that were erased from the quarantine. Null for none.';
"""

DOWNGRADE = """
ALTER TABLE batch_audit.batch_table DROP erased_rejects, DROP erased;
DELETE FROM batch_audit.values_opening WHERE purpose = 'erase';
ALTER TABLE batch_audit.values_opening DROP CONSTRAINT values_opening_purpose_check,
    ADD CONSTRAINT values_opening_purpose_check CHECK (purpose IN ('look', 'export', 'archive'));
DROP TABLE batch_audit.erasure_place, batch_audit.erasure;
"""


def upgrade() -> None:
    """Make room for it."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Drop it: that something was erased is then in the audit trail alone."""
    op.execute(DOWNGRADE)
