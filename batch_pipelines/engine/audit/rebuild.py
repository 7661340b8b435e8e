"""`import_history` from the trail: what its rows were, by the last entry that tells of each batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from psycopg import sql
from psycopg.rows import scalar_row

from batch_pipelines.engine.ledger.events import Event, append

if TYPE_CHECKING:
    from batch_pipelines.engine.postgres.database import Connection

COLUMNS: Final = (
    "batch_id", "job_id", "feed", "feed_version", "partition_key", "status", "status_before", "attempt",
    "identity", "duplicate_of", "fingerprint", "requested_by", "correlation_id", "source_records",
    "written_records", "rejected_records", "skipped_records", "critical_records", "source_bytes",
    "started_at", "published_at", "completed_at", "rolled_back_at", "rolled_back_by", "rollback_reason",
    "superseded_by", "rollback_possible_until", "archived_at", "error_details", "failure_cause",
    "adopted_from", "compliance_context",
)  # fmt: skip
"""The columns that entries tell: those of the function `history_facts`."""

# A column that entries do not tell is what it is of a new batch.
_REBUILD = """
CREATE TEMP TABLE rebuilt_history ON COMMIT DROP AS
SELECT (jsonb_populate_record(NULL::batch_audit.import_history,
                              told || '{"published_xids": []}')).*
FROM (SELECT DISTINCT ON (resource_id) nullif(details -> 'history', 'null') AS told
      FROM batch_audit.audit_event
      WHERE resource_type = 'batch' AND details ? 'history'
      ORDER BY resource_id, seq DESC) AS last
WHERE told IS NOT NULL
"""
_SAME = sql.SQL("ROW({mine}) IS NOT DISTINCT FROM ROW({theirs})")
_DIFFERING = sql.SQL("""
SELECT batch_id::text
FROM rebuilt_history AS r LEFT JOIN batch_audit.import_history AS h USING (batch_id)
WHERE h.batch_id IS NULL OR NOT {same} ORDER BY r.started_at
""")
_WRITE = sql.SQL("""
INSERT INTO batch_audit.import_history AS h ({columns}) SELECT {columns} FROM rebuilt_history
WHERE batch_id::text = ANY(%s)
ON CONFLICT (batch_id) DO UPDATE SET ({columns}) = ROW({excluded})
""")
# Its triggers have counted what comes back, which was counted when it happened. How many batches there
# are is no counter: it went down with them.
_UNCOUNT = """
DELETE FROM batch_audit.metric_change
WHERE xmin = pg_current_xact_id()::xid AND metric <> 'batches'
"""


@dataclass(frozen=True)
class Rebuilt:
    """What rebuilding `import_history` found.

    Attributes:
        batches: Batches that the trail tells of and that are not gone.
        differing: Ids of those whose row is missing, or says something else; the oldest first.
    """

    batches: int
    differing: tuple[str, ...]


def rebuild(connection: Connection, *, write: bool, by: str) -> Rebuilt:
    """Rebuild `import_history` from the trail, and put right the rows that differ if asked to.

    A batch at which a run is at work has come further than its last entry: nobody may be importing.

    Args:
        connection: A connection in autocommit mode.
        write: Whether to write what differs; else it is only compared.
        by: Who wants it.

    Returns:
        What was found.
    """
    with connection.transaction(), connection.cursor(row_factory=scalar_row) as cursor:
        cursor.execute(_REBUILD)
        batches = cursor.execute("SELECT count(*) FROM rebuilt_history").fetchone()
        same = _SAME.format(mine=_listed("r"), theirs=_listed("h"))
        differing = cursor.execute(_DIFFERING.format(same=same)).fetchall()
        if write and differing:
            cursor.execute(
                _WRITE.format(
                    columns=sql.SQL(", ").join(map(sql.Identifier, COLUMNS)),
                    excluded=_listed("excluded"),
                ),
                (differing,),
            )
            cursor.execute(_UNCOUNT)
            said = {"batches": batches, "written": len(differing)}
            told = Event(by, "history.rebuilt", "SUCCESS", "ledger", "import_history", details=said)
            append(connection, told)
    return Rebuilt(batches or 0, tuple(differing))


def _listed(table: str) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(table, name) for name in COLUMNS)
