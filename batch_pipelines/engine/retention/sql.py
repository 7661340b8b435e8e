"""The statements of retention: what is due, what keeps it, and what a class of data consists of.

The calendar is PostgreSQL's: periods are added to moments in UTC, and a month that has no such day ends
with its last one. The time comes as a parameter, so that one moment judges everything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, LiteralString

from psycopg import sql

from batch_pipelines.engine.catalog import STAMP

if TYPE_CHECKING:
    from batch_pipelines.engine.feed_parts.retention import DataClass

RECORDS: Final[dict[DataClass, dict[LiteralString, LiteralString]]] = {
    "before_images": {"row_before_image": "id", "superseded_row": "id"},
    "quarantine": {"import_reject": "id"},
    "ledger": {
        "crc32_audit": "created_at, id",
        "row_digest": "target_table, file_name, chunk",
        "row_event": "target_table, key_sha256, action, principal, created_at",
        "batch_column": "target_table, column_name",
        "batch_signature": "id",
        "validation_summary": "log_id",
        "verification_log": "id",
        "batch_stage": "stage",
    },
}
"""Tables of the ledger that a class consists of, each with an order in which its lines are unique."""

# Of a batch that never was published the period counts from its end, too.
_DUE: LiteralString = """
WITH term AS (
    SELECT * FROM unnest(%(keep)s::interval[], %(cut_off)s::text[], %(text)s::text[],
                         %(legal_source)s::text[], %(own)s::boolean[])
        AS t (keep, cut_off, text, legal_source, own)),
due AS (
    SELECT h.*, d.* FROM batch_audit.import_history AS h
    CROSS JOIN LATERAL (
        SELECT max(moment) AS due_at, min(moment) FILTER (WHERE own) AS first_due,
               (array_agg(text ORDER BY moment DESC))[1] AS rule,
               (array_agg(legal_source ORDER BY moment DESC))[1] AS legal_source
        FROM (SELECT keep + CASE cut_off WHEN 'published' THEN coalesce(h.published_at, h.completed_at)
                            ELSE h.completed_at END AS moment, text, legal_source, own
              FROM term) AS m) AS d
    WHERE h.feed = %(feed)s AND h.completed_at IS NOT NULL AND h.status <> 'IN_PROGRESS'
      AND (%(batch_id)s::uuid IS NULL OR h.batch_id = %(batch_id)s) AND d.first_due <= %(now)s)
SELECT h.batch_id::text, h.feed, h.partition_key, h.status, h.rule, h.legal_source, h.due_at,
"""
DUE: Final[dict[DataClass, LiteralString]] = {
    # Their bytes are not counted row by row: the table's, by its share of rows.
    "rows": _DUE
    + """
    (SELECT sum(inserted + updated + unchanged)::bigint FROM batch_audit.batch_table AS t
     WHERE t.batch_id = h.batch_id) AS records,
    (SELECT coalesce(sum((inserted + updated + unchanged) * pg_table_size(c.oid)
                         / greatest(c.reltuples, inserted + updated + unchanged, 1)), 0)::bigint
     FROM batch_audit.batch_table AS t JOIN pg_class AS c ON c.oid = to_regclass(t.target_table)
     WHERE t.batch_id = h.batch_id) AS bytes
FROM due AS h
WHERE h.status IN ('PUBLISHED', 'SUCCESS', 'PARTIAL_SUCCESS', 'VALIDATION_FAILED')
  AND EXISTS (SELECT FROM batch_audit.batch_table AS t WHERE t.batch_id = h.batch_id)
ORDER BY h.due_at, h.batch_id
""",
    "before_images": _DUE
    + """
    (SELECT count(*) FROM batch_audit.row_before_image AS i WHERE i.batch_id = h.batch_id)
    + (SELECT count(*) FROM batch_audit.superseded_row AS s WHERE s.batch_id = h.batch_id) AS records,
    coalesce((SELECT sum(pg_column_size(i.*)) FROM batch_audit.row_before_image AS i
              WHERE i.batch_id = h.batch_id), 0)
    + coalesce((SELECT sum(pg_column_size(s.*)) FROM batch_audit.superseded_row AS s
                WHERE s.batch_id = h.batch_id), 0) AS bytes
FROM due AS h
WHERE EXISTS (SELECT FROM batch_audit.row_before_image AS i WHERE i.batch_id = h.batch_id)
   OR EXISTS (SELECT FROM batch_audit.superseded_row AS s WHERE s.batch_id = h.batch_id)
ORDER BY h.due_at, h.batch_id
""",
    "quarantine": _DUE
    + """
    r.records, r.bytes
FROM due AS h CROSS JOIN LATERAL (
    -- Whoever plans may not look at the records themselves.
    SELECT count(*) AS records, sum(r.raw_bytes + octet_length(r.breaches::text))::bigint AS bytes
    FROM batch_audit.import_reject AS r WHERE r.batch_id = h.batch_id) AS r
WHERE r.records > 0 ORDER BY h.due_at, h.batch_id
""",
    "ledger": _DUE
    + """
    c.records + d.records AS records, coalesce(c.bytes, 0) + coalesce(d.bytes, 0) AS bytes
FROM due AS h CROSS JOIN LATERAL (
    SELECT count(*) AS records, sum(pg_column_size(c.*)) AS bytes FROM batch_audit.crc32_audit AS c
    WHERE c.batch_id = h.batch_id) AS c
CROSS JOIN LATERAL (
    SELECT count(*) AS records, sum(pg_column_size(d.*)) AS bytes FROM batch_audit.row_digest AS d
    WHERE d.batch_id = h.batch_id) AS d
WHERE c.records + d.records > 0 ORDER BY h.due_at, h.batch_id
""",
    "bags": _DUE
    + """
    a.records, a.bytes
FROM due AS h CROSS JOIN LATERAL (
    SELECT sum(payload_files)::bigint AS records, sum(payload_bytes)::bigint AS bytes
    FROM batch_audit.archive_manifest AS a
    WHERE a.batch_id = h.batch_id AND a.kind IN ('bag', 'records') AND a.state <> 'DELETED') AS a
WHERE a.records IS NOT NULL ORDER BY h.due_at, h.batch_id
""",
}
"""What of a feed a rule of its own would let go by now, with the rule that holds longest."""

NOT_ARCHIVED: Final = """
SELECT NOT EXISTS (SELECT FROM batch_audit.batch_stage
                   WHERE batch_id = %(batch_id)s AND stage = 'archive' AND status = 'SUCCESS')
"""
# Rows of the batch that later ones have overwritten stand in their images: they are to come back.
OVERWRITTEN: Final = """
SELECT i.batch_id::text, count(*) FROM batch_audit.row_before_image AS i
WHERE i.previous_batch_id = %(batch_id)s GROUP BY 1 ORDER BY 1
"""
# A batch that was superseded comes back by the rollback of the one that did it, as long as there is one.
COMES_BACK: Final = """
SELECT s.batch_id::text FROM batch_audit.import_history AS h
JOIN batch_audit.import_history AS s ON s.batch_id = h.superseded_by
WHERE h.batch_id = %(batch_id)s AND h.status = 'SUPERSEDED' AND s.superseded_rows_kept
  AND s.status NOT IN ('ROLLED_BACK', 'FAILED')
  AND (s.rollback_possible_until IS NULL OR s.rollback_possible_until > %(now)s)
"""
# Images of a superseded batch are what later images lead to.
LED_TO: Final = """
SELECT DISTINCT l.batch_id::text FROM batch_audit.import_history AS h
JOIN batch_audit.row_before_image AS l ON l.previous_batch_id = h.batch_id
JOIN batch_audit.import_history AS s ON s.batch_id = l.batch_id
WHERE h.batch_id = %(batch_id)s AND h.status = 'SUPERSEDED'
  AND (s.rollback_possible_until IS NULL OR s.rollback_possible_until > %(now)s)
"""
# Rows of another batch that this one has overwritten or superseded stand in its images alone.
WHOSE_IMAGES: Final = """
SELECT previous_batch_id::text FROM batch_audit.row_before_image
WHERE batch_id = %(batch_id)s AND previous_batch_id IS NOT NULL
UNION SELECT previous_batch_id::text FROM batch_audit.superseded_row
WHERE batch_id = %(batch_id)s AND previous_batch_id IS NOT NULL ORDER BY 1
"""
PROMISED: Final = """
SELECT rollback_possible_until FROM batch_audit.import_history
WHERE batch_id = %(batch_id)s AND rollback_possible_until > %(now)s
  AND status IN ('PUBLISHED', 'SUCCESS', 'PARTIAL_SUCCESS', 'VALIDATION_FAILED', 'ARCHIVED')
"""
# Who has rows brought back says for how long; the newest entry counts.
RESTORED: Final = """
SELECT principal_id, kept_until FROM (
    SELECT principal_id, (details ->> 'kept_until')::timestamptz AS kept_until
    FROM batch_audit.audit_event
    WHERE resource_type = 'batch' AND resource_id = %(batch_id)s AND action = 'batch.restore.done'
    ORDER BY seq DESC LIMIT 1) AS r
WHERE kept_until > %(now)s
"""
REFERRING: Final = sql.SQL("""
SELECT count(*) FROM {child} AS c
WHERE {staying} AND EXISTS (SELECT FROM {table} AS t WHERE t.{stamp} = {batch} AND {same})
""")
STAYING: Final = sql.SQL("c.{stamp} IS DISTINCT FROM {batch}")
STAMP_NAME: Final = sql.Identifier(STAMP)
CLOCK: Final = "SELECT clock_timestamp(), pg_is_in_recovery()"

NO_ROLLBACK: Final = """
UPDATE batch_audit.import_history
SET rollback_possible_until = least(rollback_possible_until, clock_timestamp()) WHERE batch_id = %s
"""
"""Says of a batch that it cannot be rolled back any more: what that needs is gone."""

OPENED: Final[dict[LiteralString, LiteralString]] = {"import_reject": "opened_reject"}
"""Views that show whole lines of tables of which nobody may read all columns; see `ledger.values`."""

DELETE_LINES: Final = sql.SQL("""
WITH gone AS (DELETE FROM batch_audit.{table} AS t WHERE batch_id = {batch} RETURNING *)
SELECT to_jsonb(t)::text FROM gone AS t ORDER BY {order}
""")
"""Deletes lines and gives what it has deleted, as `records` has put them away."""
LOCK_LINES: Final = sql.SQL("SELECT FROM batch_audit.{table} WHERE batch_id = {batch} FOR UPDATE")
DELETE_OPENED: Final = sql.SQL("""
WITH gone AS (DELETE FROM batch_audit.{table} WHERE batch_id = {batch} RETURNING id)
SELECT to_jsonb(t)::text FROM gone JOIN batch_audit.{view} AS t USING (id) ORDER BY {order}
""")
"""The same of a table in `OPENED`, after `LOCK_LINES`: the view shows lines as they were before, and
what is locked is not changed between."""
DELETE_ROWS: Final = sql.SQL("DELETE FROM {table} WHERE {stamp} = {batch}")
DELETE_AT_ONCE: Final = sql.SQL("WITH {parts} SELECT {counts}")
"""For tables that refer to each other in a circle: foreign keys are looked at when all are gone."""
ONE_OF_THEM: Final = sql.SQL("{name} AS (DELETE FROM {table} WHERE {stamp} = {batch} RETURNING 1)")
LOCK_ROWS: Final = sql.SQL("LOCK TABLE {} IN EXCLUSIVE MODE")
OIDS: Final = """
SELECT c.oid::bigint, n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND format('%%s.%%s', n.nspname, c.relname) = ANY(%s) ORDER BY 1
"""
SET: Final = "SELECT set_config(%s, %s, true)"
ARCHIVED: Final = """
UPDATE batch_audit.import_history
SET status_before = status, status = 'ARCHIVED', archived_at = clock_timestamp()
WHERE batch_id = %s AND status IN ('SUCCESS', 'PARTIAL_SUCCESS')
"""
ROOT: Final = "SELECT batch_audit.detail_root(%s)"
BAGS: Final = """
SELECT place FROM batch_audit.archive_manifest
WHERE batch_id = %s AND kind IN ('bag', 'records') AND state <> 'DELETED' ORDER BY id
"""
BAG_DELETED: Final = """
UPDATE batch_audit.archive_manifest
SET state = 'DELETED', checked_at = clock_timestamp(), problems = '{}' WHERE place = %s
"""
