"""How the tables of a batch are defined, from PostgreSQL's catalog; no row of theirs is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg.rows import scalar_row

if TYPE_CHECKING:
    from batch_pipelines.engine.postgres.database import Connection

# Statistics are left out: they hold values of rows.
_TABLES = """
SELECT jsonb_build_object(
    'table', t.target_table,
    'exists', c.oid IS NOT NULL,
    'kind', c.relkind, 'partition_key', pg_get_partkeydef(c.oid), 'options', c.reloptions,
    'rows_estimated', c.reltuples::bigint, 'bytes', pg_total_relation_size(c.oid),
    'row_security', c.relrowsecurity,
    'columns', (SELECT jsonb_agg(jsonb_build_object('name', a.attname,
            'type', format_type(a.atttypid, a.atttypmod), 'not_null', a.attnotnull,
            'default', pg_get_expr(d.adbin, d.adrelid), 'identity', nullif(a.attidentity, ''),
            'generated', nullif(a.attgenerated, ''),
            'collation', (SELECT collname FROM pg_collation WHERE oid = a.attcollation))
            ORDER BY a.attnum)
        FROM pg_attribute AS a LEFT JOIN pg_attrdef AS d ON (d.adrelid, d.adnum) = (a.attrelid, a.attnum)
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
    'constraints', (SELECT jsonb_agg(jsonb_build_object('name', conname,
            'definition', pg_get_constraintdef(oid), 'validated', convalidated) ORDER BY conname)
        FROM pg_constraint WHERE conrelid = c.oid),
    'referenced_by', (SELECT jsonb_agg(jsonb_build_object('table', conrelid::regclass::text,
            'name', conname, 'definition', pg_get_constraintdef(oid)) ORDER BY conrelid, conname)
        FROM pg_constraint WHERE confrelid = c.oid AND contype = 'f'),
    'indexes', (SELECT jsonb_agg(pg_get_indexdef(indexrelid) ORDER BY indexrelid)
        FROM pg_index WHERE indrelid = c.oid),
    'triggers', (SELECT jsonb_agg(pg_get_triggerdef(oid) ORDER BY tgname)
        FROM pg_trigger WHERE tgrelid = c.oid AND NOT tgisinternal))
FROM (SELECT target_table FROM batch_audit.batch_table WHERE batch_id = %(batch_id)s
      UNION SELECT unnest(%(tables)s::text[])) AS t
LEFT JOIN pg_class AS c ON c.oid = to_regclass(
    (SELECT string_agg(quote_ident(part), '.')
     FROM unnest(string_to_array(t.target_table, '.')) AS part))
ORDER BY t.target_table
"""


def table_definitions(
    connection: Connection, batch_id: str, tables: list[str]
) -> list[dict[str, object]]:
    """Describe the tables that a batch fills: columns, keys, checks, indexes, triggers, size.

    Args:
        connection: To the target database.
        batch_id: The batch.
        tables: Tables of its feed, with schema, which it may not have come to.

    Returns:
        A description of each, by name.
    """
    with connection.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(_TABLES, {"batch_id": batch_id, "tables": tables}).fetchall()
