"""How far each stage of a batch came: its last try.

Not here: what that makes of the batch, batches.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from psycopg.rows import class_row

from batch_pipelines.engine.ledger.batch_events import tell, tell_unvalidated

if TYPE_CHECKING:
    import datetime as dt

    from batch_pipelines.engine.causes import Cause
    from batch_pipelines.engine.ledger.batch_events import Outcome
    from batch_pipelines.engine.postgres.database import Connection

Stage = Literal["ingest", "checksum", "bulk_write", "validate", "archive"]
STAGES: tuple[Stage, ...] = ("ingest", "checksum", "bulk_write", "validate", "archive")


@dataclass(frozen=True)
class StageRecord:
    """The last try of one stage of a batch; times with time zone."""

    stage: str
    run_id: str
    status: str
    started_at: dt.datetime
    completed_at: dt.datetime | None
    error_details: str | None
    failure_cause: str | None


_START = """
INSERT INTO batch_audit.batch_stage (batch_id, stage, run_id, status)
VALUES (%s, %s, %s, 'IN_PROGRESS')
ON CONFLICT (batch_id, stage) DO UPDATE SET run_id = excluded.run_id, status = 'IN_PROGRESS',
    started_at = clock_timestamp(), completed_at = NULL, error_details = NULL, failure_cause = NULL
"""
# A stage that ended together with its verdict did not fail, whatever interrupts its run afterwards.
_END = """
UPDATE batch_audit.batch_stage
SET status = %s, error_details = %s, failure_cause = %s, completed_at = clock_timestamp()
WHERE batch_id = %s AND stage = %s AND status = 'IN_PROGRESS'
"""
_OF_BATCH = """
SELECT stage, run_id::text, status, started_at, completed_at, error_details, failure_cause
FROM batch_audit.batch_stage WHERE batch_id = %s ORDER BY started_at
"""
_UNENDED = """
SELECT DISTINCT s.batch_id::text
FROM batch_audit.batch_stage AS s JOIN batch_audit.import_history AS h USING (batch_id)
WHERE s.status = 'IN_PROGRESS' AND h.feed = %s AND h.partition_key = %s ORDER BY 1
"""
_FORGET_VALIDATION = """
DELETE FROM batch_audit.batch_stage WHERE batch_id = %s AND stage IN ('validate', 'archive')
"""


def start(connection: Connection, batch_id: str, stage: Stage, run_id: str) -> None:
    """Write down that a stage has begun, in place of an earlier try."""
    with connection.transaction():
        connection.execute(_START, (batch_id, stage, run_id))
        tell(connection, batch_id, f"{stage}.started", "IN_PROGRESS", run_id=run_id)


def end(
    connection: Connection,
    batch_id: str,
    stage: Stage,
    why: str | None = None,
    cause: Cause | None = None,
) -> None:
    """Write down how a stage ended, if it has not ended yet; with a reason it failed."""
    status: Outcome = "SUCCESS" if why is None else "FAILED"
    done = "done" if why is None else "failed"
    with connection.transaction():
        if not connection.execute(_END, (status, why, cause, batch_id, stage)).rowcount:
            return
        if stage == "validate" and why is not None:
            tell_unvalidated(connection, batch_id, why=why, cause=cause)
        else:
            tell(connection, batch_id, f"{stage}.{done}", status, why=why, cause=cause)


def of_batch(connection: Connection, batch_id: str) -> dict[str, StageRecord]:
    """Read the last try of each stage, in the order in which they began."""
    with connection.cursor(row_factory=class_row(StageRecord)) as cursor:
        return {record.stage: record for record in cursor.execute(_OF_BATCH, (batch_id,))}


def unended(connection: Connection, feed: str, key: str) -> list[str]:
    """List the ids of a partition's batches of which a stage is in progress."""
    return [row[0] for row in connection.execute(_UNENDED, (feed, key))]


def forget_validation(connection: Connection, batch_id: str) -> None:
    """Say that a batch is to be validated and archived anew, because a replay has brought more."""
    connection.execute(_FORGET_VALIDATION, (batch_id,))
