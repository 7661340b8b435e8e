"""Events of batches: an outcome carries the row of import_history, the end a root over details."""

from __future__ import annotations

from alembic import op

revision = "0027"
down_revision = "0026"

# The row is taken when the transaction commits, so it is what the transaction left, wherever in it the
# event was appended; and before the chain's lock.
UPGRADE = r"""
ALTER TABLE batch_audit.import_history ADD compliance_context jsonb;
COMMENT ON COLUMN batch_audit.import_history.compliance_context IS
    'What its feed said of regulation, data classification and accreditation when it began.';

CREATE FUNCTION batch_audit.history_facts(batch uuid) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET TimeZone = 'UTC' AS $$
    SELECT jsonb_strip_nulls(to_jsonb(f)) FROM (
        SELECT batch_id, job_id, feed, feed_version, partition_key, status, status_before, attempt,
            identity, duplicate_of, fingerprint, requested_by, correlation_id, source_records,
            written_records, rejected_records, skipped_records, critical_records, source_bytes,
            started_at, published_at, completed_at, rolled_back_at, rolled_back_by, rollback_reason,
            superseded_by, rollback_possible_until, archived_at, error_details, failure_cause,
            adopted_from, compliance_context
        FROM batch_audit.import_history WHERE batch_id = batch
    ) AS f
$$;
COMMENT ON FUNCTION batch_audit.history_facts IS
    'What events keep of a row of import_history, without nulls; null where there is no such batch.';

-- As the owner: it reads the values of rejects, and gives hashes only.
CREATE FUNCTION batch_audit.detail_root(batch uuid) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET TimeZone = 'UTC' AS $$
DECLARE
    detail text;
    hash bytea;
    so_far bytea;
    number bigint;
    root jsonb := '{}';
BEGIN
    FOREACH detail IN ARRAY ARRAY['import_file', 'crc32_audit', 'batch_table', 'batch_column',
            'row_digest', 'whole_digest', 'batch_signature', 'import_reject', 'critical_record',
            'validation_log', 'validation_summary'] LOOP
        so_far := '';
        number := 0;
        FOR hash IN EXECUTE format('
            SELECT sha256(convert_to(jsonb_strip_nulls(to_jsonb(t))::text, ''UTF8'')) AS h
            FROM batch_audit.%I AS t WHERE batch_id = $1 ORDER BY h', detail) USING batch LOOP
            so_far := sha256(so_far || hash);
            number := number + 1;
        END LOOP;
        IF number > 0 THEN
            root := root || jsonb_build_object(detail, jsonb_build_object(
                'rows', number, 'sha256', encode(so_far, 'hex')));
        END IF;
    END LOOP;
    RETURN root;
END $$;
COMMENT ON FUNCTION batch_audit.detail_root IS
    'By table: how many rows of details a batch has, and the hash of their hashes, in order.';

CREATE OR REPLACE FUNCTION batch_audit.append_event(
    principal_id text, action text, status text, resource_type text, resource_id text,
    correlation_id text, session_context jsonb, compliance_context jsonb, details jsonb
) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    batch record;
BEGIN
    IF $4 = 'batch' AND $5 ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN
        SELECT h.correlation_id, h.compliance_context INTO batch
        FROM batch_audit.import_history AS h WHERE h.batch_id = $5::uuid;
    ELSE
        SELECT NULL::text AS correlation_id, NULL::jsonb AS compliance_context INTO batch;
    END IF;
    INSERT INTO batch_audit.audit_pending (principal_id, action, status, resource_type, resource_id,
        correlation_id, session_context, compliance_context, details)
    VALUES ($1, $2, $3, $4, $5, coalesce($6, batch.correlation_id),
        coalesce($7, nullif(current_setting('batch_pipelines.session_context', true), '')::jsonb),
        coalesce($8, batch.compliance_context), $9);
END $$;

CREATE OR REPLACE FUNCTION batch_audit.chain_event() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    head record;
    at timestamptz;
    digest bytea;
BEGIN
    IF NEW.resource_type = 'batch' AND NEW.action LIKE 'batch.%' AND NEW.status <> 'IN_PROGRESS'
            AND NEW.resource_id ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN
        NEW.details := NEW.details || jsonb_build_object(
            'history', batch_audit.history_facts(NEW.resource_id::uuid));
    END IF;
    PERFORM batch_audit.lock_chain();
    SELECT * INTO STRICT head FROM batch_audit.audit_head FOR UPDATE;
    -- Never back, whatever the clock does: a month is then a piece of the chain.
    at := greatest(clock_timestamp(), head.created_at);
    PERFORM batch_audit.ensure_audit_month(at);
    digest := batch_audit.event_hash(
        head.seq + 1, head.hash, at, NEW.principal_id, NEW.action, NEW.status, NEW.resource_type,
        NEW.resource_id, NEW.correlation_id, NEW.session_context, NEW.compliance_context, NEW.details);
    INSERT INTO batch_audit.audit_event (seq, prev_hash, hash, created_at, principal_id, action, status,
        resource_type, resource_id, correlation_id, session_context, compliance_context, details)
    VALUES (head.seq + 1, head.hash, digest, at, NEW.principal_id, NEW.action, NEW.status,
        NEW.resource_type, NEW.resource_id, NEW.correlation_id, NEW.session_context,
        NEW.compliance_context, NEW.details);
    UPDATE batch_audit.audit_head SET seq = head.seq + 1, hash = digest, created_at = at;
    DELETE FROM batch_audit.audit_pending WHERE pending_id = NEW.pending_id;
    RETURN NULL;
END $$;

-- What there was before: from here on a change behind the trail's back is found.
SELECT batch_audit.append_event('migration', 'batch.recorded', 'SUCCESS', 'batch', batch_id::text,
    NULL, NULL, NULL, jsonb_build_object('root', batch_audit.detail_root(batch_id)))
FROM batch_audit.import_history WHERE status <> 'IN_PROGRESS' ORDER BY started_at;
"""

# The functions as 0023 has them.
DOWNGRADE = r"""
CREATE OR REPLACE FUNCTION batch_audit.append_event(
    principal_id text, action text, status text, resource_type text, resource_id text,
    correlation_id text, session_context jsonb, compliance_context jsonb, details jsonb
) RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO batch_audit.audit_pending (principal_id, action, status, resource_type, resource_id,
        correlation_id, session_context, compliance_context, details)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
$$;
CREATE OR REPLACE FUNCTION batch_audit.chain_event() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    head record;
    at timestamptz;
    digest bytea;
BEGIN
    PERFORM batch_audit.lock_chain();
    SELECT * INTO STRICT head FROM batch_audit.audit_head FOR UPDATE;
    at := greatest(clock_timestamp(), head.created_at);
    PERFORM batch_audit.ensure_audit_month(at);
    digest := batch_audit.event_hash(
        head.seq + 1, head.hash, at, NEW.principal_id, NEW.action, NEW.status, NEW.resource_type,
        NEW.resource_id, NEW.correlation_id, NEW.session_context, NEW.compliance_context, NEW.details);
    INSERT INTO batch_audit.audit_event (seq, prev_hash, hash, created_at, principal_id, action, status,
        resource_type, resource_id, correlation_id, session_context, compliance_context, details)
    VALUES (head.seq + 1, head.hash, digest, at, NEW.principal_id, NEW.action, NEW.status,
        NEW.resource_type, NEW.resource_id, NEW.correlation_id, NEW.session_context,
        NEW.compliance_context, NEW.details);
    UPDATE batch_audit.audit_head SET seq = head.seq + 1, hash = digest, created_at = at;
    DELETE FROM batch_audit.audit_pending WHERE pending_id = NEW.pending_id;
    RETURN NULL;
END $$;
DROP FUNCTION batch_audit.detail_root(uuid), batch_audit.history_facts(uuid);
ALTER TABLE batch_audit.import_history DROP compliance_context;
"""


def upgrade() -> None:
    """Keep with each outcome what the ledger said of the batch."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Append events without it from here on; those that are there stay as they are."""
    op.execute(DOWNGRADE)
