"""Roots of details over what erasures count, too: the lists of columns get their second version."""

from __future__ import annotations

from alembic import op

revision = "0040"
down_revision = "0039"

# Each list with the versions that it is of, from and to; a root from before stays one of its version.
UPGRADE = r"""
CREATE OR REPLACE FUNCTION batch_audit.detail_columns(version integer)
RETURNS TABLE (detail text, columns text[]) LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT v.detail, v.columns::text[] FROM (VALUES
        (1, NULL::integer, 'import_file',
            '{batch_id,file_name,target_table,size,format,compression,crc32c,sha256,
            expected_crc32c,expected_source,records,table_records,expected_size,expected_digests,problem,
            set_aside}'),
        (1, NULL, 'crc32_audit', '{id,batch_id,entity_type,entity_id,computed_crc32,expected_crc32,
            expected_source,status,bytes_processed,processing_time_ms,throughput_mbps,hardware_utilized,
            simd_instructions,retry_count,error_details,created_at,digest_algorithm,computed_digest,
            expected_digest}'),
        (1, 1, 'batch_table', '{batch_id,target_table,source_records,inserted,updated,unchanged,rejected,
            skipped,superseded_within,removed,columns,normalised,digest_sum,digest_moment,
            isolation_statements,filled,column_types,server_changed}'),
        (2, NULL, 'batch_table',
            '{batch_id,target_table,source_records,inserted,updated,unchanged,rejected,
            skipped,superseded_within,removed,columns,normalised,digest_sum,digest_moment,
            isolation_statements,filled,column_types,server_changed,
            erased,erased_rejects}'),
        (1, NULL, 'batch_column', '{batch_id,target_table,column_name,place,fidelity,reason}'),
        (1, NULL, 'row_digest', '{batch_id,target_table,file_name,chunk,first_record,records,digest_sum,
            digest_moment}'),
        (1, NULL, 'whole_digest', '{batch_id,target_table,columns,records,digest_sum,digest_moment}'),
        (1, NULL, 'batch_signature', '{id,batch_id,target_table,columns,entries,bulk,statements,fallback,
            seconds}'),
        (1, NULL, 'import_reject', '{id,batch_id,feed,target_table,file_name,record_number,line_number,
            byte_offset,raw,column_name,sqlstate,constraint_name,message,breaches,created_at,replayed_at,
            replayed_by,skipped}'),
        (1, NULL, 'critical_record', '{critical_record_id,batch_id,target_table,condition,record_key,
            alert_key}'),
        (1, NULL, 'validation_log',
            '{id,batch_id,run_id,target_table,status,started_at,completed_at,exception,
            feed,requested_by}'),
        (1, NULL, 'validation_summary',
            '{log_id,batch_id,target_table,src_records,tgt_records,src_extras,
            tgt_extras,mismatches,matches,checks,overall_status,details}')
    ) AS v (since, until, detail, columns)
    WHERE version BETWEEN 1 AND 2 AND version BETWEEN v.since AND coalesce(v.until, version)
$$;

CREATE OR REPLACE FUNCTION batch_audit.detail_root(batch uuid) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT batch_audit.detail_root(batch, 2)
$$;
"""
DOWNGRADE = r"""
CREATE OR REPLACE FUNCTION batch_audit.detail_root(batch uuid) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT batch_audit.detail_root(batch, 1)
$$;
CREATE OR REPLACE FUNCTION batch_audit.detail_columns(version integer)
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
"""


def upgrade() -> None:
    """Take roots over them."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Take roots over the first lists; those that were taken over the second do not hold there."""
    op.execute(DOWNGRADE)
