"""Versions of each feed's signature, and how each batch's delivery differed from the one in force."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"

UPGRADE = """
CREATE TABLE batch_audit.feed_signature (
    feed text NOT NULL,
    target_table text NOT NULL,
    version integer NOT NULL CHECK (version > 0),
    columns jsonb NOT NULL,
    signature_hash text NOT NULL CHECK (signature_hash ~ '^[0-9a-f]{64}$'),
    batch_id uuid REFERENCES batch_audit.import_history ON DELETE SET NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (feed, target_table, version)
);
CREATE INDEX ON batch_audit.feed_signature (batch_id);
COMMENT ON TABLE batch_audit.feed_signature IS
    'Versions of the columns that deliveries of a feed bring to a table. In force is the newest one '
    'of a batch that is published and not rolled back.';
COMMENT ON COLUMN batch_audit.feed_signature.columns IS
    'Of each column: name and type in the file, the column of the table it fills, and its type.';
COMMENT ON COLUMN batch_audit.feed_signature.signature_hash IS
    'SHA-256 of the columns in a canonical form; their order in the file does not count.';
COMMENT ON COLUMN batch_audit.feed_signature.batch_id IS 'The first batch of this version.';

CREATE TABLE batch_audit.signature_event (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    batch_id uuid NOT NULL REFERENCES batch_audit.import_history ON DELETE CASCADE,
    feed text NOT NULL,
    target_table text NOT NULL,
    verdict text NOT NULL CHECK (verdict IN ('same', 'compatible', 'breaking')),
    previous_version integer,
    version integer,
    signature_hash text NOT NULL CHECK (signature_hash ~ '^[0-9a-f]{64}$'),
    changes jsonb NOT NULL DEFAULT '[]',
    not_loaded text[] NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (batch_id, target_table),
    FOREIGN KEY (feed, target_table, version) REFERENCES batch_audit.feed_signature
);
CREATE INDEX ON batch_audit.signature_event (feed, target_table, version);
COMMENT ON TABLE batch_audit.signature_event IS
    'What a delivery brought to a table, against the version of the signature that was in force.';
COMMENT ON COLUMN batch_audit.signature_event.previous_version IS
    'The version it was compared with; null for a first delivery.';
COMMENT ON COLUMN batch_audit.signature_event.version IS
    'The version it was loaded as; null where the delivery was refused.';
COMMENT ON COLUMN batch_audit.signature_event.not_loaded IS
    'The columns, as the table would name them, that were ignored or of which a value was refused.';

CREATE VIEW batch_audit.signature_change AS
SELECT e.id AS event_id, e.batch_id, e.feed, e.target_table, e.previous_version, e.version, c.*,
       e.created_at
FROM batch_audit.signature_event AS e CROSS JOIN LATERAL jsonb_to_recordset(e.changes)
     AS c (kind text, "column" text, before text, after text, verdict text, policy text);
COMMENT ON VIEW batch_audit.signature_change IS
    'One row for each column that differed: how, with which verdict, and what became of it.';
"""

DOWNGRADE = """
DROP VIEW batch_audit.signature_change;
DROP TABLE batch_audit.signature_event;
DROP TABLE batch_audit.feed_signature;
"""


def upgrade() -> None:
    """Make room for versions of signatures."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Drop it."""
    op.execute(DOWNGRADE)
