"""Roles: partitions of a month are made by the ledger's owner, for whoever may only append."""

from __future__ import annotations

from alembic import op

revision = "0024"
down_revision = "0023"

# Who owns what and who may do what stands in `engine.roles.grants`, and is settled after each upgrade.
UPGRADE = """
CREATE OR REPLACE FUNCTION batch_audit.ensure_month(parent regclass, at timestamptz) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    first date := date_trunc('month', at AT TIME ZONE 'UTC');
    child text := format('%s_%s', (SELECT relname FROM pg_class WHERE oid = parent),
                         to_char(first, 'YYYY_MM'));
BEGIN
    IF to_regclass(format('batch_audit.%I', child)) IS NULL THEN
        IF NOT EXISTS (SELECT FROM pg_class WHERE oid = parent AND relkind = 'p'
                       AND relnamespace = 'batch_audit'::regnamespace) THEN
            RAISE EXCEPTION '% is no partitioned table of the ledger', parent
                USING ERRCODE = 'wrong_object_type';
        END IF;
        PERFORM pg_advisory_xact_lock(hashtextextended('batch_audit.ensure_month', 0));
        IF to_regclass(format('batch_audit.%I', child)) IS NULL THEN
            EXECUTE format(
                'CREATE TABLE batch_audit.%I PARTITION OF %s FOR VALUES FROM (%L) TO (%L)', child,
                parent, first::timestamp AT TIME ZONE 'UTC',
                (first + interval '1 month') AT TIME ZONE 'UTC');
        END IF;
    END IF;
END $$;
COMMENT ON FUNCTION batch_audit.ensure_month(regclass, timestamptz) IS
    'Makes the partition of a month, as the ledger''s owner: who writes may not create tables in it.';
"""
DOWNGRADE = """
COMMENT ON FUNCTION batch_audit.ensure_month(regclass, timestamptz) IS NULL;
ALTER FUNCTION batch_audit.ensure_month(regclass, timestamptz) SECURITY INVOKER RESET search_path;
"""


def upgrade() -> None:
    """Let the owner make partitions for others."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Let whoever writes make them."""
    op.execute(DOWNGRADE)
