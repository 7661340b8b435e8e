"""Where each threshold stands, and every change of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.rows import class_row

from batch_pipelines.engine.ledger.batches import IN_FORCE

if TYPE_CHECKING:
    import datetime as dt

    from batch_pipelines.engine.monitoring.states import State
    from batch_pipelines.engine.postgres.database import Connection

_LOCK = "SELECT pg_try_advisory_xact_lock(hashtextextended('thresholds/' || %s, 0))"
_STATES = """
SELECT measure, state, value, warn_at, breach_at, event_id
FROM batch_audit.threshold_state WHERE scope = %s ORDER BY measure
"""
_EVENT = """
INSERT INTO batch_audit.threshold_event (scope, measure, state_before, state, value, warn_at, breach_at,
    batch_id, actions, created_at)
VALUES (%(scope)s, %(measure)s, %(before)s, %(state)s, %(value)s, %(warn_at)s, %(breach_at)s,
    %(batch_id)s, %(actions)s, %(now)s)
RETURNING event_id
"""
_SET = """
INSERT INTO batch_audit.threshold_state (scope, measure, state, value, warn_at, breach_at, event_id)
VALUES (%(scope)s, %(measure)s, %(state)s, %(value)s, %(warn_at)s, %(breach_at)s, %(event_id)s)
ON CONFLICT (scope, measure) DO UPDATE SET state = excluded.state, value = excluded.value,
    warn_at = excluded.warn_at, breach_at = excluded.breach_at, event_id = excluded.event_id
"""
_FORGET = """
DELETE FROM batch_audit.threshold_state WHERE scope = %s AND measure <> ALL(%s)
"""
# For a day: then somebody has long been told, and whoever rolls it back later has his own reason.
_TO_ROLL_BACK = """
SELECT e.event_id, e.scope, e.measure, e.batch_id::text
FROM batch_audit.threshold_event AS e JOIN batch_audit.import_history AS h USING (batch_id)
WHERE 'roll_back' = ANY(e.actions) AND e.created_at > %(since)s AND h.status = ANY(%(in_force)s)
  AND NOT EXISTS (SELECT FROM batch_audit.alert AS a
                  WHERE a.deduplication_key = 'rollback_refused/' || e.event_id)
ORDER BY e.event_id
"""


@dataclass(frozen=True)
class ThresholdState:
    """Where a threshold stands.

    Attributes:
        measure: What is measured.
        state: `ok`, `warn` or `breach`.
        value: What it was when the state last changed; a share in percent.
        warn_at: Its level for `warn`.
        breach_at: Its level for `breach`.
        event_id: The last change; None where there was none.
    """

    measure: str
    state: State
    value: float
    warn_at: float | None
    breach_at: float | None
    event_id: int | None


@dataclass(frozen=True)
class ToRollBack:
    """A batch that is to be taken back because of a breach."""

    event_id: int
    scope: str
    measure: str
    batch_id: str


def try_lock(connection: Connection, scope: str) -> bool:
    """Have a scope's thresholds to oneself to the end of the transaction; False: somebody else has."""
    row = connection.execute(_LOCK, (scope,)).fetchone()
    return row is not None and row[0] is True


def states(connection: Connection, scope: str) -> dict[str, ThresholdState]:
    """Read where the thresholds of a scope stand, by measure."""
    with connection.cursor(row_factory=class_row(ThresholdState)) as cursor:
        return {found.measure: found for found in cursor.execute(_STATES, (scope,))}


def record_change(
    connection: Connection,
    scope: str,
    before: State,
    now: ThresholdState,
    *,
    batch_id: str | None,
    actions: tuple[str, ...],
    at: dt.datetime,
) -> int:
    """Write down that a threshold's state has changed.

    Args:
        connection: A connection inside a transaction that has the scope's lock.
        scope: A feed, or `*`.
        before: What it was.
        now: What it is; its event is the one that is made here.
        batch_id: The newest batch that the value is made of.
        actions: What is done about it.
        at: The time.

    Returns:
        The event's id.
    """
    values = {
        "scope": scope, "measure": now.measure, "before": before, "state": now.state,
        "value": now.value, "warn_at": now.warn_at, "breach_at": now.breach_at,
        "batch_id": batch_id, "actions": list(actions), "now": at,
    }  # fmt: skip
    row = connection.execute(_EVENT, values).fetchone()
    assert row is not None  # noqa: S101  # RETURNING
    connection.execute(_SET, {**values, "event_id": row[0]})
    return int(row[0])


def record_first(connection: Connection, scope: str, now: ThresholdState) -> None:
    """Write down where a threshold stands that nothing was known of."""
    values = {
        "scope": scope, "measure": now.measure, "state": now.state, "value": now.value,
        "warn_at": now.warn_at, "breach_at": now.breach_at, "event_id": None,
    }  # fmt: skip
    connection.execute(_SET, values)


def forget_others(connection: Connection, scope: str, measures: list[str]) -> None:
    """Forget the thresholds of a scope that are not watched any more."""
    connection.execute(_FORGET, (scope, measures))


def to_roll_back(connection: Connection, since: dt.datetime) -> list[ToRollBack]:
    """List the batches that are to be taken back because of breaches since a time.

    Those that were, or that it was refused for, are not among them.
    """
    wanted = {"since": since, "in_force": list(IN_FORCE)}
    with connection.cursor(row_factory=class_row(ToRollBack)) as cursor:
        return cursor.execute(_TO_ROLL_BACK, wanted).fetchall()
