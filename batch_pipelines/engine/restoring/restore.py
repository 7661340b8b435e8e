"""The transaction in which an archived batch comes back: all its rows in all its tables, or none.

Its order: the bag's files are proven; then the partition (so that no run is at work on it), the
advisory locks of the tables by OID, shared, as rows of others stay as they are; the rows staged, what is
in their way, the rows inserted, parents first; the proof; the ledger's word, the event, COMMIT. A dry
run does the same, and takes it back.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import psycopg

from batch_pipelines.engine.archiving.rows.reading import open_rows
from batch_pipelines.engine.archiving.rows.shape import pin
from batch_pipelines.engine.catalog import read_table
from batch_pipelines.engine.errors import ArchiveError, BatchError, BusyError, RestoreError
from batch_pipelines.engine.failpoints import failpoint
from batch_pipelines.engine.ledger import archives, batches, erasures, events, restores
from batch_pipelines.engine.postgres.database import lock_tables
from batch_pipelines.engine.postgres.lease import seize
from batch_pipelines.engine.restoring.colliding import collisions
from batch_pipelines.engine.restoring.plan import (
    Obstacle,
    RefusedRestoreError,
    RestorePlan,
    TablePlan,
)
from batch_pipelines.engine.restoring.proving import prove_restored
from batch_pipelines.engine.restoring.staged import insert_rows, stage_rows
from batch_pipelines.engine.restoring.standing import notes_of, obstacles_of
from batch_pipelines.engine.work import explain
from batch_pipelines.engine.writing.settling import settled

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from batch_pipelines.engine.archiving.rows.reading import OpenRows
    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.postgres.database import Connection, Database
    from batch_pipelines.engine.settings import Settings

# Deadlock, serialization failure, and a lock that was not had in time.
_TRANSIENT: Final = frozenset({"40P01", "40001", "55P03"})
_TRIES: Final = 10
_PAUSE_SECONDS: Final = 0.5
KEPT_DAYS: Final = 30
"""Days for which what came back stays: enough for an audit's questions, and no second period."""
_KEPT_UNTIL: Final = "SELECT clock_timestamp() + make_interval(days => %s)"


@dataclass(frozen=True)
class RestoreRequest:
    """What somebody wants back.

    Attributes:
        batch_id: The batch.
        requested_by: Who.
        reason: Why; it goes into the audit trail.
        dry_run: Whether only to tell what would happen.
        days: How long retention leaves the rows alone, although their time is over.
    """

    batch_id: str
    requested_by: str
    reason: str = ""
    dry_run: bool = False
    days: int = KEPT_DAYS

    def event(
        self, batch: Batch, step: str, status: str, details: Mapping[str, object]
    ) -> events.Event:
        """Make the audit trail's entry for a step of it: `started`, `done`, `refused`."""
        return events.Event(
            self.requested_by, f"batch.restore.{step}", status, "batch", batch.batch_id,
            correlation_id=batch.correlation_id, details={"reason": self.reason, **details},
        )  # fmt: skip


@dataclass(frozen=True)
class Restored:
    """What became of a request.

    Attributes:
        batch: The batch as it is afterwards.
        plan: What was to be done; None where its rows were in the tables already.
        refusal: Why it cannot be done; only a dry run gets that far.
        seconds: Time it took.
    """

    batch: Batch
    plan: RestorePlan | None
    refusal: str | None
    seconds: float


def restore(
    database: Database,
    settings: Settings,
    request: RestoreRequest,
    sleep: Callable[[float], None] = time.sleep,
) -> Restored:
    """Bring the rows of an archived batch back, stamped and made as they were.

    Args:
        database: The target database.
        settings: Say where bags stand, and hold the keys.
        request: What is wanted.
        sleep: Waits so many seconds between tries.

    Returns:
        What was done; nothing, where the rows are in the tables already.

    Raises:
        RefusedRestoreError: Something stands in the way; its plan says what.
        RestoreError: The batch is not archived, PostgreSQL refused, or what came back is not what left.
        ArchiveError: The bag is gone, damaged or cannot be reached.
        BusyError: A run is at work on the partition, or somebody holds the tables.
    """
    began = time.perf_counter()
    with database.connect("restore bag") as connection:
        batch = batches.by_id(connection, request.batch_id)
        if batch.status in batches.IN_FORCE:
            return Restored(batch, None, None, time.perf_counter() - began)
        _require_archived(connection, batch)
        erasures.require_none_under_way(connection, batch.batch_id)
        if not request.dry_run:
            with connection.transaction():
                events.append(connection, request.event(batch, "started", "IN_PROGRESS", {}))
        try:
            with open_rows(connection, settings, batch.batch_id) as rows:
                rows.fetch()
                record = archives.rows(connection, batch.batch_id)
                place = "" if record is None else record.place
                attempt = _Attempt(database, request, rows, place)
                plan, refusal = attempt.insist(sleep)
        except BatchError as error:
            if not request.dry_run:
                with contextlib.suppress(psycopg.Error), connection.transaction():
                    events.append(
                        connection, request.event(batch, "refused", "FAILED", {"why": str(error)})
                    )
            raise
        batch = batches.by_id(connection, request.batch_id)
    return Restored(batch, plan, refusal, time.perf_counter() - began)


@dataclass(frozen=True)
class _Attempt:
    database: Database
    request: RestoreRequest
    rows: OpenRows
    place: str

    def insist(self, sleep: Callable[[float], None]) -> tuple[RestorePlan | None, str | None]:
        """Do it, again where PostgreSQL ended it for no fault of ours."""
        for number in range(1, _TRIES + 1):
            try:
                return self._once(), None
            except RefusedRestoreError as refused:
                if not self.request.dry_run:
                    raise
                return refused.plan, str(refused)
            except psycopg.Error as error:
                if error.sqlstate not in _TRANSIENT:
                    raise RestoreError(self._refused(error)) from None
                if number == _TRIES:
                    message = (
                        f"Batch {self.request.batch_id} was not restored: somebody holds its tables. "
                        "Nothing was changed; run again."
                    )
                    raise BusyError(message) from None
                sleep(_PAUSE_SECONDS)
        raise AssertionError  # the last try returns or raises

    def _once(self) -> RestorePlan | None:
        with (
            self.database.connect("restore") as connection,
            settled(connection, self.database, commit=not self.request.dry_run, purpose="restore"),
        ):
            batch = batches.by_id(connection, self.request.batch_id)
            seize(connection, batch.feed, batch.partition_key)
            batch = batches.by_id(connection, batch.batch_id)
            if batch.status in batches.IN_FORCE:
                return None  # somebody else was first
            _require_archived(connection, batch)
            erasures.require_none_under_way(connection, batch.batch_id)
            return self._bring_back(connection, batch)

    def _bring_back(self, connection: Connection, batch: Batch) -> RestorePlan:
        pin(connection)
        tables = self.rows.account.tables
        in_force = batches.in_force(connection, batch.feed, batch.partition_key)
        obstacles = []
        if in_force is not None:
            text = (
                f"batch {in_force.batch_id} is in force for the same partition since; roll that back "
                "first"
            )
            obstacles.append(Obstacle("partition", "", text))
        obstacles += [each for table in tables for each in obstacles_of(connection, table)]
        status = restores.status_before(connection, batch.batch_id)

        def plan(found: list[Obstacle]) -> RestorePlan:
            planned = tuple(
                TablePlan(t.full_name, t.digest.rows, tuple(notes_of(connection, t)))
                for t in tables
            )
            return RestorePlan(batch, self.place, status, planned, tuple(found))

        if any(each.kind in {"table", "column"} for each in obstacles):
            # What its rows would collide with cannot be asked of such a table.
            raise RefusedRestoreError(plan(obstacles))
        infos = {table.full_name: read_table(connection, None, table.full_name) for table in tables}
        lock_tables(connection, [info.oid for info in infos.values()], exclusive=False)
        failpoint("restore.locked", connection)
        staged = [
            stage_rows(connection, self.rows, table, number) for number, table in enumerate(tables)
        ]
        for each in staged:
            info = infos[each.table.full_name]
            obstacles += collisions(connection, each, info, staged)
        wanted = plan(obstacles)
        if obstacles:
            raise RefusedRestoreError(wanted)
        connection.execute("SET CONSTRAINTS ALL DEFERRED")
        for each in staged:
            insert_rows(connection, each)
            failpoint("restore.inserted", connection)
        connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
        as_loaded = all(table.since.is_untouched for table in tables)
        restores.mark_restored(connection, batch.batch_id, as_loaded=as_loaded)
        for table in tables:
            prove_restored(connection, batch.batch_id, table)
        failpoint("restore.proven", connection)
        if not self.request.dry_run:
            details = {
                "place": self.place,
                "status": status,
                "tables": {table.full_name: table.digest.rows for table in tables},
                "kept_until": _kept_until(connection, self.request.days),
            }
            events.append(connection, self.request.event(batch, "done", "SUCCESS", details))
        return wanted

    def _refused(self, error: psycopg.Error) -> str:
        return (
            f"Batch {self.request.batch_id} was not restored, nothing was changed. {explain(error)} "
            "The tables have constraints or triggers today that its rows do not meet; make them as they "
            "were, and run again."
        )


def _kept_until(connection: Connection, days: int) -> str:
    ((until,),) = connection.execute(_KEPT_UNTIL, (days,)).fetchall()
    return str(until.isoformat())


def _require_archived(connection: Connection, batch: Batch) -> None:
    if batch.status == "SUPERSEDED":
        message = (
            f"Batch {batch.batch_id} ({batch.name}) cannot be restored: batch {batch.superseded_by} has "
            "taken its place. Roll that one back first; nothing was changed."
        )
        raise RestoreError(message)
    if batch.status != "ARCHIVED":
        message = (
            f"Batch {batch.batch_id} ({batch.name}) is {batch.status}, and not archived: there is "
            "nothing to restore."
        )
        raise RestoreError(message)
    if archives.rows(connection, batch.batch_id) is None:
        message = (
            f"Batch {batch.batch_id} ({batch.name}) is archived, and the ledger knows no bag of its "
            "rows. `batch-pipelines archive verify --all` tells which bags there are."
        )
        raise ArchiveError(message)
