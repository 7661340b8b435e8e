"""What the audit trail hears of batches: one entry for each step, appended where the ledger is written.

An outcome gets the batch's row of `import_history` with it, as the transaction leaves it: so that table
can be rebuilt from the entries. The end of a batch has a root over its details, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from psycopg.types.json import Jsonb

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batch_pipelines.engine.postgres.database import Connection

Outcome = Literal["IN_PROGRESS", "SUCCESS", "FAILED"]

# Who it is, the connection says (`postgres.actor`); where it does not, it is who asked for the batch.
_TELL = """
SELECT batch_audit.append_event(
    coalesce(nullif(current_setting('batch_pipelines.principal', true), ''), requested_by), %s, %s,
    'batch', batch_id::text, NULL, NULL, NULL, %s)
FROM batch_audit.import_history WHERE batch_id = %s
"""
_END = """
SELECT batch_audit.append_event(
    coalesce(nullif(current_setting('batch_pipelines.principal', true), ''), requested_by),
    'batch.ended',
    CASE WHEN status IN ('FAILED', 'VALIDATION_FAILED') THEN 'FAILED' ELSE 'SUCCESS' END,
    'batch', batch_id::text, NULL, NULL, NULL,
    jsonb_build_object('status', status, 'root', batch_audit.detail_root(batch_id)))
FROM batch_audit.import_history WHERE batch_id = %s
"""
_TELL_ALL = """
SELECT batch_audit.append_event(
    coalesce(nullif(current_setting('batch_pipelines.principal', true), ''), 'unauthenticated'), %s,
    'SUCCESS', 'batch', batch_id::text, NULL, NULL, NULL, '{}')
FROM unnest(%s::uuid[]) AS batch_id
"""


def tell(
    connection: Connection, batch_id: str, step: str, status: Outcome, **details: object
) -> None:
    """Append an entry about a batch, in the transaction that is open.

    Args:
        connection: To the target database.
        batch_id: The batch.
        step: What was done: `ingest.started`, `superseded` ...
        status: How it stands.
        details: Counts and reasons; never a value of a row.
    """
    said = {name: value for name, value in details.items() if value is not None}
    connection.execute(_TELL, (f"batch.{step}", status, Jsonb(said), batch_id))


def tell_of_many(connection: Connection, batch_ids: Sequence[str], step: str) -> None:
    """Append the same entry about many batches, which may be gone by then.

    Args:
        connection: To the target database, inside a transaction.
        batch_ids: The batches.
        step: What was done to each.
    """
    connection.execute(_TELL_ALL, (f"batch.{step}", [*batch_ids]))


def tell_end(connection: Connection, batch_id: str) -> None:
    """Append that a batch has ended, with its state and a root over its details.

    Args:
        connection: To the target database, inside the transaction that ends it.
        batch_id: The batch.
    """
    connection.execute(_END, (batch_id,))
