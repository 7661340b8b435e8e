"""Rollback: what a publish keeps for it, what it did, and the first audit events."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"

UPGRADE = """
ALTER TABLE batch_audit.import_history
    ADD rollback_reason text,
    ADD published_xids xid8[] NOT NULL DEFAULT '{}',
    ADD superseded_rows_kept boolean,
    ADD status_before text;
COMMENT ON COLUMN batch_audit.import_history.rollback_possible_until IS
    'After this the batch is not rolled back any more; null where there is no such time.';
COMMENT ON COLUMN batch_audit.import_history.published_xids IS
    'Transactions that wrote its rows: one of theirs has not been touched since.';
COMMENT ON COLUMN batch_audit.import_history.superseded_rows_kept IS
    'Whether superseded_row has all rows that it superseded; null where it superseded none.';
COMMENT ON COLUMN batch_audit.import_history.status_before IS
    'What a superseded batch was; it is that again when the one that superseded it is rolled back.';

ALTER TABLE batch_audit.row_before_image ADD row_xmin xid;
COMMENT ON COLUMN batch_audit.row_before_image.row_xmin IS
    'Which transaction had written the row: the batch''s own, or somebody touched it since.';
CREATE INDEX ON batch_audit.row_before_image (previous_batch_id, target_table)
    WHERE previous_batch_id IS NOT NULL;

CREATE TABLE batch_audit.superseded_row (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    batch_id uuid NOT NULL REFERENCES batch_audit.import_history ON DELETE CASCADE,
    target_table text NOT NULL,
    row_key jsonb,
    image jsonb NOT NULL,
    previous_batch_id uuid NOT NULL,
    row_xmin xid
);
CREATE INDEX ON batch_audit.superseded_row (batch_id, target_table, row_key);
COMMENT ON TABLE batch_audit.superseded_row IS
    'Rows of a superseded batch as they were: they come back when batch_id is rolled back.';
COMMENT ON COLUMN batch_audit.superseded_row.row_key IS
    'The key''s columns, each value as text; null where the table has no key.';

CREATE TABLE batch_audit.whole_digest (
    batch_id uuid NOT NULL REFERENCES batch_audit.import_history ON DELETE CASCADE,
    target_table text NOT NULL,
    columns text[] NOT NULL,
    records bigint NOT NULL,
    digest_sum numeric NOT NULL,
    digest_moment numeric NOT NULL,
    PRIMARY KEY (batch_id, target_table)
);
COMMENT ON TABLE batch_audit.whole_digest IS
    'Digest of a batch''s rows over all columns, where it brought only some: what is a hand edit?';

CREATE TABLE batch_audit.batch_rollback (
    batch_id uuid NOT NULL REFERENCES batch_audit.import_history ON DELETE CASCADE,
    target_table text NOT NULL,
    deleted bigint NOT NULL,
    restored bigint NOT NULL,
    reinstated bigint NOT NULL,
    owned bigint NOT NULL,
    kept bigint NOT NULL,
    differing bigint NOT NULL,
    PRIMARY KEY (batch_id, target_table)
);
COMMENT ON TABLE batch_audit.batch_rollback IS 'What the rollback of a batch did in one table.';
COMMENT ON COLUMN batch_audit.batch_rollback.restored IS 'Rows that got their before-image back.';
COMMENT ON COLUMN batch_audit.batch_rollback.reinstated IS
    'Rows of the batch that it had superseded.';
COMMENT ON COLUMN batch_audit.batch_rollback.owned IS
    'Rows that went with a parent because the feed declares them its own.';
COMMENT ON COLUMN batch_audit.batch_rollback.kept IS
    'Rows that stayed as they are because somebody had touched or refers to them.';
COMMENT ON COLUMN batch_audit.batch_rollback.differing IS
    'Rows that came back otherwise than they had been, because a trigger changed them.';

CREATE TABLE batch_audit.rollback_request (
    request_id uuid PRIMARY KEY,
    batch_ids uuid[] NOT NULL,
    cascade_too boolean NOT NULL,
    keep_touched boolean NOT NULL,
    reason text NOT NULL,
    requested_by text NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    approved_by text,
    approved_at timestamptz,
    CHECK (approved_by IS NULL OR approved_by <> requested_by)
);
COMMENT ON TABLE batch_audit.rollback_request IS
    'Rollbacks of feeds with `approval: two`: who asked, and who else agreed.';

CREATE TABLE batch_audit.audit_event (
    id bigint GENERATED ALWAYS AS IDENTITY,
    principal_id text NOT NULL,
    action text NOT NULL,
    status text NOT NULL,
    resource_type text NOT NULL,
    resource_id text NOT NULL,
    correlation_id text,
    session_context jsonb,
    compliance_context jsonb,
    details jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
) PARTITION BY RANGE (created_at);
CREATE INDEX ON batch_audit.audit_event (resource_id, created_at);
COMMENT ON TABLE batch_audit.audit_event IS 'Who did what to which batch, and how it ended.';
COMMENT ON COLUMN batch_audit.audit_event.details IS 'Counts and reasons; never a value of a row.';
SELECT batch_audit.ensure_month('batch_audit.audit_event', now()),
       batch_audit.ensure_month('batch_audit.audit_event', now() + interval '1 month');
"""

DOWNGRADE = """
DROP TABLE batch_audit.audit_event, batch_audit.rollback_request, batch_audit.batch_rollback,
    batch_audit.whole_digest, batch_audit.superseded_row;
DROP INDEX batch_audit.row_before_image_previous_batch_id_target_table_idx;
ALTER TABLE batch_audit.row_before_image DROP row_xmin;
ALTER TABLE batch_audit.import_history DROP rollback_reason, DROP published_xids,
    DROP superseded_rows_kept, DROP status_before;
COMMENT ON COLUMN batch_audit.import_history.rollback_possible_until IS NULL;
"""


def upgrade() -> None:
    """Make room for rollbacks."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Drop it; what rollbacks need of earlier batches is lost."""
    op.execute(DOWNGRADE)
