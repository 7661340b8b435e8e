"""The course of retention: look, put away, read back, delete; a class of data of a batch at a time.

What fails is written down and told, and stops nothing else. A process that is killed leaves each class
either in the tables or, read back and compared, in the archive; the next run goes on. Only one run is at
work at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable  # noqa: TC003  # a dataclass default below
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psycopg

from batch_pipelines.engine.alerts import Alert, raise_alert, resolve
from batch_pipelines.engine.archiving.keys import require_keys
from batch_pipelines.engine.archiving.rows.export import export_rows
from batch_pipelines.engine.archiving.rows.reading import open_rows
from batch_pipelines.engine.errors import BatchError, BusyError, RetentionError
from batch_pipelines.engine.failpoints import failpoint
from batch_pipelines.engine.ledger import batches, events
from batch_pipelines.engine.postgres.database import RETENTION_LOCK_CLASS
from batch_pipelines.engine.postgres.lease import acquire
from batch_pipelines.engine.retention import record, records, sql
from batch_pipelines.engine.retention.deleting import Deletion, KeptError
from batch_pipelines.engine.retention.trail import Trail
from batch_pipelines.engine.work import explain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.postgres.database import Connection, Database
    from batch_pipelines.engine.retention.plan import Found, Planner
    from batch_pipelines.engine.retention.record import Chunk, Course
    from batch_pipelines.engine.retention.trail import MonthDone
    from batch_pipelines.engine.settings import Settings

# Deadlock, serialization failure, and a table's lock that was not had in time.
_TRANSIENT = frozenset({"40P01", "40001", "55P03"})
_TRIES = 10
_PAUSE_SECONDS = 0.5
# A clock that is so far ahead, in seconds, would delete what is not due.
_SKEW_SECONDS = 3600.0
_LOCK = "SELECT pg_try_advisory_lock(%s, 0)"
_UNLOCK = "SELECT pg_advisory_unlock(%s, 0)"


@dataclass(frozen=True)
class Result:
    """What a run came to.

    Attributes:
        plan: What it found at its beginning.
        chunks: What it worked on.
        months: What it has done with months of the audit trail.
    """

    plan: tuple[Found, ...]
    chunks: tuple[Chunk, ...]
    months: tuple[MonthDone, ...] = ()

    def of_state(self, *states: record.State) -> list[Chunk]:
        """List what ended so."""
        return [chunk for chunk in self.chunks if chunk.state in states]

    @property
    def failures(self) -> list[str]:
        """What failed, each with its reason."""
        failed = [f"{c.name} {c.data_class}: {c.reason}" for c in self.of_state("FAILED")]
        months = [m for m in self.months if m.state == "FAILED"]
        return failed + [f"audit trail, {m.month}: {m.reason}" for m in months]


@dataclass(frozen=True)
class Retention:
    """Archives and deletes what is due.

    Attributes:
        database: The target database.
        settings: Folders, keys and times.
        planner: Says what is due, and what keeps it.
        course: Who runs it.
        progress: Is told each class that has ended.
        sleep: Waits so many seconds.
    """

    database: Database
    settings: Settings
    planner: Planner
    course: Course
    progress: Callable[[Chunk], None] = lambda _: None
    sleep: Callable[[float], None] = field(default=time.sleep)

    def run(self, feed: str | None = None) -> Result:
        """Work off everything that is due and that nothing keeps.

        Args:
            feed: Only of this feed, if given.

        Returns:
            What was found and done. What failed is among it.

        Raises:
            BusyError: Another run of retention is at work.
            RetentionError: It must not start here.
            FeedError: There is no such feed.
        """
        with self._alone() as connection:
            self._preflight(connection)
            plan = self.planner.plan(connection, feed)
            self._append(connection, "retention.started", "IN_PROGRESS", _counts(plan))
            record.end_left(connection, self.course.run_id)
            self._give_back(connection)
            tried: set[tuple[str, str]] = set()
            # What goes may free what it kept, such as rows that others refer to.
            due = self._due(plan, tried)
            while due:
                for item in due:
                    tried.add((item.batch_id, item.data_class))
                    self._work(connection, item)
                due = self._due(self.planner.plan(connection, feed), tried)
            # The trail is all feeds'.
            months = self._trail().run(connection) if feed is None else ()
            result = Result(plan, record.of_run(connection, self.course.run_id), months)
            self._conclude(connection, result)
            return result

    def _trail(self) -> Trail:
        return Trail(self.database, self.settings, self.planner, self.course, self._persistently)

    @staticmethod
    def _due(plan: tuple[Found, ...], tried: set[tuple[str, str]]) -> list[Found]:
        return [i for i in plan if i.goes and (i.batch_id, i.data_class) not in tried]

    @contextmanager
    def _alone(self) -> Iterator[Connection]:
        with self.database.connect("retention") as connection:
            if connection.execute(_LOCK, (RETENTION_LOCK_CLASS,)).fetchone() != (True,):
                message = (
                    "Another run of retention is at work; nothing was done. Wait for it to end."
                )
                raise BusyError(message)
            try:
                yield connection
            finally:
                # A backend outlives its connection for a moment, in which the next run would be refused.
                with suppress(psycopg.Error):
                    connection.execute(_UNLOCK, (RETENTION_LOCK_CLASS,))

    def _preflight(self, connection: Connection) -> None:
        """Refuse to start where time or server are not what they should be."""
        ((now, standby),) = connection.execute(sql.CLOCK).fetchall()
        if standby:
            message = "The database is a standby: retention runs on the primary."
            raise RetentionError(message)
        if (self.planner.now - now).total_seconds() > _SKEW_SECONDS:
            message = (
                f"It is {self.planner.now:%Y-%m-%d %H:%M} here and {now:%Y-%m-%d %H:%M} on the server, "
                "so what is due cannot be told; nothing was done. Correct the clock, and run again."
            )
            raise RetentionError(message)

    def _give_back(self, connection: Connection) -> None:
        """Give leases back that a killed run has left where nothing may be left to do."""
        run_id, seconds = self.course.run_id, self.settings.lease_seconds
        for feed, key in record.leased(connection):
            # Whoever has taken one over meanwhile gives it back himself.
            with suppress(BusyError), acquire(self.database, feed, key, run_id, seconds=seconds):
                pass

    def _work(self, connection: Connection, item: Found) -> None:
        chunk_id = record.begin(connection, self.course, item)
        try:
            self._archive_and_delete(connection, item, chunk_id)
        except KeptError as kept:
            record.end(connection, chunk_id, "KEPT", str(kept))
        except BusyError as busy:
            record.end(connection, chunk_id, "KEPT", str(busy))
        except (BatchError, psycopg.Error, OSError) as error:
            if connection.broken:
                raise
            self._tell_failed(connection, item, chunk_id, explain(error))
        else:
            resolve(connection, _alert_key(item))
        for chunk in record.of_run(connection, self.course.run_id)[-1:]:
            self.progress(chunk)

    def _archive_and_delete(self, ledger: Connection, item: Found, chunk_id: int) -> None:
        feed = self.planner.feeds[item.feed]
        require_keys(self.settings, feed)
        run_id, seconds = self.course.run_id, self.settings.lease_seconds
        with (
            acquire(self.database, item.feed, item.partition_key, run_id, seconds=seconds) as lease,
            self.database.connect(f"retention {item.data_class}") as connection,
        ):
            lease.record_worker(connection)
            batch = batches.by_id(connection, item.batch_id)
            going = Deletion(
                self.database, self.settings, self.planner, self.course, item, chunk_id, lease
            )
            if item.data_class == "bags":
                self._persistently(lambda: going.bags(connection))
            elif item.data_class == "rows":
                bag = export_rows(connection, self.settings, feed, batch, lease).bag
                place = failpoint("retention.archived", bag.record.place)
                record.archived(ledger, chunk_id, place)
                with open_rows(connection, self.settings, batch.batch_id) as rows:
                    rows.prove()
                    tables = rows.account.tables
                record.verified(ledger, chunk_id)
                self._persistently(lambda: going.rows(connection, tables, place))
            else:
                self._archive_and_delete_lines(ledger, connection, batch, going)

    def _archive_and_delete_lines(
        self, ledger: Connection, connection: Connection, batch: Batch, going: Deletion
    ) -> None:
        data_class, by = going.item.data_class, self.course.requested_by
        with records.opened_lines(connection, batch.batch_id, data_class, by):
            own = records.put_away(
                connection, self.settings, going.feed, batch, going.lease, data_class
            )
            place = failpoint("retention.archived", own.place)
            record.archived(ledger, going.chunk_id, place)
            account = records.prove(self.settings, own)
            record.verified(ledger, going.chunk_id)
            self._persistently(lambda: going.records(connection, account, place))

    def _persistently(self, delete: Callable[[], None]) -> None:
        """Try again what PostgreSQL ends for no fault of ours."""
        for left in reversed(range(_TRIES)):
            try:
                delete()
            except psycopg.Error as error:
                if error.sqlstate not in _TRANSIENT or not left:
                    raise
                self.sleep(_PAUSE_SECONDS)
            else:
                return

    def _tell_failed(self, connection: Connection, item: Found, chunk_id: int, why: str) -> None:
        with connection.transaction():
            record.end(connection, chunk_id, "FAILED", why)
            details = {**record.told(item), "why": why}
            feed = self.planner.feeds[item.feed]
            events.append(
                connection,
                self.course.event(
                    "batch.retention.failed", "FAILED", details, batch_id=item.batch_id, feed=feed
                ),
            )
            raise_alert(connection, _alert(item, why))

    def _conclude(self, connection: Connection, result: Result) -> None:
        failed = bool(result.failures)
        ended: dict[str, object] = {
            "deleted": len(result.of_state("DELETED")),
            "kept": len(result.of_state("KEPT")),
            "failed": len(result.of_state("FAILED")),
            "months": {
                state.lower(): sum(month.state == state for month in result.months)
                for state in ("SEALED", "REMOVED", "FAILED")
            },
        }
        if not result.chunks:
            self._append(connection, "retention.nothing_eligible", "SUCCESS", _counts(result.plan))
        self._append(connection, "retention.done", "FAILED" if failed else "SUCCESS", ended)

    def _append(
        self, connection: Connection, action: str, status: str, details: dict[str, object]
    ) -> None:
        with connection.transaction():
            events.append(connection, self.course.event(action, status, details))


def require_done(result: Result) -> None:
    """Raise where something failed, so that it is never quiet.

    Args:
        result: What a run came to.

    Raises:
        RetentionError: What failed is named.
    """
    if failed := result.failures:
        named = "; ".join(failed[:5])
        message = (
            f"Retention failed {len(failed)} times, and deleted nothing there: {named} Run it again "
            "when the cause is mended."
        )
        raise RetentionError(message)


def _counts(plan: tuple[Found, ...]) -> dict[str, object]:
    return {"due": sum(i.goes for i in plan), "kept": sum(not i.goes for i in plan)}


def _alert_key(item: Found) -> str:
    return f"retention/{item.batch_id}/{item.data_class}"


def _alert(item: Found, why: str) -> Alert:
    return Alert(
        kind="retention",
        severity="warning",
        subject=f"{item.data_class} of {item.name} could not be archived and deleted",
        deduplication_key=_alert_key(item),
        feed=item.feed,
        batch_id=item.batch_id,
        details={
            "why": why, "rule": item.rule, "legal_source": item.legal_source,
            "next": f"batch-pipelines retention --feed {item.feed}",
        },
    )  # fmt: skip
