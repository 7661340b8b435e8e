"""Legal holds, and what retention has found, archived, verified and deleted."""

from __future__ import annotations

from alembic import op

revision = "0021"
down_revision = "0020"

UPGRADE = """
CREATE TABLE batch_audit.legal_hold (
    hold_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    batch_id uuid REFERENCES batch_audit.import_history,
    feed text,
    since timestamptz,
    until timestamptz,
    reason text NOT NULL CHECK (reason <> ''),
    set_by text NOT NULL,
    set_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    lift_reason text CHECK (lift_reason <> ''),
    lifted_by text,
    lifted_at timestamptz,
    CHECK (batch_id IS NULL OR (feed IS NULL AND since IS NULL AND until IS NULL)),
    CHECK (since < until),
    CHECK (num_nulls(lift_reason, lifted_by, lifted_at) IN (0, 3))
);
COMMENT ON TABLE batch_audit.legal_hold IS
    'What must not be deleted, whatever a rule says: a batch, a feed, a range of dates, everything.';
COMMENT ON COLUMN batch_audit.legal_hold.since IS
    'Batches that were worked on at or after this; null where there is no such limit.';
COMMENT ON COLUMN batch_audit.legal_hold.until IS
    'Batches that were worked on before this; null where there is no such limit.';

CREATE TABLE batch_audit.retention_chunk (
    chunk_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id uuid NOT NULL,
    batch_id uuid NOT NULL REFERENCES batch_audit.import_history ON DELETE CASCADE,
    data_class text NOT NULL CHECK (
        data_class IN ('rows', 'before_images', 'quarantine', 'ledger', 'bags')),
    state text NOT NULL DEFAULT 'FOUND' CHECK (
        state IN ('FOUND', 'ARCHIVED', 'VERIFIED', 'DELETED', 'KEPT', 'FAILED')),
    rule text NOT NULL,
    legal_source text NOT NULL,
    due_at timestamptz NOT NULL,
    records bigint NOT NULL,
    bytes bigint NOT NULL,
    place text,
    reason text,
    requested_by text NOT NULL,
    found_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    archived_at timestamptz,
    verified_at timestamptz,
    ended_at timestamptz
);
CREATE INDEX ON batch_audit.retention_chunk (batch_id, data_class);
CREATE INDEX ON batch_audit.retention_chunk (run_id);
COMMENT ON TABLE batch_audit.retention_chunk IS
    'One class of data of one batch whose time was over: how far retention came with it.';
COMMENT ON COLUMN batch_audit.retention_chunk.state IS
    'FOUND, ARCHIVED, VERIFIED (read back and compared) on the way; DELETED, KEPT or FAILED in the end.';
COMMENT ON COLUMN batch_audit.retention_chunk.rule IS
    'The longest of the rules that applied: period and what it counts from.';
COMMENT ON COLUMN batch_audit.retention_chunk.records IS
    'Rows that the plan found; of bags their files.';
COMMENT ON COLUMN batch_audit.retention_chunk.bytes IS 'Their size; of rows of tables an estimate.';
COMMENT ON COLUMN batch_audit.retention_chunk.place IS 'The bag that has what was deleted.';
COMMENT ON COLUMN batch_audit.retention_chunk.reason IS 'Why it failed, or was kept after all.';

ALTER TABLE batch_audit.import_history ADD archived_at timestamptz;
COMMENT ON COLUMN batch_audit.import_history.archived_at IS
    'When the rows of the batch left the tables for the archive.';
COMMENT ON COLUMN batch_audit.import_history.status_before IS
    'What a superseded or archived batch was: it is that again when it comes back.';
"""

DOWNGRADE = """
ALTER TABLE batch_audit.import_history DROP archived_at;
COMMENT ON COLUMN batch_audit.import_history.status_before IS
    'What a superseded batch was; it is that again when the one that superseded it is rolled back.';
DROP TABLE batch_audit.retention_chunk, batch_audit.legal_hold;
"""


def upgrade() -> None:
    """Make room for them."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Drop them: holds are forgotten."""
    op.execute(DOWNGRADE)
