"""Values of rows that were set aside are shown to who has said so: each look is in the audit trail."""

from __future__ import annotations

from alembic import op

revision = "0032"
down_revision = "0031"

# The entry is committed before anything is shown: whoever took a transaction back after a look would
# take an entry of the same transaction back as well. The session's own setting names its opening;
# nobody can guess one, and it is worth nothing in another session.
UPGRADE = """
ALTER TABLE batch_audit.import_reject
    ADD raw_bytes bigint GENERATED ALWAYS AS (octet_length(raw)) STORED;
COMMENT ON COLUMN batch_audit.import_reject.raw_bytes IS
    'Length of raw: a replay finds the record again without looking at it.';

CREATE TABLE batch_audit.values_opening (
    opening_id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    batch_id uuid NOT NULL REFERENCES batch_audit.import_history ON DELETE CASCADE,
    purpose text NOT NULL CHECK (purpose IN ('look', 'export', 'archive')),
    login text NOT NULL DEFAULT session_user,
    pid integer NOT NULL DEFAULT pg_backend_pid(),
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    opened_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX ON batch_audit.values_opening (batch_id);
CREATE INDEX ON batch_audit.values_opening (opened_at);
COMMENT ON TABLE batch_audit.values_opening IS
    'Sessions that may see the values of a batch''s rejects now; who ever did is in audit_event.';

CREATE FUNCTION batch_audit.open_values(batch uuid, purpose text, principal text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    needed text := CASE purpose WHEN 'archive' THEN 'batch_writer' ELSE 'batch_values' END;
    opening uuid;
BEGIN
    IF NOT pg_has_role(session_user, needed, 'MEMBER')
            AND NOT pg_has_role(session_user, 'batch_owner', 'MEMBER') THEN
        RAISE EXCEPTION '% is not a member of %', session_user, needed
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    DELETE FROM batch_audit.values_opening WHERE opening_id IN (
        SELECT opening_id FROM batch_audit.values_opening
        WHERE opened_at < clock_timestamp() - interval '1 day' FOR UPDATE SKIP LOCKED);
    INSERT INTO batch_audit.values_opening (batch_id, purpose) VALUES (batch, open_values.purpose)
    RETURNING opening_id INTO opening;
    PERFORM batch_audit.append_event(
        principal, 'values.read', 'SUCCESS', 'batch', batch::text,
        (SELECT correlation_id FROM batch_audit.import_history WHERE batch_id = batch),
        jsonb_build_object('login', session_user), NULL,
        jsonb_build_object('what', 'import_reject', 'purpose', purpose));
    PERFORM set_config('batch_pipelines.opening', opening::text, false);
END $$;
COMMENT ON FUNCTION batch_audit.open_values IS
    'Writes down that this session looks at values of a batch''s rejects; from its COMMIT on it may.';

CREATE FUNCTION batch_audit.opened_batch() RETURNS uuid
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found_batch uuid;
BEGIN
    SELECT batch_id INTO found_batch FROM batch_audit.values_opening
    WHERE opening_id::text = current_setting('batch_pipelines.opening', true)
        AND login = session_user AND pid = pg_backend_pid()
        AND opened_at > clock_timestamp() - interval '1 day'
        AND xid IS DISTINCT FROM pg_current_xact_id_if_assigned();
    IF found_batch IS NULL THEN
        RAISE EXCEPTION 'values of rows are shown after batch_audit.open_values(batch, purpose, '
            'principal) and its COMMIT' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN found_batch;
END $$;
COMMENT ON FUNCTION batch_audit.opened_batch IS
    'The batch whose rejects this session has opened; an error where it has opened none.';

CREATE VIEW batch_audit.opened_reject WITH (security_barrier) AS
SELECT id, batch_id, feed, target_table, file_name, record_number, line_number, byte_offset, raw,
       column_name, sqlstate, constraint_name, message, breaches, created_at, replayed_at, replayed_by,
       skipped
FROM batch_audit.import_reject WHERE batch_id = (SELECT batch_audit.opened_batch());
COMMENT ON VIEW batch_audit.opened_reject IS
    'Rejects with their values, of the batch that this session has opened by open_values.';
"""
DOWNGRADE = """
DROP VIEW batch_audit.opened_reject;
DROP FUNCTION batch_audit.opened_batch(), batch_audit.open_values(uuid, text, text);
DROP TABLE batch_audit.values_opening;
ALTER TABLE batch_audit.import_reject DROP raw_bytes;
"""


def upgrade() -> None:
    """Let values be seen through a door that leaves an entry."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Take the door away; the entries stay."""
    op.execute(DOWNGRADE)
