"""DDL that waits for its lock only for a moment, lets go, and tries again later.

Whoever waits for a lock makes everybody wait who comes after: an ALTER TABLE behind a report of one
minute stops all writers for that minute. So each attempt waits a tenth of a second at most, and the
pauses between attempts grow: a reader of 60 seconds costs writers eight such waits, 0.8 s in all.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg

from batch_pipelines.engine.errors import AdoptionError, BusyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from psycopg import sql

    from batch_pipelines.engine.adoption.relations import Relation
    from batch_pipelines.engine.postgres.database import Connection

# A statement over many partitions waits for each of their locks while it holds those it has.
_LIMITS = """
SELECT set_config('lock_timeout', %s, true), set_config('statement_timeout', %s, true)
"""
_LOCK_WAIT, _STATEMENT = "100ms", "500ms"
_PATIENCE = "SELECT set_config('lock_timeout', '1h', false)"
_PATIENCE_ENDS = "SELECT set_config('lock_timeout', '60s', false)"
_HOLDERS = """
SELECT string_agg(DISTINCT format('process %%s (%%s, in its transaction for %%s s)', a.pid,
    coalesce(nullif(a.application_name, ''), a.backend_type),
    extract(epoch FROM clock_timestamp() - a.xact_start)::int), ', ')
FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'relation' AND l.granted AND l.pid <> pg_backend_pid()
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND l.relation IN (SELECT %(oid)s::oid UNION SELECT relid FROM pg_partition_tree(%(oid)s::oid))
"""
_BEGIN_AGAIN = (
    psycopg.errors.LockNotAvailable,
    psycopg.errors.QueryCanceled,
    psycopg.errors.DeadlockDetected,
)


@dataclass(frozen=True)
class Pace:
    """How often to try, and when to give up; all times in seconds.

    Attributes:
        first_pause: Between the first attempt and the second; each one after is twice as long.
        longest_pause: Until they are this long.
        give_up_after: How long to go on without coming forward.
        sleep: Sleeps.
        clock: A clock that never goes back.
    """

    first_pause: float = 0.5
    longest_pause: float = 15.0
    give_up_after: float = 600.0
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def attempts(self) -> Iterator[bool]:
        """Pause between attempts.

        Yields:
            For each attempt whether it is the last.
        """
        begun, pause = self.clock(), self.first_pause
        while self.clock() - begun + pause < self.give_up_after:
            yield False
            self.sleep(pause)
            pause = min(pause * 2, self.longest_pause)
        yield True


def in_short_lock(
    connection: Connection,
    relation: Relation,
    statements: Sequence[sql.Composed],
    *,
    what: str,
    pace: Pace,
) -> int:
    """Run statements in a transaction that makes nobody wait for longer than a moment.

    Args:
        connection: A connection in autocommit mode.
        relation: The table whose locks they take, for messages.
        statements: What to run.
        what: What they do, for messages: "add the column".
        pace: How often to try.

    Returns:
        How many rows the last statement touched.

    Raises:
        BusyError: The lock could not be had; who holds it is named.
        AdoptionError: PostgreSQL refuses.
    """
    for last in pace.attempts():
        try:
            with connection.transaction(), refused(relation, what):
                connection.execute(_LIMITS, (_LOCK_WAIT, _STATEMENT))
                rows = 0
                for statement in statements:
                    rows = connection.execute(statement).rowcount
        except _BEGIN_AGAIN:
            if last:
                break
        else:
            return rows
    raise BusyError(_busy(connection, relation, what, pace))


@contextmanager
def patiently(connection: Connection) -> Iterator[None]:
    """Let statements that hold nobody up wait for long; they are those with CONCURRENTLY, and VALIDATE.

    Args:
        connection: A connection in autocommit mode.

    Yields:
        Nothing.
    """
    connection.execute(_PATIENCE)
    try:
        yield
    finally:
        if not connection.closed:
            connection.execute(_PATIENCE_ENDS)


@contextmanager
def refused(relation: Relation, what: str) -> Iterator[None]:
    """Turn PostgreSQL's refusal of a statement into a sentence; an attempt to be repeated passes.

    Args:
        relation: The table.
        what: What the statement does: "add the column".

    Yields:
        Nothing.

    Raises:
        AdoptionError: PostgreSQL refused.
    """
    try:
        yield
    except _BEGIN_AGAIN:
        raise
    except psycopg.errors.InsufficientPrivilege:
        raise AdoptionError(
            f"{relation.full_name}: the role that we connect as may not {what}. Connect as the table's "
            "owner, or let the owner grant its role to this one."
        ) from None
    except psycopg.errors.DependentObjectsStillExist as error:
        detail = error.diag.message_detail
        raise AdoptionError(
            f"{relation.full_name}: could not {what}, because something else depends on it (2BP01): "
            f"{detail}. Drop that first."
        ) from None
    except psycopg.Error as error:
        # Not its text: a trigger of the table's own may have put a row into it.
        state = error.sqlstate or "none: the connection was lost"
        raise AdoptionError(
            f"{relation.full_name}: PostgreSQL did not {what} (SQLSTATE {state}). Mend the cause (the "
            "server's log names it), and type the same command again: it goes on where it stopped."
        ) from None


def _busy(connection: Connection, relation: Relation, what: str, pace: Pace) -> str:
    row = connection.execute(_HOLDERS, {"oid": relation.oid}).fetchone()
    held = f"It is held by {row[0]}. " if row and row[0] else ""
    return (
        f"{relation.full_name}: could not {what} within {pace.give_up_after:g} s, of which no attempt "
        f"made others wait. {held}Wait until they are done, and type the same command again: it goes "
        "on where it stopped."
    )
