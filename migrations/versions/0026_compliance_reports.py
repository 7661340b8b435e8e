"""Compliance reports that were made, and indexes by which a month of the ledger is found."""

from __future__ import annotations

from alembic import op

revision = "0026"
down_revision = "0025"

UPGRADE = """
CREATE TABLE batch_audit.compliance_report (
    report_id uuid PRIMARY KEY,
    span text NOT NULL,
    range_start timestamptz NOT NULL,
    range_end timestamptz NOT NULL,
    time_zone text NOT NULL,
    as_of timestamptz NOT NULL,
    regulation text,
    feed text,
    entity_type text,
    regulations jsonb NOT NULL,
    content_sha256 text NOT NULL,
    content_bytes bigint NOT NULL,
    seconds double precision NOT NULL,
    requested_by text NOT NULL,
    run_id uuid,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (range_start < range_end AND range_start < as_of)
);
CREATE INDEX ON batch_audit.compliance_report (range_start, created_at);
COMMENT ON TABLE batch_audit.compliance_report IS
    'A compliance report that was made; who signed it stands in audit_event.';
COMMENT ON COLUMN batch_audit.compliance_report.span IS
    'The range of time as people call it: 2026-10, or 2026-10-05..2026-10-11.';
COMMENT ON COLUMN batch_audit.compliance_report.as_of IS
    'What the ledger knew then is told; before range_end where the range was not over yet.';
COMMENT ON COLUMN batch_audit.compliance_report.regulations IS
    'Under which regulations each feed was, by its file: what the report was made by.';
COMMENT ON COLUMN batch_audit.compliance_report.content_sha256 IS
    'Of what the report says: the same ledger gives the same again.';

CREATE TABLE batch_audit.compliance_report_type (
    report_id uuid NOT NULL REFERENCES batch_audit.compliance_report,
    type text NOT NULL,
    place integer NOT NULL,
    records bigint,
    content_bytes bigint,
    content_sha256 text,
    seconds double precision NOT NULL,
    error_details text,
    PRIMARY KEY (report_id, type),
    CHECK ((error_details IS NULL) = (content_sha256 IS NOT NULL))
);
COMMENT ON TABLE batch_audit.compliance_report_type IS
    'A type of report in a compliance report; error_details where it could not be made.';
COMMENT ON COLUMN batch_audit.compliance_report_type.records IS 'Rows of the ledger that it counts.';

CREATE TABLE batch_audit.compliance_report_file (
    report_id uuid NOT NULL REFERENCES batch_audit.compliance_report,
    format text NOT NULL CHECK (format IN ('html', 'json', 'csv')),
    place text NOT NULL,
    bytes bigint NOT NULL,
    sha256 text NOT NULL,
    PRIMARY KEY (report_id, format)
);
CREATE INDEX ON batch_audit.compliance_report_file (sha256);
COMMENT ON TABLE batch_audit.compliance_report_file IS
    'A file of a compliance report: where it was written, and the digest that proves it.';

-- What was made and handed over stays on record as it was.
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['compliance_report', 'compliance_report_type', 'compliance_report_file']
    LOOP
        EXECUTE format('CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON batch_audit.%I
            FOR EACH ROW EXECUTE FUNCTION batch_audit.refuse_change()', name);
        EXECUTE format('CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON batch_audit.%I
            FOR EACH STATEMENT EXECUTE FUNCTION batch_audit.refuse_change()', name);
        EXECUTE format('ALTER TABLE batch_audit.%I ENABLE ALWAYS TRIGGER append_only', name);
        EXECUTE format('ALTER TABLE batch_audit.%I ENABLE ALWAYS TRIGGER append_only_truncate', name);
    END LOOP;
END $$;

CREATE INDEX import_history_started ON batch_audit.import_history (started_at);
CREATE INDEX validation_log_started ON batch_audit.validation_log (started_at);
CREATE INDEX validation_log_unverified ON batch_audit.validation_log (started_at)
    WHERE status = 'UNVERIFIED';
CREATE INDEX verification_log_started ON batch_audit.verification_log (started_at);
CREATE INDEX verification_log_not_proven ON batch_audit.verification_log (started_at)
    WHERE status IN ('FAILED', 'UNVERIFIED');
CREATE INDEX alert_acknowledged ON batch_audit.alert (acknowledged_at)
    WHERE acknowledged_at IS NOT NULL;
CREATE INDEX feed_pause_paused ON batch_audit.feed_pause (paused_at);
CREATE INDEX feed_pause_resumed ON batch_audit.feed_pause (resumed_at);
CREATE INDEX threshold_event_created ON batch_audit.threshold_event (created_at);
CREATE INDEX rerun_request_requested ON batch_audit.rerun_request (requested_at);
CREATE INDEX retention_chunk_found ON batch_audit.retention_chunk (found_at);
CREATE INDEX archive_manifest_recorded ON batch_audit.archive_manifest (recorded_at);
CREATE INDEX archive_manifest_not_valid ON batch_audit.archive_manifest (recorded_at)
    WHERE state <> 'VALID';
"""

DOWNGRADE = """
DROP INDEX batch_audit.retention_chunk_found, batch_audit.archive_manifest_not_valid,
    batch_audit.archive_manifest_recorded,
    batch_audit.rerun_request_requested, batch_audit.threshold_event_created,
    batch_audit.feed_pause_resumed, batch_audit.feed_pause_paused, batch_audit.alert_acknowledged,
    batch_audit.verification_log_not_proven,
    batch_audit.verification_log_started, batch_audit.validation_log_unverified,
    batch_audit.validation_log_started, batch_audit.import_history_started;
DROP TABLE batch_audit.compliance_report_file, batch_audit.compliance_report_type,
    batch_audit.compliance_report;
"""


def upgrade() -> None:
    """Make room for them."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Drop them; files of reports stay where they are, and can no longer be proven."""
    op.execute(DOWNGRADE)
