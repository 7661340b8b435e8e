"""The course of an erasure: look, write down what is to be done, the tables, each bag, look once more.

What is written down knows records by their numbers: whoever goes on after the tables are done needs no
key. Before, the same command goes on; a salted hash tells that it is the same. It is forgotten at the
end. A process that is killed leaves each place as it was or without the person. Only one erasure is at
work at a time.
"""

from __future__ import annotations

import secrets
import time
import uuid
from collections.abc import Callable  # noqa: TC003  # a dataclass default below
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import psycopg

from batch_pipelines.engine.erasure import bags, rows
from batch_pipelines.engine.erasure.plan import Plan, Planner
from batch_pipelines.engine.erasure.subject import Subject
from batch_pipelines.engine.errors import BusyError, ErasureError
from batch_pipelines.engine.ledger import erasures, events
from batch_pipelines.engine.ledger.erasures import Erasure, Place  # noqa: TC001  # as above
from batch_pipelines.engine.postgres.database import ERASURE_LOCK_CLASS
from batch_pipelines.engine.work import explain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.postgres.database import Connection, Database
    from batch_pipelines.engine.settings import Settings

# Deadlock, serialization failure, and a table's lock that was not had in time.
_TRANSIENT: Final = frozenset({"40P01", "40001", "55P03"})
_TRIES: Final = 10
_PAUSE_SECONDS: Final = 0.5
# Whoever loads the person again and again meanwhile is not waited for.
_ROUNDS: Final = 3
_LOCK: Final = "SELECT pg_try_advisory_lock(%s, 0)"
_UNLOCK: Final = "SELECT pg_advisory_unlock(%s, 0)"


@dataclass(frozen=True)
class Request:
    """Who is to be erased.

    Attributes:
        feed: The feed.
        table: The table, as in `public.patients`.
        key: Values by column; never printed.
        reason: Why; it goes into the ledger.
        requested_by: Who asks for it.
        drop_sources: Whether files leave bags as a whole out of which single records cannot be cut.
    """

    feed: str
    table: str
    key: Mapping[str, str] = field(repr=False)
    reason: str
    requested_by: str
    drop_sources: bool = False


@dataclass(frozen=True)
class Erased:
    """What an erasure came to.

    Attributes:
        erasure: What is kept of it; None where nothing of the person was found.
        places: Where records were, and what became of them.
        notes: What somebody should know.
    """

    erasure: Erasure | None
    places: tuple[Place, ...]
    notes: tuple[str, ...] = ()


class RefusedErasureError(ErasureError):
    """Something stands in the way of an erasure; nothing was erased.

    Attributes:
        plan: Where the person is, and what stands in the way.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__(f"Nothing was erased: {'; '.join(plan.obstacles)}.")
        self.plan = plan


@dataclass(frozen=True)
class Eraser:
    """Erases persons.

    Attributes:
        database: The target database.
        settings: Hold the keys, and say where bags and staged copies stand.
        feeds: The feeds by name.
        run_id: Id of the run: Dagster's, or one made for it.
        progress: Is told each place that is done.
        sleep: Waits so many seconds.
    """

    database: Database
    settings: Settings
    feeds: Mapping[str, Feed]
    run_id: str
    progress: Callable[[Place], None] = lambda _: None
    sleep: Callable[[float], None] = field(default=time.sleep)

    def plan(self, request: Request) -> Plan:
        """Say where a person is, and what stands in the way.

        Args:
            request: Who.

        Returns:
            The plan; nothing is changed.

        Raises:
            ErasureError: The key is none of the table's.
            FeedError: There is no such feed or table.
        """
        with self.database.connect("erase plan") as connection:
            return self._planner(connection, request).plan(connection)

    def erase(self, request: Request) -> Erased:
        """Erase a person, or go on where an earlier run with the same key has ended.

        Args:
            request: Who, and why.

        Returns:
            What was done.

        Raises:
            RefusedErasureError: Something stands in the way; nothing more was erased.
            ErasureError: The key is none of the table's, there is no reason, or something came in the
                way meanwhile.
            ArchiveError: A bag cannot be read, written or deleted; what was erased stays erased.
            BusyError: Another erasure, or a run on a partition, is at work.
            FeedError: There is no such feed or table.
        """
        if not request.reason.strip():
            message = "An erasure is done for a reason, which is kept: give --reason TEXT."
            raise ErasureError(message)
        with self._alone() as connection:
            planner = self._planner(connection, request)
            erasure = self._same(connection, planner.subject)
            notes = list[str]()
            for _ in range(_ROUNDS):
                plan = planner.plan(connection)
                notes += [note for note in plan.notes if note not in notes]
                if plan.is_empty:
                    break
                self._require_possible(connection, request, erasure, plan)
                erasure = self._write_down(connection, request, planner.subject, erasure, plan)
                self._tables(connection, planner, erasure, plan)
                self._bags(connection, erasure)
            else:
                message = (
                    "The person has been loaded again while they were erased, several times. Stop the "
                    "deliveries that bring them, and run again."
                )
                raise ErasureError(message)
            if erasure is None:
                self._nothing_found(connection, request)
                return Erased(None, (), tuple(notes))
            # What an earlier run has left half done is found in no plan.
            self._bags(connection, erasure)
            return self._conclude(connection, erasure, tuple(notes), searched=True)

    def resume(self) -> list[Erased]:
        """Go on with every erasure that has left the tables: no key is needed for what is left.

        Returns:
            What was done of each.

        Raises:
            ErasureError: A hold is over a batch, or the tables of an erasure are not done: the same
                command with its key has to be given again.
            ArchiveError: A bag cannot be read, written or deleted.
            BusyError: Another erasure, or a run on a partition, is at work.
        """
        with self._alone() as connection:
            done, waiting = [], []
            for erasure in erasures.unfinished(connection):
                found = erasures.places(connection, erasure.erasure_id)
                if any(p.kind in rows.KINDS and p.state == "FOUND" for p in found):
                    waiting.append(erasure)
                    continue
                self._bags(connection, erasure)
                done.append(self._conclude(connection, erasure, (), searched=False))
        if waiting:
            named = ", ".join(f"{e.erasure_id} ({e.feed}/{e.target_table})" for e in waiting)
            message = (
                f"Of {named} nothing has left the tables yet, and whose records are meant is not kept. "
                "Give the same command with its key again."
            )
            raise ErasureError(message)
        return done

    def _planner(self, connection: Connection, request: Request) -> Planner:
        feed = self.feeds.get(request.feed)
        if feed is None or request.table not in {table.table for table in feed.tables}:
            known = (
                "`batch-pipelines feeds list` lists the feeds"
                if feed is None
                else f"its tables are {', '.join(table.table for table in feed.tables)}"
            )
            message = f"There is no {request.feed}/{request.table}: {known}."
            raise ErasureError(message)
        subject = Subject.of(connection, request.table, request.key)
        return Planner(
            self.settings, self.feeds, subject, request.requested_by, request.drop_sources
        )

    @contextmanager
    def _alone(self) -> Iterator[Connection]:
        with self.database.connect("erase") as connection:
            if connection.execute(_LOCK, (ERASURE_LOCK_CLASS,)).fetchone() != (True,):
                message = "Another erasure is at work; nothing was done. Wait for it to end."
                raise BusyError(message)
            try:
                yield connection
            finally:
                # A backend outlives its connection for a moment, in which the next run would be refused.
                with suppress(psycopg.Error):
                    connection.execute(_UNLOCK, (ERASURE_LOCK_CLASS,))

    @staticmethod
    def _same(connection: Connection, subject: Subject) -> Erasure | None:
        for erasure in erasures.unfinished(connection):
            salt = erasure.key_salt if erasure.target_table == subject.table.full_name else None
            if salt is not None and subject.hashed(salt) == erasure.key_hash:
                return erasure
        return None

    def _require_possible(
        self, connection: Connection, request: Request, erasure: Erasure | None, plan: Plan
    ) -> None:
        if not plan.obstacles:
            return
        which = None if erasure is None else erasure.erasure_id
        told: dict[str, object] = {"reason": request.reason, "why": [*plan.obstacles]}
        with connection.transaction():
            events.append(
                connection,
                events.Event(
                    request.requested_by, "erasure.refused", "FAILED", "erasure",
                    which or self.run_id, correlation_id=self.run_id,
                    details={"feed": request.feed, "table": request.table, **told},
                ),
            )  # fmt: skip
        raise RefusedErasureError(plan)

    def _write_down(
        self,
        connection: Connection,
        request: Request,
        subject: Subject,
        erasure: Erasure | None,
        plan: Plan,
    ) -> Erasure:
        """Write down where records are: the intent, before anything is done."""
        with connection.transaction():
            if erasure is None:
                salt = secrets.token_bytes(32)
                erasure_id = str(uuid.uuid4())
                erasures.begin(
                    connection, erasure_id, request.feed, subject.table.full_name, subject.names,
                    salt, subject.hashed(salt), request.reason.strip(), request.requested_by,
                )  # fmt: skip
                erasure = erasures.by_id(connection, erasure_id)
            erasures.replan(connection, erasure.erasure_id, _ordered(plan.places))
            counts: dict[str, object] = {}
            for place in plan.places:
                counts[place.kind] = int(str(counts.get(place.kind, 0))) + place.found
            events.append(
                connection,
                self._event(erasure, "erasure.started", "IN_PROGRESS", None, {
                    "reason": erasure.reason, "feed": erasure.feed, "table": erasure.target_table,
                    "columns": erasure.key_columns, "found": counts,
                }),
            )  # fmt: skip
        return erasure

    def _tables(
        self, connection: Connection, planner: Planner, erasure: Erasure, plan: Plan
    ) -> None:
        def event(
            action: str, status: str, batch_id: str | None, details: dict[str, object]
        ) -> events.Event:
            return self._event(erasure, action, status, batch_id, details)

        going = rows.RowsErasure(self.database, planner, erasure, event)
        for left in reversed(range(_TRIES)):
            try:
                going.run(connection, plan)
            except psycopg.Error as error:
                if connection.closed or error.sqlstate not in _TRANSIENT or not left:
                    message = f"Nothing was erased. {explain(error)} Run again."
                    raise ErasureError(message) from None
                self.sleep(_PAUSE_SECONDS)
            else:
                break
        for place in erasures.places(connection, erasure.erasure_id):
            if place.kind in rows.KINDS:
                self.progress(place)

    def _bags(self, connection: Connection, erasure: Erasure) -> None:
        def event(
            action: str, status: str, batch_id: str | None, details: dict[str, object]
        ) -> events.Event:
            return self._event(erasure, action, status, batch_id, details)

        found = [
            place for place in erasures.places(connection, erasure.erasure_id)
            if place.kind in bags.KINDS and place.state != "ERASED"
        ]  # fmt: skip
        for number, place in enumerate(found):
            own = (place.batch_id, place.kind)
            is_last = own not in [(each.batch_id, each.kind) for each in found[number + 1 :]]
            bags.BagErasure(
                self.database,
                self.settings,
                self.feeds,
                erasure,
                self.run_id,
                event,
                place,
                is_last,
            ).run()
            self.progress(replace(place, state="ERASED", erased=place.found))

    def _conclude(
        self, connection: Connection, erasure: Erasure, notes: tuple[str, ...], *, searched: bool
    ) -> Erased:
        places = erasures.places(connection, erasure.erasure_id)
        with connection.transaction():
            erasures.mark_done(connection, erasure.erasure_id)
            counts: dict[str, object] = {}
            for place in places:
                counts[place.kind] = int(str(counts.get(place.kind, 0))) + (place.erased or 0)
            told: dict[str, object] = {
                "reason": erasure.reason, "feed": erasure.feed, "table": erasure.target_table,
                "erased": counts, "searched_again": searched,
            }  # fmt: skip
            events.append(connection, self._event(erasure, "erasure.done", "SUCCESS", None, told))
        return Erased(erasures.by_id(connection, erasure.erasure_id), tuple(places), notes)

    def _nothing_found(self, connection: Connection, request: Request) -> None:
        with connection.transaction():
            events.append(
                connection,
                events.Event(
                    request.requested_by, "erasure.nothing_found", "SUCCESS", "erasure", self.run_id,
                    correlation_id=self.run_id,
                    details={
                        "feed": request.feed, "table": request.table, "columns": [*request.key],
                        "reason": request.reason,
                    },
                ),
            )  # fmt: skip

    def _event(
        self,
        erasure: Erasure,
        action: str,
        status: str,
        batch_id: str | None,
        details: dict[str, object],
    ) -> events.Event:
        kind, which = ("erasure", erasure.erasure_id) if batch_id is None else ("batch", batch_id)
        feed = self.feeds.get(erasure.feed)
        return events.Event(
            erasure.requested_by, action, status, kind, which, correlation_id=erasure.erasure_id,
            details={"erasure": erasure.erasure_id, **details},
            compliance_context={} if feed is None else feed.compliance.context,
        )  # fmt: skip


def _ordered(places: tuple[Place, ...]) -> list[Place]:
    """Order places as they go: what a bag of rows proves is less before the others' digests are."""
    order = {kind: number for number, kind in enumerate((*rows.KINDS, *bags.KINDS))}
    return sorted(places, key=lambda place: order[place.kind])
