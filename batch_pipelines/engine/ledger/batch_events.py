"""What the audit trail hears of batches: one entry for each step, appended where the ledger is written.

An outcome gets the batch's row of `import_history` with it, as the transaction leaves it: so that table
can be rebuilt from the entries. Whatever has changed the details of a batch that can be seen ends in an
entry with a root over them: the end of the batch, a replay, a validation that could not be made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from psycopg.types.json import Jsonb

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from batch_pipelines.engine.postgres.database import Connection

Outcome = Literal["IN_PROGRESS", "SUCCESS", "FAILED"]

# Who it is, the connection says (`postgres.actor`); where it does not, it is who asked for the batch.
_TELL = """
SELECT batch_audit.append_event(
    coalesce(nullif(current_setting('batch_pipelines.principal', true), ''), requested_by), %s, %s,
    'batch', batch_id::text, NULL, NULL, NULL, %s)
FROM batch_audit.import_history WHERE batch_id = %s
"""
_TELL_ROOT = """
SELECT batch_audit.append_event(
    coalesce(nullif(current_setting('batch_pipelines.principal', true), ''), requested_by), %s, %s,
    'batch', batch_id::text, NULL, NULL, NULL,
    %s || jsonb_build_object('root', batch_audit.detail_root(batch_id)))
FROM batch_audit.import_history WHERE batch_id = %s
"""
# A validation changes its own log only. Of all else the root stays what it was: taken anew, it would
# vouch for whatever somebody has changed since then.
_TELL_UNVALIDATED = """
SELECT batch_audit.append_event(
    coalesce(nullif(current_setting('batch_pipelines.principal', true), ''), h.requested_by),
    'batch.validate.failed', 'FAILED', 'batch', h.batch_id::text, NULL, NULL, NULL,
    %s || CASE WHEN h.status IN ('PUBLISHED', 'VALIDATION_FAILED') THEN
        jsonb_build_object('root', coalesce(last.root || (
            SELECT coalesce(jsonb_object_agg(key, value), '{}')
            FROM jsonb_each(batch_audit.detail_root(
                h.batch_id, coalesce((last.root ->> 'columns')::integer, 1)))
            WHERE key IN ('validation_log', 'validation_summary')),
            batch_audit.detail_root(h.batch_id)))
        ELSE '{}' END)
FROM batch_audit.import_history AS h LEFT JOIN LATERAL (
    SELECT e.details -> 'root' AS root FROM batch_audit.audit_event AS e
    WHERE e.resource_id = h.batch_id::text AND e.resource_type = 'batch' AND e.details ? 'root'
    ORDER BY e.seq DESC LIMIT 1) AS last ON true
WHERE h.batch_id = %s
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
    connection.execute(_TELL, (f"batch.{step}", status, _said(details), batch_id))


def tell_with_root(
    connection: Connection, batch_id: str, step: str, status: Outcome, **details: object
) -> None:
    """Append an entry about a batch, with a root over its details as the transaction has them now.

    Args:
        connection: To the target database, inside the transaction that changes the details.
        batch_id: The batch.
        step: What was done: `replay.done` ...
        status: How it stands.
        details: Counts and reasons; never a value of a row.
    """
    connection.execute(_TELL_ROOT, (f"batch.{step}", status, _said(details), batch_id))


def tell_unvalidated(connection: Connection, batch_id: str, **details: object) -> None:
    """Append that a batch could not be validated; of one that can be seen, with a root over its details.

    Args:
        connection: To the target database, inside the transaction that ends the stage.
        batch_id: The batch.
        details: Reasons; never a value of a row.
    """
    connection.execute(_TELL_UNVALIDATED, (_said(details), batch_id))


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


def _said(details: Mapping[str, object]) -> Jsonb:
    return Jsonb({name: value for name, value in details.items() if value is not None})
