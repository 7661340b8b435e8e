"""An entry for each record, of feeds that must have one; roots of details by lists of columns."""

from __future__ import annotations

from alembic import op

revision = "0036"
down_revision = "0035"

# A root is taken over the columns that its version lists, so one that a table gets later changes no
# root from before. Lists are never changed: another one gets the next number, and `detail_root(uuid)`
# takes that.
UPGRADE = r"""
CREATE TABLE batch_audit.row_event (
    batch_id uuid NOT NULL,
    target_table text NOT NULL,
    action text NOT NULL,
    principal text,
    key_sha256 bytea,
    created_at timestamptz NOT NULL DEFAULT statement_timestamp()
) PARTITION BY RANGE (created_at);
CREATE INDEX ON batch_audit.row_event (batch_id);
COMMENT ON TABLE batch_audit.row_event IS
    'An entry for each record that was written, of feeds that say `audit_event: row`.';
COMMENT ON COLUMN batch_audit.row_event.principal IS
    'Who made the record, as it was delivered in the column that the feed names; nobody has proven it.';
COMMENT ON COLUMN batch_audit.row_event.key_sha256 IS
    'SHA-256 of the batch''s id and the record''s key; null of a table without a key.';
-- The function makes partitions as its owner, who in a ledger with roles has to own the table, too.
DO $$ BEGIN
    EXECUTE (SELECT format('ALTER TABLE batch_audit.row_event OWNER TO %I', pg_get_userbyid(proowner))
             FROM pg_proc
             WHERE oid = 'batch_audit.ensure_month(regclass,timestamptz)'::regprocedure);
END $$;
SELECT batch_audit.ensure_month('batch_audit.row_event', clock_timestamp()),
       batch_audit.ensure_month('batch_audit.row_event', clock_timestamp() + interval '1 month');

CREATE FUNCTION batch_audit.row_event_root(batch uuid) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    -- In two steps, so that no aggregate gets large.
    SELECT jsonb_build_object('rows', sum(g.rows), 'sha256',
                              encode(sha256(string_agg(g.hash, ''::bytea ORDER BY g.first)), 'hex'))
    FROM (
        SELECT substr(e.hash, 1, 2) AS first, count(*) AS rows,
               sha256(string_agg(e.hash, ''::bytea ORDER BY e.hash)) AS hash
        FROM (SELECT sha256(record_send(ROW(r.target_table, r.action, r.principal, r.key_sha256)))
                  AS hash
              FROM batch_audit.row_event AS r WHERE r.batch_id = batch) AS e
        GROUP BY 1) AS g
    HAVING count(*) > 0
$$;
COMMENT ON FUNCTION batch_audit.row_event_root IS
    'How many records'' entries a batch has, and the hash of their hashes; null where it has none.';

CREATE FUNCTION batch_audit.detail_columns(version integer)
RETURNS TABLE (detail text, columns text[]) LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT v.detail, v.columns::text[] FROM (VALUES
        (1, 'import_file', '{batch_id,file_name,target_table,size,format,compression,crc32c,sha256,
            expected_crc32c,expected_source,records,table_records,expected_size,expected_digests,problem,
            set_aside}'),
        (1, 'crc32_audit', '{id,batch_id,entity_type,entity_id,computed_crc32,expected_crc32,
            expected_source,status,bytes_processed,processing_time_ms,throughput_mbps,hardware_utilized,
            simd_instructions,retry_count,error_details,created_at,digest_algorithm,computed_digest,
            expected_digest}'),
        (1, 'batch_table', '{batch_id,target_table,source_records,inserted,updated,unchanged,rejected,
            skipped,superseded_within,removed,columns,normalised,digest_sum,digest_moment,
            isolation_statements,filled,column_types,server_changed}'),
        (1, 'batch_column', '{batch_id,target_table,column_name,place,fidelity,reason}'),
        (1, 'row_digest', '{batch_id,target_table,file_name,chunk,first_record,records,digest_sum,
            digest_moment}'),
        (1, 'whole_digest', '{batch_id,target_table,columns,records,digest_sum,digest_moment}'),
        (1, 'batch_signature', '{id,batch_id,target_table,columns,entries,bulk,statements,fallback,
            seconds}'),
        (1, 'import_reject', '{id,batch_id,feed,target_table,file_name,record_number,line_number,
            byte_offset,raw,column_name,sqlstate,constraint_name,message,breaches,created_at,replayed_at,
            replayed_by,skipped}'),
        (1, 'critical_record', '{critical_record_id,batch_id,target_table,condition,record_key,
            alert_key}'),
        (1, 'validation_log', '{id,batch_id,run_id,target_table,status,started_at,completed_at,exception,
            feed,requested_by}'),
        (1, 'validation_summary', '{log_id,batch_id,target_table,src_records,tgt_records,src_extras,
            tgt_extras,mismatches,matches,checks,overall_status,details}')
    ) AS v (number, detail, columns) WHERE v.number = version
$$;
COMMENT ON FUNCTION batch_audit.detail_columns IS
    'Over which columns a root of details is taken, by version: that is what `columns` of a root says.';

CREATE FUNCTION batch_audit.detail_root(batch uuid, version integer) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET TimeZone = 'UTC' AS $$
DECLARE
    listed record;
    hash bytea;
    so_far bytea;
    number bigint;
    root jsonb := '{}';
    of_rows jsonb := batch_audit.row_event_root(batch);
BEGIN
    FOR listed IN
        SELECT d.detail, (SELECT string_agg(quote_ident(c), ', ') FROM unnest(d.columns) AS c) AS columns
        FROM batch_audit.detail_columns(version) AS d LOOP
        so_far := '';
        number := 0;
        FOR hash IN EXECUTE format('
            SELECT sha256(convert_to(jsonb_strip_nulls(to_jsonb(t))::text, ''UTF8'')) AS h
            FROM (SELECT %s FROM batch_audit.%I WHERE batch_id = $1) AS t ORDER BY h',
            listed.columns, listed.detail) USING batch LOOP
            so_far := sha256(so_far || hash);
            number := number + 1;
        END LOOP;
        IF number > 0 THEN
            root := root || jsonb_build_object(listed.detail, jsonb_build_object(
                'rows', number, 'sha256', encode(so_far, 'hex')));
        END IF;
    END LOOP;
    IF of_rows IS NOT NULL THEN
        root := root || jsonb_build_object('row_event', of_rows);
    END IF;
    IF version > 1 THEN
        root := root || jsonb_build_object('columns', version);
    END IF;
    RETURN root;
END $$;
COMMENT ON FUNCTION batch_audit.detail_root(uuid, integer) IS
    'By table: how many rows of details a batch has, and the hash of their hashes, in order.';

CREATE OR REPLACE FUNCTION batch_audit.detail_root(batch uuid) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT batch_audit.detail_root(batch, 1)
$$;
COMMENT ON FUNCTION batch_audit.detail_root(uuid) IS
    'The root of a batch''s details over the columns that are listed now.';
"""
DOWNGRADE = r"""
CREATE OR REPLACE FUNCTION batch_audit.detail_root(batch uuid) RETURNS jsonb
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
            SELECT sha256(convert_to(
                jsonb_strip_nulls(to_jsonb(t) - ''raw_bytes'')::text, ''UTF8'')) AS h
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
COMMENT ON FUNCTION batch_audit.detail_root(uuid) IS
    'By table: how many rows of details a batch has, and the hash of their hashes, in order.';
DROP FUNCTION batch_audit.detail_root(uuid, integer), batch_audit.detail_columns(integer),
    batch_audit.row_event_root(uuid);
DROP TABLE batch_audit.row_event;
"""


def upgrade() -> None:
    """Make room for them."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Drop them."""
    op.execute(DOWNGRADE)
