"""Months of the audit trail that are over are sealed, and removed as a whole when their time is over."""

from __future__ import annotations

from alembic import op

revision = "0035"
down_revision = "0034"

# A month is over when the trail has an entry of a later one: times never go back along the chain, so
# nothing comes into it any more, whatever a clock says.
UPGRADE = r"""
CREATE TABLE batch_audit.audit_segment (
    month date PRIMARY KEY CHECK (extract(day FROM month) = 1),
    first_seq bigint NOT NULL,
    last_seq bigint NOT NULL,
    entries bigint NOT NULL CHECK (entries = last_seq - first_seq + 1),
    first_prev_hash bytea NOT NULL,
    last_hash bytea NOT NULL,
    root bytea NOT NULL,
    sealed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    sealed_by text NOT NULL,
    place text,
    tagmanifest_sha256 text,
    rule text,
    legal_source text,
    due_at timestamptz,
    removed_at timestamptz,
    removed_by text,
    CHECK (num_nulls(place, tagmanifest_sha256, rule, legal_source, due_at, removed_at, removed_by)
           IN (0, 7))
);
COMMENT ON TABLE batch_audit.audit_segment IS
    'Months of audit_event that are over, sealed; of those that were removed what is left of them.';
COMMENT ON COLUMN batch_audit.audit_segment.first_prev_hash IS
    'What its first entry refers to: the hash of the last one before the month.';
COMMENT ON COLUMN batch_audit.audit_segment.root IS
    'h(n) = SHA-256(h(n-1) || hash of the entry), h(0) being empty, after the last entry.';
COMMENT ON COLUMN batch_audit.audit_segment.place IS
    'The bag that has the entries since they left the database; null while they are in it.';
COMMENT ON COLUMN batch_audit.audit_segment.tagmanifest_sha256 IS
    'SHA-256, hex, of the tag manifest, which covers all of the bag.';
COMMENT ON COLUMN batch_audit.audit_segment.rule IS
    'By which rule of retention, legal_source by whose word, and due_at since when, it was removed.';

CREATE FUNCTION batch_audit.remove_once() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF OLD.removed_at IS NOT NULL OR NEW.removed_at IS NULL
            OR ROW(NEW.month, NEW.first_seq, NEW.last_seq, NEW.entries, NEW.first_prev_hash,
                   NEW.last_hash, NEW.root, NEW.sealed_at, NEW.sealed_by)
               IS DISTINCT FROM
               ROW(OLD.month, OLD.first_seq, OLD.last_seq, OLD.entries, OLD.first_prev_hash,
                   OLD.last_hash, OLD.root, OLD.sealed_at, OLD.sealed_by) THEN
        RAISE EXCEPTION 'batch_audit.audit_segment is append-only, but for the word of its removal'
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON batch_audit.audit_segment
    FOR EACH STATEMENT EXECUTE FUNCTION batch_audit.refuse_change();
CREATE TRIGGER remove_once BEFORE UPDATE ON batch_audit.audit_segment
    FOR EACH ROW EXECUTE FUNCTION batch_audit.remove_once();
ALTER TABLE batch_audit.audit_segment ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE batch_audit.audit_segment ENABLE ALWAYS TRIGGER remove_once;

CREATE FUNCTION batch_audit.segment_facts(of_month date) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET TimeZone = 'UTC' AS $$
    SELECT jsonb_strip_nulls(to_jsonb(f)) FROM (
        SELECT month, first_seq, last_seq, entries, encode(first_prev_hash, 'hex') AS first_prev_hash,
            encode(last_hash, 'hex') AS last_hash, encode(root, 'hex') AS root, sealed_at, sealed_by,
            place, tagmanifest_sha256, rule, legal_source, due_at, removed_at, removed_by
        FROM batch_audit.audit_segment WHERE month = of_month
    ) AS f
$$;
COMMENT ON FUNCTION batch_audit.segment_facts IS
    'What events keep of a row of audit_segment, without nulls.';

CREATE FUNCTION batch_audit.segment_root(of_month date, OUT first_seq bigint, OUT last_seq bigint,
    OUT first_prev_hash bytea, OUT last_hash bytea, OUT root bytea)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    entry record;
BEGIN
    root := '';
    FOR entry IN SELECT e.seq, e.prev_hash, e.hash,
            e.hash = batch_audit.event_hash(e.seq, e.prev_hash, e.created_at, e.principal_id, e.action,
                e.status, e.resource_type, e.resource_id, e.correlation_id, e.session_context,
                e.compliance_context, e.details) AS holds
            FROM batch_audit.audit_event AS e
            WHERE e.created_at >= of_month::timestamp AT TIME ZONE 'UTC'
                AND e.created_at < (of_month + interval '1 month') AT TIME ZONE 'UTC'
            ORDER BY e.seq LOOP
        IF first_seq IS NULL THEN
            first_seq := entry.seq;
            first_prev_hash := entry.prev_hash;
        ELSIF entry.seq <> last_seq + 1 OR entry.prev_hash <> last_hash THEN
            RAISE EXCEPTION 'entry % of the audit trail does not follow what stands before it',
                entry.seq USING ERRCODE = 'data_corrupted';
        END IF;
        IF NOT entry.holds THEN
            RAISE EXCEPTION 'entry % of the audit trail is not what was appended', entry.seq
                USING ERRCODE = 'data_corrupted';
        END IF;
        last_seq := entry.seq;
        last_hash := entry.hash;
        root := sha256(root || entry.hash);
    END LOOP;
END $$;
COMMENT ON FUNCTION batch_audit.segment_root IS
    'Walks the entries of a month, and says what seals them; an error where one of them does not hold.';

CREATE FUNCTION batch_audit.seal_months(principal text, correlation text) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    over_month date;
    walked record;
    number integer := 0;
BEGIN
    FOR over_month IN
        SELECT p.month FROM (
            SELECT to_date(right(c.relname, 7), 'YYYY_MM') AS month
            FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
            WHERE i.inhparent = 'batch_audit.audit_event'::regclass) AS p, batch_audit.audit_head AS h
        WHERE p.month < date_trunc('month', h.created_at AT TIME ZONE 'UTC')
            AND NOT EXISTS (SELECT FROM batch_audit.audit_segment AS s WHERE s.month = p.month)
        ORDER BY 1 LOOP
        SELECT * INTO walked FROM batch_audit.segment_root(over_month);
        CONTINUE WHEN walked.first_seq IS NULL;
        INSERT INTO batch_audit.audit_segment (month, first_seq, last_seq, entries, first_prev_hash,
            last_hash, root, sealed_by)
        VALUES (over_month, walked.first_seq, walked.last_seq, walked.last_seq - walked.first_seq + 1,
            walked.first_prev_hash, walked.last_hash, walked.root, principal)
        ON CONFLICT DO NOTHING;
        CONTINUE WHEN NOT FOUND;
        PERFORM batch_audit.append_event(principal, 'trail.sealed', 'SUCCESS', 'segment',
            to_char(over_month, 'YYYY-MM'), correlation, NULL, NULL,
            jsonb_build_object('segment', batch_audit.segment_facts(over_month)));
        number := number + 1;
    END LOOP;
    RETURN number;
END $$;
COMMENT ON FUNCTION batch_audit.seal_months IS
    'Seals the months of the trail that are over, each by an entry; gives how many.';

CREATE FUNCTION batch_audit.holds_over_month(of_month date) RETURNS SETOF bigint
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH month AS (
        SELECT of_month::timestamp AT TIME ZONE 'UTC' AS start,
            (of_month + interval '1 month') AT TIME ZONE 'UTC' AS until),
    held AS (
        SELECT l.hold_id, h.batch_id, h.correlation_id
        FROM batch_audit.legal_hold AS l JOIN batch_audit.import_history AS h
            ON (l.batch_id IS NULL OR l.batch_id = h.batch_id) AND (l.feed IS NULL OR l.feed = h.feed)
            AND (l.since IS NULL OR coalesce(h.completed_at, h.published_at, h.started_at) >= l.since)
            AND (l.until IS NULL OR h.started_at < l.until)
        WHERE l.lifted_at IS NULL)
    SELECT l.hold_id FROM batch_audit.legal_hold AS l, month AS m
    WHERE l.lifted_at IS NULL AND l.batch_id IS NULL
        AND (l.since IS NULL OR l.since < m.until) AND (l.until IS NULL OR l.until > m.start)
    UNION
    SELECT d.hold_id FROM held AS d, month AS m, batch_audit.audit_event AS e
    WHERE e.created_at >= m.start AND e.created_at < m.until AND e.resource_id = d.batch_id::text
    UNION
    SELECT d.hold_id FROM held AS d, month AS m, batch_audit.audit_event AS e
    WHERE e.created_at >= m.start AND e.created_at < m.until AND e.correlation_id = d.correlation_id
    ORDER BY 1
$$;
COMMENT ON FUNCTION batch_audit.holds_over_month IS
    'Legal holds over a month of the trail: over its time, or over a batch of which it has an entry.';

CREATE FUNCTION batch_audit.last_words(of_month date)
RETURNS TABLE (resource_type text, resource_id text, correlation_id text, details jsonb)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH told AS (
        SELECT e.resource_type, e.resource_id, e.seq, e.correlation_id, w.what, w.said
        FROM batch_audit.audit_event AS e
        CROSS JOIN LATERAL (VALUES
            ('history', e.details -> 'history'), ('root', e.details -> 'root'),
            ('segment', e.details -> 'segment')) AS w (what, said)
        WHERE e.created_at >= of_month::timestamp AT TIME ZONE 'UTC'
            AND e.created_at < (of_month + interval '1 month') AT TIME ZONE 'UTC'
            AND e.resource_type IN ('batch', 'segment') AND w.said IS NOT NULL
            AND (w.what = 'segment') = (e.resource_type = 'segment')),
    last AS (
        SELECT DISTINCT ON (t.resource_type, t.resource_id, t.what) t.*
        FROM told AS t ORDER BY t.resource_type, t.resource_id, t.what, t.seq DESC)
    SELECT l.resource_type, l.resource_id, max(l.correlation_id),
        jsonb_object_agg(l.what, l.said) || jsonb_build_object('said_by', max(l.seq))
    FROM last AS l
    WHERE NOT EXISTS (
        SELECT FROM batch_audit.audit_event AS later
        WHERE later.resource_id = l.resource_id AND later.resource_type = l.resource_type
            AND later.created_at >= (of_month + interval '1 month') AT TIME ZONE 'UTC'
            AND later.details ? l.what)
    GROUP BY 1, 2 ORDER BY 1, 2
$$;
COMMENT ON FUNCTION batch_audit.last_words IS
    'What a month of the trail says of batches and segments, and no later entry does.';

CREATE FUNCTION batch_audit.carry_on(of_month date, at_most integer, principal text, correlation text)
RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    word record;
    number integer := 0;
BEGIN
    IF NOT EXISTS (SELECT FROM batch_audit.audit_segment WHERE month = of_month) THEN
        RAISE EXCEPTION 'the month % of the audit trail is not sealed', of_month
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    FOR word IN SELECT * FROM batch_audit.last_words(of_month) LIMIT at_most LOOP
        PERFORM batch_audit.append_event(principal, 'trail.carried', 'SUCCESS', word.resource_type,
            word.resource_id, coalesce(word.correlation_id, correlation), NULL, NULL,
            word.details || jsonb_build_object('month', to_char(of_month, 'YYYY-MM')));
        number := number + 1;
    END LOOP;
    RETURN number;
END $$;
COMMENT ON FUNCTION batch_audit.carry_on IS
    'Says again, by new entries, what nothing but a month that is to go says; gives how many.';

CREATE FUNCTION batch_audit.remove_segment(of_month date, its_root bytea, its_place text, its_seal text,
    its_rule text, its_source text, its_due timestamptz, principal text, correlation text)
RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    sealed record;
    walked record;
    hold bigint;
    child text := 'audit_event_' || to_char(of_month, 'YYYY_MM');
BEGIN
    -- Before anything is read: no hold is set from here on, and each that was set is seen.
    LOCK TABLE batch_audit.legal_hold IN SHARE MODE;
    SELECT * INTO sealed FROM batch_audit.audit_segment WHERE month = of_month FOR UPDATE;
    IF sealed IS NULL OR sealed.removed_at IS NOT NULL THEN
        RAISE EXCEPTION 'the month % of the audit trail is not sealed, or gone', of_month
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    IF its_due > clock_timestamp() OR its_due < (of_month + interval '1 month') AT TIME ZONE 'UTC' THEN
        RAISE EXCEPTION 'the time of the month % of the audit trail is not over', of_month
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    FOR hold IN SELECT * FROM batch_audit.holds_over_month(of_month) LOOP
        RAISE EXCEPTION 'legal hold % is over the month % of the audit trail', hold, of_month
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END LOOP;
    SELECT * INTO walked FROM batch_audit.segment_root(of_month);
    IF ROW(walked.first_seq, walked.last_seq, walked.first_prev_hash, walked.last_hash, walked.root,
           its_root)
            IS DISTINCT FROM ROW(sealed.first_seq, sealed.last_seq, sealed.first_prev_hash,
                                 sealed.last_hash, sealed.root, sealed.root) THEN
        RAISE EXCEPTION 'the month % of the audit trail is not what was sealed, or not what the bag has',
            of_month USING ERRCODE = 'data_corrupted';
    END IF;
    IF EXISTS (SELECT FROM batch_audit.last_words(of_month)) THEN
        RAISE EXCEPTION 'the month % of the audit trail says what no later entry does: '
            'batch_audit.carry_on', of_month USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    -- The order of all who append: the chain, then the table. Given up before PostgreSQL looks for a
    -- deadlock (after 1 s): else somebody's COMMIT may be what it ends.
    PERFORM set_config('lock_timeout', '500ms', true);
    PERFORM batch_audit.lock_chain();
    LOCK TABLE batch_audit.audit_event IN ACCESS EXCLUSIVE MODE;
    EXECUTE format('DROP TABLE batch_audit.%I', child);
    UPDATE batch_audit.audit_segment
    SET place = its_place, tagmanifest_sha256 = its_seal, rule = its_rule, legal_source = its_source,
        due_at = its_due, removed_at = clock_timestamp(), removed_by = principal
    WHERE month = of_month;
    PERFORM batch_audit.append_event(principal, 'trail.removed', 'SUCCESS', 'segment',
        to_char(of_month, 'YYYY-MM'), correlation, NULL, NULL,
        jsonb_build_object('segment', batch_audit.segment_facts(of_month)));
    RETURN sealed.entries;
END $$;
COMMENT ON FUNCTION batch_audit.remove_segment IS
    'The only way for entries out of the trail: a sealed month as a whole, of which the root stays.';
"""
DOWNGRADE = """
DO $$ BEGIN
    IF EXISTS (SELECT FROM batch_audit.audit_segment WHERE removed_at IS NOT NULL) THEN
        RAISE EXCEPTION 'months of the audit trail were removed: without their roots it would not hold'
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
END $$;
DROP FUNCTION
    batch_audit.remove_segment(date, bytea, text, text, text, text, timestamptz, text, text),
    batch_audit.carry_on(date, integer, text, text), batch_audit.last_words(date),
    batch_audit.holds_over_month(date), batch_audit.seal_months(text, text),
    batch_audit.segment_root(date), batch_audit.segment_facts(date);
DROP TABLE batch_audit.audit_segment;
DROP FUNCTION batch_audit.remove_once();
"""


def upgrade() -> None:
    """Make room for seals."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Forget them, where every month is still there."""
    op.execute(DOWNGRADE)
