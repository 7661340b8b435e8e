"""The transaction in which batches are taken back: all of it happens, or nothing, and the ledger knows.

Its order: holds (so that none is set before it ends), the partitions (so that no run is at work on them,
and none that lost its lease can write), the advisory locks of all tables by OID, the tables themselves
against writers who know nothing of those; then for each batch, newest first: look, undo, the ledger's
word; deferred constraints; COMMIT. Readers see the tables as before until then. Whatever PostgreSQL ends
for no fault of ours (a deadlock, a serialization failure, a lock that somebody holds too long) is tried
again.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable  # noqa: TC003  # a dataclass default below
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from batch_pipelines.engine.audit import anchors
from batch_pipelines.engine.errors import BatchError, BusyError, RollbackError
from batch_pipelines.engine.failpoints import failpoint
from batch_pipelines.engine.ledger import batches, events, rollbacks, staged_tables
from batch_pipelines.engine.postgres.database import lock_tables
from batch_pipelines.engine.postgres.lease import seize
from batch_pipelines.engine.retention import holds
from batch_pipelines.engine.rollback.keeping import keep_rows
from batch_pipelines.engine.rollback.plan import Plan, look
from batch_pipelines.engine.rollback.targets import tables_of
from batch_pipelines.engine.rollback.undo import undo
from batch_pipelines.engine.work import explain
from batch_pipelines.engine.writing.settling import settled

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.ledger.rollbacks import TableRollback
    from batch_pipelines.engine.postgres.database import Connection, Database
    from batch_pipelines.engine.postgres.lease import Lease
    from batch_pipelines.engine.settings import Settings

_LOG = logging.getLogger(__name__)

# Deadlock, serialization failure, and a table's lock that was not had in time.
_TRANSIENT = frozenset({"40P01", "40001", "55P03"})
_TRIES = 10
_PAUSE_SECONDS = 0.5
# Whoever wants to write to the table queues behind us while we wait for its lock: so not for long.
_TABLE_LOCK_WAIT = "3s"
_LONGEST_STATEMENT = "2h"

_TIMEOUT = "SELECT set_config(%s, %s, true)"
_OIDS = """
SELECT c.oid::bigint, n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND format('%%s.%%s', n.nspname, c.relname) = ANY(%s) ORDER BY 1
"""
_LOCK = sql.SQL("LOCK TABLE {} IN EXCLUSIVE MODE")
_SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"


@dataclass(frozen=True)
class Request:
    """What somebody wants taken back.

    Attributes:
        batch_ids: The batches.
        reason: Why; it goes into the ledger.
        requested_by: Who.
        cascade: Whether later batches that depend on them go too.
        keep_touched: Whether rows that somebody has touched or refers to stay.
        dry_run: Whether only to tell what would happen.
        correlation_id: Ties it to the run that asked for it, if any.
        approved_by: Who else agreed, where the feed wants two people.
    """

    batch_ids: tuple[str, ...]
    reason: str
    requested_by: str
    cascade: bool = False
    keep_touched: bool = False
    dry_run: bool = False
    correlation_id: str | None = None
    approved_by: str | None = None

    def event(
        self, batch_id: str, step: str, status: str, details: Mapping[str, object]
    ) -> events.Event:
        """Make the audit trail's entry for a step of it: `requested`, `started`, `done` ..."""
        return events.Event(
            self.requested_by, f"batch.rollback.{step}", status, "batch", batch_id,
            correlation_id=self.correlation_id, details=details,
        )  # fmt: skip


@dataclass(frozen=True)
class RolledBack:
    """One batch that was taken back.

    Attributes:
        batch: The batch as it was before.
        tables: What was done in each table.
        reinstated: The batch that is in force again in its place, or None.
    """

    batch: Batch
    tables: tuple[TableRollback, ...]
    reinstated: str | None


@dataclass(frozen=True)
class Rollback:
    """What became of a request.

    Attributes:
        plans: The plan of each batch, in the order in which they go.
        done: What was done, in that order; in a dry run, what would have been.
        already: Batches that had been rolled back before.
        refusal: Why it cannot be done, or None. Only a dry run gets that far.
        seconds: Time that the transaction took.
    """

    plans: tuple[Plan, ...]
    done: tuple[RolledBack, ...]
    already: tuple[Batch, ...]
    refusal: str | None
    seconds: float


class RefusedError(RollbackError):
    """Something stands in the way of a rollback.

    Attributes:
        plan: The plan that says what.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan.refusal())
        self.plan = plan


class _WiderError(Exception):
    """Batches have to go too that are not locked yet."""

    def __init__(self, batch_ids: Iterable[str]) -> None:
        super().__init__()
        self.batch_ids = frozenset(batch_ids)


def needs_two(found: Iterable[Batch], feeds: Mapping[str, Feed]) -> list[str]:
    """List the feeds of batches that want two people for a rollback.

    Args:
        found: The batches.
        feeds: The feeds by name; one whose file is gone wants one.
    """
    names = {batch.feed for batch in found if batch.feed in feeds}
    return sorted(name for name in names if feeds[name].rollback.approval == "two")


def plan(
    database: Database, settings: Settings, feeds: Mapping[str, Feed], request: Request
) -> Rollback:
    """Say what a request would do, and change nothing.

    One batch is only looked at, in a snapshot that disturbs nobody. Several, a cascade, or rows that
    stay are done and undone: what the second would do depends on what the first leaves.

    Args:
        database: The target database.
        settings: Says where row digests are.
        feeds: The feeds by name.
        request: What is wanted.

    Returns:
        The plans; `refusal` says what stands in the way.

    Raises:
        RollbackError: A batch is in no state to be rolled back.
        BusyError: A run is at work on it.
    """
    if len(request.batch_ids) > 1 or request.cascade or request.keep_touched:
        return _attempts(database, settings, feeds, request, commit=False)
    began = time.perf_counter()
    with database.connect("rollback plan") as connection:
        connection.execute("BEGIN")
        connection.execute(_SNAPSHOT)
        (batch_id,) = request.batch_ids
        batch = batches.by_id(connection, batch_id)
        if batch.status == "ROLLED_BACK":
            return Rollback((), (), (batch,), None, time.perf_counter() - began)
        _require_in_force(batch)
        found, _ = look(connection, settings, batch, feeds)
        connection.execute("ROLLBACK")
    refusal = found.refusal() if found.obstacles else None
    return Rollback((found,), (), (), refusal, time.perf_counter() - began)


def roll_back(
    database: Database,
    settings: Settings,
    feeds: Mapping[str, Feed],
    request: Request,
    lease: Lease | None = None,
) -> Rollback:
    """Take batches back.

    Args:
        database: The target database.
        settings: Says where row digests are.
        feeds: The feeds by name.
        request: What is wanted; a dry run only plans it.
        lease: Of a run that holds a partition itself, and takes back what it has published there.

    Returns:
        What was done.

    Raises:
        RefusedError: Rows were touched since, or others refer to them.
        RollbackError: A batch is in no state to be rolled back, or PostgreSQL refused.
        BusyError: A run is at work on it, or somebody holds its tables.
        LeaseLostError: Another run has taken over the partition of the lease.
    """
    if request.dry_run:
        return plan(database, settings, feeds, request)
    _record(database, request, "started", {})
    try:
        done = _attempts(database, settings, feeds, request, lease, commit=True)
    except BatchError as error:
        with contextlib.suppress(BatchError, psycopg.Error):
            _record(database, request, "refused", {"why": str(error)})
        raise
    with database.connect("anchor") as connection:
        anchors.drop_quietly(connection, settings.anchors_folder, _LOG.warning)
    return done


def _attempts(
    database: Database,
    settings: Settings,
    feeds: Mapping[str, Feed],
    request: Request,
    lease: Lease | None = None,
    *,
    commit: bool,
    sleep: Callable[[float], None] = time.sleep,
) -> Rollback:
    wanted = frozenset(request.batch_ids)
    tries = 0
    while True:
        attempt = _Attempt(settings, feeds, request, wanted, lease, rehearsal=not commit)
        try:
            with (
                database.connect("rollback") as connection,
                settled(connection, database, commit=commit, purpose="rollback"),
            ):
                attempt.run(connection)
        except _WiderError as wider:
            # Locks are taken in order, so what was not foreseen is begun anew.
            wanted |= wider.batch_ids
        except RefusedError as refused:
            if commit:
                raise
            return attempt.result(refused)
        except psycopg.Error as error:
            tries += 1
            if error.sqlstate not in _TRANSIENT:
                raise RollbackError(_refused_by_server(request, error)) from None
            if tries == _TRIES:
                raise BusyError(_busy(request)) from None
            sleep(_PAUSE_SECONDS)
        else:
            return attempt.result(None)


@dataclass
class _Attempt:
    """One transaction."""

    settings: Settings
    feeds: Mapping[str, Feed]
    request: Request
    locked: frozenset[str]
    lease: Lease | None
    rehearsal: bool
    plans: list[Plan] = field(default_factory=list)
    done: list[RolledBack] = field(default_factory=list)
    already: list[Batch] = field(default_factory=list)
    began: float = field(default_factory=time.perf_counter)

    def run(self, connection: Connection) -> None:
        """Take everything back that was asked for, newest first."""
        holds.lock_holds(connection)
        found = [batches.by_id(connection, batch_id) for batch_id in self.locked]
        strict = needs_two(found, self.feeds)
        if strict and self.request.approved_by is None and not self.rehearsal:
            message = (
                f"Feed {', '.join(strict)} wants two people for a rollback: ask for it by "
                "`batch-pipelines rollback`, and let somebody else approve it. Nothing was changed."
            )
            raise RollbackError(message)
        for feed, key in sorted({(batch.feed, batch.partition_key) for batch in found}):
            if self.lease is None or (feed, key) != (self.lease.feed, self.lease.key):
                seize(connection, feed, key)
        self._lock(connection, found)
        asked = [batches.by_id(connection, batch_id) for batch_id in self.request.batch_ids]
        for batch in _newest_first(asked):
            self._take_back(connection, batch.batch_id)
        events.check_constraints(connection)
        failpoint("rollback.done", connection)
        if self.lease is not None:
            self.lease.fence(connection)
        for done in self.done:
            events.append(connection, self._event(done))

    def result(self, refused: RefusedError | None) -> Rollback:
        """Say what it came to."""
        plans = [*self.plans, *([] if refused is None else [refused.plan])]
        return Rollback(
            tuple(plans),
            tuple(self.done),
            tuple(self.already),
            None if refused is None else str(refused),
            time.perf_counter() - self.began,
        )

    def _lock(self, connection: Connection, found: Sequence[Batch]) -> None:
        names = {name for batch in found for name in tables_of(connection, batch.batch_id)}
        for batch in found:
            feed = self.feeds.get(batch.feed)
            for table in () if feed is None else feed.tables:
                names.update(table.owned_children)
        tables = connection.execute(_OIDS, (sorted(names),)).fetchall()
        lock_tables(connection, [oid for oid, *_ in tables], exclusive=True)
        connection.execute(_TIMEOUT, ("lock_timeout", _TABLE_LOCK_WAIT))
        connection.execute(_TIMEOUT, ("statement_timeout", _LONGEST_STATEMENT))
        for _, schema, name in tables:
            connection.execute(_LOCK.format(sql.Identifier(schema, name)))
        failpoint("rollback.locked", connection)

    def _take_back(
        self, connection: Connection, batch_id: str, waiting: tuple[str, ...] = ()
    ) -> None:
        """Take one back, after those that depend on it; `waiting` are those that wait for this one."""
        batch = batches.by_id(connection, batch_id)
        if batch.status == "ROLLED_BACK":
            if all(done.batch.batch_id != batch_id for done in self.done):
                self.already.append(batch)
            return
        _require_in_force(batch)
        found, targets = look(connection, self.settings, batch, self.feeds)
        while self.request.cascade and found.dependents:
            self._take_back_dependents(connection, found, (*waiting, batch_id))
            found, targets = look(connection, self.settings, batch, self.feeds)
        kept: dict[str, int] = {}
        first = found
        if found.obstacles and self.request.keep_touched and not _is_final(found):
            kept = keep_rows(connection, targets)
            found, targets = look(connection, self.settings, batch, self.feeds, trusted=True)
        keeps = self.request.keep_touched
        if any(not keeps or o.kind != "overwritten" for o in found.obstacles):
            raise RefusedError(first)
        tables = undo(connection, targets, kept, found.reinstated)
        failpoint("rollback.undone", connection)
        self.plans.append(first)
        self.done.append(RolledBack(batch, tables, found.reinstated))
        self._tell(connection, batch, tables, found.reinstated)

    def _take_back_dependents(
        self, connection: Connection, found: Plan, waiting: tuple[str, ...]
    ) -> None:
        if circle := set(found.dependents) & set(waiting):
            raise RefusedError(found.in_a_circle_with(circle))
        if unlocked := set(found.dependents) - self.locked:
            raise _WiderError(unlocked)
        dependents = [batches.by_id(connection, batch_id) for batch_id in found.dependents]
        for dependent in _newest_first(dependents):
            self._take_back(connection, dependent.batch_id, waiting)

    def _tell(
        self,
        connection: Connection,
        batch: Batch,
        tables: Sequence[TableRollback],
        reinstated: str | None,
    ) -> None:
        request = self.request
        rollbacks.mark_rolled_back(
            connection,
            batch.batch_id,
            by=request.requested_by,
            reason=request.reason,
            tables=tables,
        )
        # Records that wait to be replayed go with their batch.
        staged_tables.drop(connection, [batch.batch_id])
        if reinstated is not None:
            rollbacks.reinstate(connection, reinstated)

    def _event(self, done: RolledBack) -> events.Event:
        batch_id, request = done.batch.batch_id, self.request
        details = {
            "reason": request.reason,
            "approved_by": request.approved_by,
            "tables": rollbacks.counts(done.tables),
            "cascaded": batch_id not in request.batch_ids,
            "keep_touched": request.keep_touched,
            "reinstated": done.reinstated,
        }
        return request.event(batch_id, "done", "SUCCESS", details)


def _is_final(found: Plan) -> bool:
    return any(obstacle.kind == "final" for obstacle in found.obstacles)


def _newest_first(found: Iterable[Batch]) -> list[Batch]:
    return sorted(
        found,
        key=lambda batch: (batch.published_at or batch.started_at, batch.attempt),
        reverse=True,
    )


def _require_in_force(batch: Batch) -> None:
    if batch.status in batches.IN_FORCE:
        return
    why = {
        "IN_PROGRESS": "it is still being loaded; `cancel` the run, or wait for it",
        "FAILED": "nothing of it is visible",
        "DUPLICATE": f"it wrote nothing; its rows are those of batch {batch.duplicate_of}",
        "SUPERSEDED": (
            f"batch {batch.superseded_by} has taken its place; roll that one back, and this one is in "
            "force again"
        ),
        "ARCHIVED": (
            "its rows are in the archive; `batch-pipelines restore` brings them back, and then it can be"
        ),
    }[batch.status]
    message = f"Batch {batch.batch_id} ({batch.name}) is {batch.status}: {why}."
    raise RollbackError(message)


def _record(
    database: Database, request: Request, status: str, details: Mapping[str, object]
) -> None:
    """Write down what is about to be done, or that it was not, in a transaction of its own."""
    with database.connect("rollback event") as connection, connection.transaction():
        for batch_id in request.batch_ids:
            outcome = "FAILED" if status == "refused" else "IN_PROGRESS"
            told = {"reason": request.reason, **details}
            events.append(connection, request.event(batch_id, status, outcome, told))


def _refused_by_server(request: Request, error: psycopg.Error) -> str:
    named = ", ".join(request.batch_ids)
    return (
        f"Batch {named} was not rolled back, nothing was changed. {explain(error)} A row that would come"
        " back may not fit any more: its parent may be gone, or another row may have its unique value."
    )


def _busy(request: Request) -> str:
    named = ", ".join(request.batch_ids)
    return (
        f"Batch {named} was not rolled back, nothing was changed: other sessions hold its tables (or "
        f"deadlocked with it) {_TRIES} times. Wait for them to end, and run the same command again."
    )
