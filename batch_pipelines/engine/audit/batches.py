"""What the trail says of batches, against what the ledger says: their rows, and the roots of details."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg import sql

from batch_pipelines.engine.audit.chain import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from batch_pipelines.engine.postgres.database import Connection

# A batch at which a run is at work is on its way from one entry to the next. The trail has to say so,
# too: else who changes the ledger's word of a batch would only have to say that one is at work on it.
_AT_WORK = """
    CASE WHEN h.status = 'IN_PROGRESS' OR EXISTS (
        SELECT FROM batch_audit.batch_stage AS s
        WHERE s.batch_id = h.batch_id AND s.status = 'IN_PROGRESS')
    THEN EXISTS (
        SELECT FROM batch_audit.audit_event AS s
        WHERE s.resource_id = h.batch_id::text AND s.resource_type = 'batch'
            AND s.action IN ('batch.ingest.started', 'batch.checksum.started',
                             'batch.bulk_write.started', 'batch.validate.started',
                             'batch.archive.started')
            AND NOT EXISTS (
                SELECT FROM batch_audit.audit_event AS d
                WHERE d.resource_id = s.resource_id AND d.resource_type = 'batch' AND d.seq > s.seq
                    AND d.action IN (replace(s.action, '.started', '.done'),
                                     replace(s.action, '.started', '.failed'))))
        OR coalesce((
            SELECT e.details #>> '{history,status}' FROM batch_audit.audit_event AS e
            WHERE e.resource_id = h.batch_id::text AND e.resource_type = 'batch'
                AND e.details ? 'history' ORDER BY e.seq DESC LIMIT 1), 'IN_PROGRESS') = 'IN_PROGRESS'
    ELSE false END
"""
_COUNT = f"""
SELECT count(*), count(*) FILTER (WHERE {_AT_WORK}) FROM batch_audit.import_history AS h
"""  # of constants
_HISTORY = f"""
WITH last AS (
    SELECT DISTINCT ON (resource_id) resource_id, seq, nullif(details -> 'history', 'null') AS told
    FROM batch_audit.audit_event
    WHERE resource_type = 'batch' AND details ? 'history' ORDER BY resource_id, seq DESC)
SELECT coalesce(last.resource_id, h.batch_id::text), last.seq, last.told, facts.found
FROM last FULL JOIN batch_audit.import_history AS h ON h.batch_id::text = last.resource_id
CROSS JOIN LATERAL (SELECT batch_audit.history_facts(h.batch_id) AS found) AS facts
WHERE last.told IS DISTINCT FROM facts.found AND ({_AT_WORK}) IS NOT TRUE
ORDER BY last.seq NULLS FIRST, 1
"""  # of constants
_ROOTS = f"""
WITH last AS (
    SELECT DISTINCT ON (resource_id) resource_id, seq, details -> 'root' AS told
    FROM batch_audit.audit_event
    WHERE resource_type = 'batch' AND details ? 'root' ORDER BY resource_id, seq DESC)
SELECT h.batch_id::text, h.feed || '/' || h.partition_key, last.seq, last.told, roots.found
FROM last JOIN batch_audit.import_history AS h ON h.batch_id::text = last.resource_id
CROSS JOIN LATERAL (
    SELECT batch_audit.detail_root(
        h.batch_id, coalesce((last.told ->> 'columns')::integer, 1)) AS found) AS roots
WHERE last.told IS DISTINCT FROM roots.found AND NOT ({_AT_WORK})
ORDER BY last.seq
"""  # of constants

# No root covers details of a batch that is not there: they were put in.
_DETAILS = (
    "import_file", "crc32_audit", "batch_table", "batch_column", "row_digest", "whole_digest",
    "batch_signature", "import_reject", "critical_record", "validation_log", "validation_summary",
    "row_event",
)  # fmt: skip
_OF_NO_BATCH = sql.SQL("""
SELECT {name}, d.batch_id::text, count(*) FROM batch_audit.{table} AS d
WHERE d.batch_id IS NOT NULL
    AND NOT EXISTS (SELECT FROM batch_audit.import_history AS h WHERE h.batch_id = d.batch_id)
GROUP BY 2 ORDER BY 2
""")


@dataclass(frozen=True, slots=True)
class Compared:
    """How many batches were compared with the trail.

    Attributes:
        batches: Batches in the ledger.
        at_work: Of these, those that a run is at work on: they are not compared.
    """

    batches: int
    at_work: int


def compared(connection: Connection) -> Compared:
    """Count what `differences` compares."""
    ((batches, at_work),) = connection.execute(_COUNT).fetchall()
    return Compared(batches, at_work)


def differences(connection: Connection) -> Iterator[Finding]:
    """Find the batches of which the ledger does not say what the trail says.

    Args:
        connection: A connection inside a transaction.

    Yields:
        Each batch whose row differs, each table of details that does not have its root, and details of
        batches that are not there.
    """
    with connection.cursor("audit_history") as cursor:
        for batch_id, seq, told, found in cursor.execute(_HISTORY):
            yield Finding(seq, "history", _differing(batch_id, told, found))
    with connection.cursor("audit_roots") as cursor:
        for batch_id, name, seq, told, found in cursor.execute(_ROOTS):
            for table in sorted({*told, *found} - {"columns"}):
                if told.get(table) != found.get(table):
                    message = (
                        f"batch {batch_id} ({name}): {table} is not what the trail has of it: "
                        f"expected {_rows(told.get(table))}, found {_rows(found.get(table))}"
                    )
                    yield Finding(seq, "root", message)
    for name in _DETAILS:
        query = _OF_NO_BATCH.format(name=sql.Literal(name), table=sql.Identifier(name))
        for table, batch_id, number in connection.execute(query).fetchall():
            message = f"{table} has {number} rows of a batch {batch_id}, of which there is none"
            yield Finding(None, "root", message)


def _differing(
    batch_id: str, told: Mapping[str, Any] | None, found: Mapping[str, Any] | None
) -> str:
    if told is None:
        return f"batch {batch_id} stands in import_history, and the trail knows nothing of it"
    if found is None:
        return f"batch {batch_id} of the trail is gone from import_history"
    columns = [name for name in sorted({*told, *found}) if told.get(name) != found.get(name)]
    return f"batch {batch_id}: import_history has another {', '.join(columns)} than the trail"


def _rows(root: Mapping[str, Any] | None) -> str:
    return "no rows" if root is None else f"{root['rows']} rows with hash {root['sha256'][:16]}"
