"""The audit trail as a chain: one way in, one order, each entry sealed by the hash of all before it."""

from __future__ import annotations

from alembic import op

revision = "0023"
down_revision = "0022"

# An entry is queued where its deed is done, and chained by a deferred trigger, when the transaction
# commits: so the chain's lock is held for that moment only, however long the transaction was, and
# wherever in it the entry was appended. `engine/audit/entry.py` says in Python what `event_hash` says.
UPGRADE = r"""
CREATE TABLE batch_audit.audit_head (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    ledger_id uuid NOT NULL DEFAULT gen_random_uuid(),
    seq bigint NOT NULL DEFAULT 0,
    hash bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT 'epoch'
);
COMMENT ON TABLE batch_audit.audit_head IS
    'The end of the audit chain: number and hash of its last entry. One row.';
COMMENT ON COLUMN batch_audit.audit_head.ledger_id IS
    'Tells this ledger''s anchors from those of others; the chain begins with its SHA-256.';
WITH ledger AS (SELECT gen_random_uuid() AS id)
INSERT INTO batch_audit.audit_head (ledger_id, hash) SELECT id, sha256(uuid_send(id)) FROM ledger;

CREATE TABLE batch_audit.audit_pending (
    pending_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    principal_id text NOT NULL,
    action text NOT NULL,
    status text NOT NULL,
    resource_type text NOT NULL,
    resource_id text NOT NULL,
    correlation_id text,
    session_context jsonb,
    compliance_context jsonb,
    details jsonb NOT NULL
);
COMMENT ON TABLE batch_audit.audit_pending IS
    'Entries of transactions in progress; each is chained, and leaves, when its transaction commits.';

CREATE FUNCTION batch_audit.framed(value bytea) RETURNS bytea
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN coalesce(int4send(octet_length(value)) || value, '\xffffffff'::bytea);
COMMENT ON FUNCTION batch_audit.framed IS
    'A field of what is hashed: its length in bytes (int32, big-endian; -1 of a null), and the bytes.';

CREATE FUNCTION batch_audit.event_hash(
    seq bigint, prev_hash bytea, created_at timestamptz, principal_id text, action text, status text,
    resource_type text, resource_id text, correlation_id text, session_context jsonb,
    compliance_context jsonb, details jsonb
) RETURNS bytea LANGUAGE sql STABLE PARALLEL SAFE
    RETURN sha256(
        batch_audit.framed(int8send(seq))
        || batch_audit.framed(prev_hash)
        || batch_audit.framed(int8send((extract(epoch FROM created_at) * 1000000)::bigint))
        || batch_audit.framed(convert_to(principal_id, 'UTF8'))
        || batch_audit.framed(convert_to(action, 'UTF8'))
        || batch_audit.framed(convert_to(status, 'UTF8'))
        || batch_audit.framed(convert_to(resource_type, 'UTF8'))
        || batch_audit.framed(convert_to(resource_id, 'UTF8'))
        || batch_audit.framed(convert_to(correlation_id, 'UTF8'))
        || batch_audit.framed(convert_to(session_context::text, 'UTF8'))
        || batch_audit.framed(convert_to(compliance_context::text, 'UTF8'))
        || batch_audit.framed(convert_to(details::text, 'UTF8')));
COMMENT ON FUNCTION batch_audit.event_hash IS
    'SHA-256 over all fields of an entry, its number and the hash of the entry before it included.';

CREATE FUNCTION batch_audit.lock_chain() RETURNS void LANGUAGE sql AS $$
    SELECT pg_catalog.pg_advisory_xact_lock(1651507205, 0)
$$;
COMMENT ON FUNCTION batch_audit.lock_chain IS
    'Of those who append, one at a time, until the end of its transaction.';

CREATE FUNCTION batch_audit.refuse_change() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'batch_audit.% is append-only: % is refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'insufficient_privilege';
END $$;

CREATE FUNCTION batch_audit.ensure_audit_month(at timestamptz) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    first date := date_trunc('month', at AT TIME ZONE 'UTC');
    child text := 'audit_event_' || to_char(first, 'YYYY_MM');
BEGIN
    IF to_regclass(format('batch_audit.%I', child)) IS NOT NULL THEN
        RETURN;
    END IF;
    PERFORM batch_audit.lock_chain();
    IF to_regclass(format('batch_audit.%I', child)) IS NOT NULL THEN
        RETURN;
    END IF;
    -- Made beside it and attached: that waits for no reader of the table, as PARTITION OF would.
    EXECUTE format('CREATE TABLE batch_audit.%I (LIKE batch_audit.audit_event
        INCLUDING CONSTRAINTS INCLUDING INDEXES)', child);
    EXECUTE format('CREATE UNIQUE INDEX ON batch_audit.%I (seq)', child);
    EXECUTE format('CREATE UNIQUE INDEX ON batch_audit.%I (prev_hash)', child);
    EXECUTE format('ALTER TABLE batch_audit.audit_event ATTACH PARTITION batch_audit.%I
        FOR VALUES FROM (%L) TO (%L)', child, first::timestamp AT TIME ZONE 'UTC',
        (first + interval '1 month') AT TIME ZONE 'UTC');
    EXECUTE format('CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON batch_audit.%I
        FOR EACH STATEMENT EXECUTE FUNCTION batch_audit.refuse_change()', child);
    EXECUTE format('ALTER TABLE batch_audit.%I ENABLE ALWAYS TRIGGER append_only', child);
    EXECUTE format('ALTER TABLE batch_audit.%I ENABLE ALWAYS TRIGGER append_only_truncate', child);
END $$;
COMMENT ON FUNCTION batch_audit.ensure_audit_month IS
    'Makes the partition of audit_event for a month; a number and a predecessor are unique in it.';

CREATE FUNCTION batch_audit.chain_event() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    head record;
    at timestamptz;
    digest bytea;
BEGIN
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

CREATE FUNCTION batch_audit.step_on() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NEW.seq IS DISTINCT FROM OLD.seq + 1 OR NEW.ledger_id IS DISTINCT FROM OLD.ledger_id THEN
        RAISE EXCEPTION 'batch_audit.audit_head goes on by one entry at a time'
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION batch_audit.append_event(
    principal_id text, action text, status text, resource_type text, resource_id text,
    correlation_id text, session_context jsonb, compliance_context jsonb, details jsonb
) RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO batch_audit.audit_pending (principal_id, action, status, resource_type, resource_id,
        correlation_id, session_context, compliance_context, details)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
$$;
COMMENT ON FUNCTION batch_audit.append_event IS
    'The only way to add an entry to the audit trail; it is there when the transaction commits.';

ALTER TABLE batch_audit.audit_event ADD seq bigint, ADD prev_hash bytea, ADD hash bytea;
DO $$
DECLARE
    head record;
    entry record;
BEGIN
    SELECT * INTO head FROM batch_audit.audit_head;
    FOR entry IN SELECT * FROM batch_audit.audit_event ORDER BY created_at, id LOOP
        UPDATE batch_audit.audit_event SET seq = head.seq + 1, prev_hash = head.hash,
            hash = batch_audit.event_hash(head.seq + 1, head.hash, entry.created_at,
                entry.principal_id, entry.action, entry.status, entry.resource_type,
                entry.resource_id, entry.correlation_id, entry.session_context,
                entry.compliance_context, entry.details)
        WHERE id = entry.id AND created_at = entry.created_at
        RETURNING seq, audit_event.hash, audit_event.created_at
            INTO head.seq, head.hash, head.created_at;
    END LOOP;
    UPDATE batch_audit.audit_head SET seq = head.seq, hash = head.hash, created_at = head.created_at;
END $$;
ALTER TABLE batch_audit.audit_event
    DROP id,
    ALTER seq SET NOT NULL, ALTER prev_hash SET NOT NULL, ALTER hash SET NOT NULL,
    ALTER created_at DROP DEFAULT, ALTER details DROP DEFAULT;
CREATE INDEX ON batch_audit.audit_event (seq);
COMMENT ON TABLE batch_audit.audit_event IS
    'The audit trail: who did what to what, and how it ended; each has the hash of the one before.';
COMMENT ON COLUMN batch_audit.audit_event.seq IS
    'Its place in the chain, from 1, without gaps: the order of the transactions'' ends.';
COMMENT ON COLUMN batch_audit.audit_event.prev_hash IS
    'hash of the entry before it; of the first one, the SHA-256 of the ledger''s id.';
COMMENT ON COLUMN batch_audit.audit_event.hash IS 'event_hash of the entry.';
COMMENT ON COLUMN batch_audit.audit_event.created_at IS
    'When it was chained, at the end of its transaction; never before that of the entry before.';

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON batch_audit.audit_event
    FOR EACH ROW EXECUTE FUNCTION batch_audit.refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON batch_audit.audit_event
    FOR EACH STATEMENT EXECUTE FUNCTION batch_audit.refuse_change();
CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON batch_audit.audit_head
    FOR EACH STATEMENT EXECUTE FUNCTION batch_audit.refuse_change();
CREATE TRIGGER step_on BEFORE UPDATE ON batch_audit.audit_head
    FOR EACH ROW EXECUTE FUNCTION batch_audit.step_on();
CREATE CONSTRAINT TRIGGER chain_event AFTER INSERT ON batch_audit.audit_pending
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION batch_audit.chain_event();
ALTER TABLE batch_audit.audit_event ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE batch_audit.audit_event ENABLE ALWAYS TRIGGER append_only_truncate;
ALTER TABLE batch_audit.audit_head ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE batch_audit.audit_head ENABLE ALWAYS TRIGGER step_on;
ALTER TABLE batch_audit.audit_pending ENABLE ALWAYS TRIGGER chain_event;
-- The partitions that are there already.
DO $$
DECLARE
    child regclass;
BEGIN
    FOR child IN SELECT inhrelid::regclass FROM pg_inherits
                 WHERE inhparent = 'batch_audit.audit_event'::regclass LOOP
        EXECUTE format('CREATE UNIQUE INDEX ON %s (seq)', child);
        EXECUTE format('CREATE UNIQUE INDEX ON %s (prev_hash)', child);
        EXECUTE format('CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON %s
            FOR EACH STATEMENT EXECUTE FUNCTION batch_audit.refuse_change()', child);
        EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER append_only', child);
        EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER append_only_truncate', child);
    END LOOP;
END $$;
"""

DOWNGRADE = """
CREATE TEMP TABLE audit_event_before ON COMMIT DROP AS SELECT * FROM batch_audit.audit_event;
DROP TABLE batch_audit.audit_event, batch_audit.audit_head, batch_audit.audit_pending;
DROP FUNCTION batch_audit.append_event(text, text, text, text, text, text, jsonb, jsonb, jsonb),
    batch_audit.step_on(), batch_audit.chain_event(), batch_audit.ensure_audit_month(timestamptz),
    batch_audit.refuse_change(), batch_audit.lock_chain(),
    batch_audit.event_hash(bigint, bytea, timestamptz, text, text, text, text, text, text, jsonb, jsonb,
        jsonb),
    batch_audit.framed(bytea);
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
SELECT batch_audit.ensure_month('batch_audit.audit_event', month)
FROM (SELECT now() UNION SELECT now() + interval '1 month'
      UNION SELECT created_at FROM audit_event_before) AS t (month);
INSERT INTO batch_audit.audit_event (principal_id, action, status, resource_type, resource_id,
    correlation_id, session_context, compliance_context, details, created_at)
SELECT principal_id, action, status, resource_type, resource_id, correlation_id, session_context,
    compliance_context, details, created_at
FROM audit_event_before ORDER BY seq;
"""


def upgrade() -> None:
    """Chain what is there, and let nothing in but by `append_event`."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Keep the entries, without their chain."""
    op.execute(DOWNGRADE)
