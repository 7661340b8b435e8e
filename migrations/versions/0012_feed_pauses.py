"""Feeds that are paused, and indexes for how channels do."""

from __future__ import annotations

from alembic import op

revision = "0012"
down_revision = "0011"

UPGRADE = """
CREATE TABLE batch_audit.feed_pause (
    pause_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    feed text NOT NULL,
    reason text NOT NULL,
    paused_by text NOT NULL,
    paused_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    resumed_by text,
    resumed_at timestamptz,
    CHECK ((resumed_at IS NULL) = (resumed_by IS NULL))
);
CREATE UNIQUE INDEX ON batch_audit.feed_pause (feed) WHERE resumed_at IS NULL;
CREATE INDEX ON batch_audit.feed_pause (feed, resumed_at);
COMMENT ON TABLE batch_audit.feed_pause IS
    'When a feed was paused: no new batch of it is begun until it is resumed.';

CREATE INDEX alert_attempt_channel ON batch_audit.alert_attempt (channel, completed_at)
    WHERE error_details IS NOT NULL;
CREATE INDEX alert_delivery_channel ON batch_audit.alert_delivery (channel, sent_at);
"""

DOWNGRADE = """
DROP INDEX batch_audit.alert_delivery_channel, batch_audit.alert_attempt_channel;
DROP TABLE batch_audit.feed_pause;
"""


def upgrade() -> None:
    """Make room for pauses."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Drop them; every feed runs again."""
    op.execute(DOWNGRADE)
