"""Chaining many entries of one transaction, each as fast as the first."""

from __future__ import annotations

from alembic import op

revision = "0033"
down_revision = "0032"

# Each version of a row that a transaction has updated is in the way of the next: the end of the chain
# is written once a transaction, with its last entry (20,000 of one took a minute before).
UPGRADE = r"""
CREATE OR REPLACE FUNCTION batch_audit.step_on() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF (NEW.seq > OLD.seq) IS NOT TRUE OR NEW.ledger_id IS DISTINCT FROM OLD.ledger_id THEN
        RAISE EXCEPTION 'batch_audit.audit_head goes on by one transaction at a time'
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;

CREATE OR REPLACE FUNCTION batch_audit.chain_event() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    head record;
    entry record;
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
    -- The transaction's own entries are ahead of it until the last one of them.
    FOR entry IN SELECT e.seq, e.hash, e.created_at FROM batch_audit.audit_event AS e
                 WHERE e.seq > head.seq ORDER BY e.seq DESC LIMIT 1 LOOP
        head.seq := entry.seq;
        head.hash := entry.hash;
        head.created_at := entry.created_at;
    END LOOP;
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
    DELETE FROM batch_audit.audit_pending WHERE pending_id = NEW.pending_id;
    IF NOT EXISTS (SELECT FROM batch_audit.audit_pending WHERE pending_id > NEW.pending_id) THEN
        UPDATE batch_audit.audit_head SET seq = head.seq + 1, hash = digest, created_at = at;
    END IF;
    RETURN NULL;
END $$;
"""
DOWNGRADE = r"""
CREATE OR REPLACE FUNCTION batch_audit.step_on() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF (NEW.seq = OLD.seq + 1) IS NOT TRUE OR NEW.ledger_id IS DISTINCT FROM OLD.ledger_id THEN
        RAISE EXCEPTION 'batch_audit.audit_head goes on by one entry at a time'
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
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
"""


def upgrade() -> None:
    """Write the end of the chain once a transaction."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Write it with each entry."""
    op.execute(DOWNGRADE)
