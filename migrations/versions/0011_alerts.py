"""Alerts: what people are to be told, on which channels, and what became of the telling."""

from __future__ import annotations

from alembic import op

revision = "0011"
down_revision = "0010"

UPGRADE = """
CREATE TABLE batch_audit.alert (
    alert_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    deduplication_key text NOT NULL UNIQUE,
    kind text NOT NULL,
    severity text NOT NULL CHECK (severity IN ('info', 'warning', 'critical')),
    feed text,
    batch_id uuid REFERENCES batch_audit.import_history ON DELETE SET NULL,
    subject text NOT NULL,
    details jsonb NOT NULL DEFAULT '{}',
    channels text[] NOT NULL DEFAULT '{}',
    escalate_after interval,
    escalate_to text[] NOT NULL DEFAULT '{}',
    occurred_at timestamptz NOT NULL,
    raised_at timestamptz NOT NULL,
    routed_at timestamptz,
    escalated_at timestamptz,
    acknowledged_at timestamptz,
    acknowledged_by text,
    acknowledgement_note text,
    resolved_at timestamptz,
    CHECK ((acknowledged_at IS NULL) = (acknowledged_by IS NULL)),
    CHECK (acknowledgement_note IS NULL OR acknowledged_at IS NOT NULL)
);
CREATE INDEX ON batch_audit.alert (raised_at);
CREATE INDEX ON batch_audit.alert (feed, raised_at);
CREATE INDEX ON batch_audit.alert (batch_id) WHERE batch_id IS NOT NULL;
CREATE INDEX ON batch_audit.alert (raised_at) WHERE routed_at IS NULL;
CREATE INDEX ON batch_audit.alert (raised_at)
    WHERE escalate_after IS NOT NULL AND escalated_at IS NULL
        AND acknowledged_at IS NULL AND resolved_at IS NULL;
COMMENT ON TABLE batch_audit.alert IS 'What people are to be told; each occasion once.';
COMMENT ON COLUMN batch_audit.alert.deduplication_key IS
    'The occasion: raised again under the same key it is the same alert. Every message has it.';
COMMENT ON COLUMN batch_audit.alert.feed IS 'The feed; null where it is about the whole.';
COMMENT ON COLUMN batch_audit.alert.details IS 'Counts, names and places; never a value of a row.';
COMMENT ON COLUMN batch_audit.alert.channels IS
    'Names of channels or roles to tell; none stands for the default.';
COMMENT ON COLUMN batch_audit.alert.occurred_at IS
    'When what it tells of happened: from it to the first sent_at is how long telling took.';
COMMENT ON COLUMN batch_audit.alert.routed_at IS 'When the sender chose its channels.';
COMMENT ON COLUMN batch_audit.alert.resolved_at IS
    'When its cause was gone: nobody needs to acknowledge it any more.';

CREATE TABLE batch_audit.alert_delivery (
    alert_id bigint NOT NULL REFERENCES batch_audit.alert ON DELETE CASCADE,
    channel text NOT NULL,
    escalation boolean NOT NULL,
    status text NOT NULL CHECK (status IN ('WAITING', 'SENT', 'GAVE_UP')),
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz,
    sent_at timestamptz,
    error_details text,
    PRIMARY KEY (alert_id, channel, escalation),
    CHECK ((status = 'WAITING') = (next_attempt_at IS NOT NULL)),
    CHECK ((status = 'SENT') = (sent_at IS NOT NULL))
);
CREATE INDEX ON batch_audit.alert_delivery (next_attempt_at) WHERE status = 'WAITING';
COMMENT ON TABLE batch_audit.alert_delivery IS 'An alert on its way to one channel.';
COMMENT ON COLUMN batch_audit.alert_delivery.channel IS 'Its name; its URL is a secret.';
COMMENT ON COLUMN batch_audit.alert_delivery.next_attempt_at IS
    'When to send it; while somebody sends it, when others may take it that he has died.';

CREATE TABLE batch_audit.alert_attempt (
    alert_id bigint NOT NULL,
    channel text NOT NULL,
    escalation boolean NOT NULL,
    attempt integer NOT NULL,
    started_at timestamptz NOT NULL,
    completed_at timestamptz,
    error_details text,
    PRIMARY KEY (alert_id, channel, escalation, attempt),
    FOREIGN KEY (alert_id, channel, escalation)
        REFERENCES batch_audit.alert_delivery ON DELETE CASCADE
);
COMMENT ON TABLE batch_audit.alert_attempt IS
    'An attempt at telling. Without an end, its process died: the channel may have it or not.';
"""

DOWNGRADE = """
DROP TABLE batch_audit.alert_attempt, batch_audit.alert_delivery, batch_audit.alert;
"""


def upgrade() -> None:
    """Make room for alerts."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Drop them."""
    op.execute(DOWNGRADE)
