"""Thresholds over batches: what state each is in, and every change."""

from __future__ import annotations

from alembic import op

revision = "0013"
down_revision = "0012"

UPGRADE = """
CREATE TABLE batch_audit.threshold_event (
    event_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    scope text NOT NULL,
    measure text NOT NULL,
    state_before text NOT NULL CHECK (state_before IN ('ok', 'warn', 'breach')),
    state text NOT NULL CHECK (state IN ('ok', 'warn', 'breach')),
    value double precision NOT NULL,
    warn_at double precision,
    breach_at double precision,
    batch_id uuid REFERENCES batch_audit.import_history ON DELETE SET NULL,
    actions text[] NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL,
    CHECK (state <> state_before)
);
CREATE INDEX ON batch_audit.threshold_event (scope, measure, event_id);
CREATE INDEX ON batch_audit.threshold_event (created_at) WHERE 'roll_back' = ANY(actions);
CREATE INDEX ON batch_audit.threshold_event (batch_id);
COMMENT ON TABLE batch_audit.threshold_event IS 'A change of a threshold''s state, and what was done.';
COMMENT ON COLUMN batch_audit.threshold_event.scope IS 'The feed; * stands for all of them together.';
COMMENT ON COLUMN batch_audit.threshold_event.batch_id IS
    'The newest batch that the value is made of.';

CREATE TABLE batch_audit.threshold_state (
    scope text NOT NULL,
    measure text NOT NULL,
    state text NOT NULL CHECK (state IN ('ok', 'warn', 'breach')),
    value double precision NOT NULL,
    warn_at double precision,
    breach_at double precision,
    event_id bigint REFERENCES batch_audit.threshold_event,
    PRIMARY KEY (scope, measure)
);
COMMENT ON TABLE batch_audit.threshold_state IS 'Where each threshold stands; see threshold_event.';
COMMENT ON COLUMN batch_audit.threshold_state.value IS
    'As it was when it last changed; shares are in percent.';

CREATE INDEX import_history_completed ON batch_audit.import_history (completed_at);
CREATE INDEX import_history_feed_completed ON batch_audit.import_history (feed, completed_at);
CREATE INDEX crc32_audit_invalid ON batch_audit.crc32_audit (batch_id) WHERE status = 'invalid';
"""

DOWNGRADE = """
DROP INDEX batch_audit.crc32_audit_invalid, batch_audit.import_history_feed_completed,
    batch_audit.import_history_completed;
DROP TABLE batch_audit.threshold_state, batch_audit.threshold_event;
"""


def upgrade() -> None:
    """Make room for thresholds."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Drop them; all are ok again."""
    op.execute(DOWNGRADE)
