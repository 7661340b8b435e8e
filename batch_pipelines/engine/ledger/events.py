"""The audit trail: who did what to what, and how it ended.

One entry a deed, not a row; no entry has a value of a row. An entry is appended in the transaction of
its deed, so neither is there without the other. It takes its place in the chain when that transaction
commits: wherever it is appended, nobody waits for the chain longer than a commit takes. Not here: how
the chain is verified (`audit`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping

    from batch_pipelines.engine.postgres.database import Connection

_APPEND = "SELECT batch_audit.append_event(%s, %s, %s, %s, %s, %s, %s, %s, %s)"
_OF_BATCH = """
SELECT seq, created_at, principal_id, action, status, details - 'history' - 'root' AS details
FROM batch_audit.audit_event WHERE resource_id = %s AND resource_type = 'batch' ORDER BY seq
"""
_IMMEDIATE = "SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS batch_audit.chain_event DEFERRED"


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of the audit trail.

    Attributes:
        principal_id: Who did it.
        action: What was done, and how far: `batch.ingest.started`, `batch.rollback.done`, `hold.set`.
        status: `IN_PROGRESS` of an intent, `SUCCESS` or `FAILED` of an outcome.
        resource_type: What it was done to: `batch`, `feed`, `bag` ...
        resource_id: Which one.
        correlation_id: What belongs together has the same one; of a batch's, that of the batch.
        details: Counts and reasons; never a value of a row.
        session_context: From where: program, run, host, address; empty where nothing is known.
        compliance_context: Regulation, data classification, accreditation; empty where none applies.
    """

    principal_id: str
    action: str
    status: str
    resource_type: str
    resource_id: str
    correlation_id: str | None = None
    details: Mapping[str, object] = field(default_factory=dict)
    session_context: Mapping[str, object] = field(default_factory=dict)
    compliance_context: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Recorded:
    """An entry as it stands in the trail, without what it has of the batch's row and details.

    Attributes:
        seq: Its number in the chain.
        created_at: When it was chained, with time zone.
        principal_id: Who did it.
        action: What was done.
        status: How it stands.
        details: Counts and reasons.
    """

    seq: int
    created_at: dt.datetime
    principal_id: str
    action: str
    status: str
    details: Mapping[str, object]


def append(connection: Connection, event: Event) -> None:
    """Add an entry to the audit trail, in the transaction that is open.

    It can be read when that has committed.

    Args:
        connection: To the target database.
        event: What happened.
    """
    connection.execute(
        _APPEND,
        (
            *(event.principal_id, event.action, event.status),
            *(event.resource_type, event.resource_id, event.correlation_id),
            *(_json(event.session_context), _json(event.compliance_context)),
            Jsonb(dict(event.details)),
        ),
    )


def of_batch(connection: Connection, batch_id: str) -> list[Recorded]:
    """Read what the audit trail has of a batch, in order."""
    with connection.cursor(row_factory=class_row(Recorded)) as cursor:
        return cursor.execute(_OF_BATCH, (batch_id,)).fetchall()


def check_constraints(connection: Connection) -> None:
    """Check what is deferred to the COMMIT now, but for chaining entries, which stays there.

    Chained before, an entry would keep everybody else from appending until the COMMIT.

    Args:
        connection: A connection inside a transaction that has appended nothing yet.
    """
    connection.execute(_IMMEDIATE)


def _json(context: Mapping[str, object]) -> Jsonb | None:
    return Jsonb(dict(context)) if context else None
