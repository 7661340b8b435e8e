"""What the ledger says of batches whose rows are in the archive alone, and of those that came back."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from batch_pipelines.engine.postgres.database import Connection

_STATUS_BEFORE = """
SELECT coalesce(status_before, 'SUCCESS') FROM batch_audit.import_history WHERE batch_id = %s
"""
# Rows that come back as they were loaded are as the batch had written them: a look at xmin tells so in
# future. Of others only their digests say what became of them.
_RESTORED = """
UPDATE batch_audit.import_history
SET status = coalesce(status_before, 'SUCCESS'), status_before = NULL, archived_at = NULL,
    published_xids = CASE WHEN %(as_loaded)s THEN published_xids || pg_current_xact_id()
                     ELSE published_xids END
WHERE batch_id = %(batch_id)s AND status = 'ARCHIVED'
"""


def status_before(connection: Connection, batch_id: str) -> str:
    """Say what an archived batch was, and will be again when it comes back."""
    row = connection.execute(_STATUS_BEFORE, (batch_id,)).fetchone()
    return "SUCCESS" if row is None else str(row[0])


def mark_restored(connection: Connection, batch_id: str, *, as_loaded: bool) -> bool:
    """Say that an archived batch is what it was before; inside the transaction that restores it.

    Args:
        connection: A connection.
        batch_id: The batch.
        as_loaded: Whether all its rows are as they were when they were loaded.

    Returns:
        Whether it was archived.
    """
    asked = {"batch_id": batch_id, "as_loaded": as_loaded}
    return connection.execute(_RESTORED, asked).rowcount == 1
