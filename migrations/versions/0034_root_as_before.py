"""The root of a batch's details as it was before rejects got a column that is computed from another."""

from __future__ import annotations

from alembic import op

revision = "0034"
down_revision = "0033"

# raw_bytes (0032) is derived from raw, which is in it: with it, roots from before would no longer hold.
UPGRADE = r"""
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
"""


def upgrade() -> None:
    """Leave the derived column out."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Take every column."""
    op.execute(DOWNGRADE)
