"""Months of the audit trail: sealed when they are over, removed when their time is over.

In this order: all that are over are sealed; of one that is due, its entries are put away in a bag, the
bag is read back and everything that seals the month is computed from it again; what nothing else says
(the last word on a batch) is said again by new entries; then the ledger's own function removes the month
as a whole, and keeps its root. A process may be killed between any two of these: the next run goes on.
"""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

import psycopg
from psycopg.rows import class_row, scalar_row

from batch_pipelines.engine.alerts import Alert, raise_alert, resolve
from batch_pipelines.engine.archiving import tags
from batch_pipelines.engine.archiving.archives import TRAIL
from batch_pipelines.engine.archiving.choosing import open_archive
from batch_pipelines.engine.archiving.keys import read_keys
from batch_pipelines.engine.archiving.packing import Packing
from batch_pipelines.engine.audit import anchors
from batch_pipelines.engine.audit.entry import entries
from batch_pipelines.engine.audit.segment_bags import ENTRIES, SEGMENT, line_of, proven
from batch_pipelines.engine.audit.segments import Segment, segments
from batch_pipelines.engine.errors import BatchError
from batch_pipelines.engine.failpoints import failpoint
from batch_pipelines.engine.feed_parts.archiving import DEFAULT_LEVEL
from batch_pipelines.engine.ledger import events
from batch_pipelines.engine.retention.trail_plan import due_months
from batch_pipelines.engine.work import explain
from batch_pipelines.engine.writing.settling import settled

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from batch_pipelines.engine.postgres.database import Connection, Database
    from batch_pipelines.engine.retention.plan import Planner
    from batch_pipelines.engine.retention.record import Course
    from batch_pipelines.engine.retention.trail_plan import DueMonth
    from batch_pipelines.engine.settings import Settings

_SEAL: Final = "SELECT batch_audit.seal_months(%s, %s)"
# Each takes some tenths of a millisecond while nobody else can append.
_CARRIED_AT_ONCE = 500
_CARRY: Final = "SELECT batch_audit.carry_on(%s, %s, %s, %s)"
_REMOVE: Final = "SELECT batch_audit.remove_segment(%s, %s, %s, %s, %s, %s, %s, %s, %s)"
_SNAPSHOT: Final = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"
_SEALING: Final = "seal"
# By the index on resource_id.
_OF_RUN: Final = """
SELECT e.resource_id AS month,
       CASE e.action WHEN 'trail.sealed' THEN 'SEALED' WHEN 'trail.removed' THEN 'REMOVED'
                     ELSE 'FAILED' END AS state,
       coalesce((e.details #>> '{segment,entries}')::bigint, 0) AS entries,
       e.details #>> '{segment,place}' AS place, e.details ->> 'why' AS reason
FROM batch_audit.audit_event AS e
WHERE e.resource_id IN (SELECT to_char(month, 'YYYY-MM') FROM batch_audit.audit_segment
                        UNION ALL SELECT 'seal')
    AND e.resource_type = 'segment' AND e.correlation_id = %s
    AND e.action IN ('trail.sealed', 'trail.removed', 'trail.removal.failed')
ORDER BY e.seq
"""


@dataclass(frozen=True)
class MonthDone:
    """What a run has done with a month of the trail.

    Attributes:
        month: The month, as in `2026-01`; `seal` where sealing failed.
        state: `SEALED`, `REMOVED`, or `FAILED`.
        entries: How many entries it has or had.
        place: The bag that has them now; None while the database has.
        reason: Why it failed.
    """

    month: str
    state: Literal["SEALED", "REMOVED", "FAILED"]
    entries: int
    place: str | None
    reason: str | None


@dataclass(frozen=True)
class Trail:
    """Seals months of the trail, and removes those that are due.

    Attributes:
        database: Where a lost answer to COMMIT is asked for.
        settings: Say where bags stand.
        planner: Has the rules and the time.
        course: Who runs it.
        persistently: Does something again that PostgreSQL ends for no fault of ours.
    """

    database: Database
    settings: Settings
    planner: Planner
    course: Course
    persistently: Callable[[Callable[[], None]], None]

    def run(self, connection: Connection) -> tuple[MonthDone, ...]:
        """Do it.

        Args:
            connection: A connection in autocommit mode; nobody else runs retention.

        Returns:
            What was done; what failed is among it.
        """
        if not self._tried(connection, _SEALING, partial(self._seal, connection)):
            return of_run(connection, self.course.run_id)
        for month in due_months(connection, self.planner):
            if month.goes:
                self._tried(connection, month.name, partial(self._remove, connection, month))
        return of_run(connection, self.course.run_id)

    def _seal(self, connection: Connection) -> None:
        connection.execute(_SEAL, (self.course.requested_by, self.course.run_id))

    def _remove(self, connection: Connection, due: DueMonth) -> None:
        segment = next(s for s in segments(connection) if s.month == due.month)
        place, seal = self._put_away(connection, segment)
        failpoint("trail.archived", place)
        mine = (self.course.requested_by, self.course.run_id)
        with connection.cursor(row_factory=scalar_row) as cursor:
            while cursor.execute(_CARRY, (due.month, _CARRIED_AT_ONCE, *mine)).fetchone():
                failpoint("trail.carried", connection)
        told: dict[str, object] = {
            "place": place,
            "rule": due.rule,
            "legal_source": due.legal_source,
        }
        self._append(connection, "trail.removing", "IN_PROGRESS", due.name, told)

        def remove() -> None:
            with settled(connection, self.database, purpose="trail"):
                connection.execute(
                    _REMOVE,
                    (
                        due.month,
                        segment.root,
                        place,
                        seal,
                        due.rule,
                        due.legal_source,
                        due.due_at,
                        *mine,
                    ),
                )
                failpoint("trail.removed", connection)

        self.persistently(remove)

    def _put_away(self, connection: Connection, segment: Segment) -> tuple[str, str]:
        """Put the entries of a month into a bag, and read it back; give its place and seal."""
        archive = open_archive(self.settings, self.settings.archive_address)
        head = anchors.head(connection)
        name = f"{TRAIL}/{segment.name}/{head.ledger_id}"
        for left in [*archive.named(name)]:
            # A killed run has left it, and the ledger was never told. The entries are there still.
            archive.remove(left)
        draft = archive.draft(name, head.seq)
        keys = read_keys(self.settings.archive_key)
        packing = Packing("compress", DEFAULT_LEVEL, None, keys)
        data = draft.folder / tags.DATA
        self._fill(connection, segment, packing, data)
        (data / SEGMENT).write_text(_facts(segment), encoding="utf-8")
        (data / anchors.IN_BAG).parent.mkdir()
        (data / anchors.IN_BAG).write_text(f"{head.json}\n", encoding="utf-8")
        what = f"Audit trail of {segment.name}, entries {segment.first_seq} to {segment.last_seq}"
        today = dt.datetime.now(dt.UTC).date()
        info = tags.about(head.ledger_id, what, today)
        seal = tags.write_tags(draft.folder, info | packing.tags)
        failpoint("trail.written", draft.folder)
        draft.secure()
        bag = draft.seal()
        failpoint("trail.sealed", archive.place(bag))
        with proven(self.settings, archive, bag, seal, segment):
            return archive.place(bag), seal

    def _fill(self, connection: Connection, segment: Segment, packing: Packing, data: Path) -> None:
        unpacked = data.parent / "lines"
        (data / ENTRIES).parent.mkdir(parents=True)
        with connection.transaction(), unpacked.open("wb") as file:
            connection.execute(_SNAPSHOT)
            for entry in entries(connection, segment.month):
                file.write(line_of(entry))
        packing.pack(ENTRIES, unpacked, data / packing.stored(ENTRIES))
        unpacked.unlink()

    def _tried(self, connection: Connection, what: str, do: Callable[[], None]) -> bool:
        """Do something; where it fails, write that down and tell it, for it stops nothing else."""
        try:
            do()
        except (BatchError, psycopg.Error, OSError) as error:
            if connection.broken or connection.closed:
                raise
            why = explain(error)
            with connection.transaction():
                self._append(connection, "trail.removal.failed", "FAILED", what, {"why": why})
                raise_alert(connection, _alert(what, why))
            return False
        resolve(connection, _key(what))
        return True

    def _append(
        self,
        connection: Connection,
        action: str,
        status: str,
        what: str,
        details: dict[str, object],
    ) -> None:
        event = events.Event(
            self.course.requested_by, action, status, "segment", what,
            correlation_id=self.course.run_id, details=details,
        )  # fmt: skip
        with connection.transaction():
            events.append(connection, event)


def of_run(connection: Connection, run_id: str) -> tuple[MonthDone, ...]:
    """Read what a run has done with months of the trail."""
    with connection.cursor(row_factory=class_row(MonthDone)) as cursor:
        return tuple(cursor.execute(_OF_RUN, (run_id,)).fetchall())


def _facts(segment: Segment) -> str:
    sealed = replace(segment, place=None, tagmanifest_sha256=None, removed_at=None).__dict__
    told = {
        name: value.hex() if isinstance(value, bytes) else str(value)
        for name, value in sealed.items()
        if value is not None
    }
    return json.dumps(told, indent=1) + "\n"


def _key(what: str) -> str:
    return f"retention/audit_trail/{what}"


def _alert(what: str, why: str) -> Alert:
    failed = "The audit trail could not be sealed"
    return Alert(
        kind="retention",
        severity="warning",
        subject=failed if what == _SEALING else f"{what} of the audit trail could not be removed",
        deduplication_key=_key(what),
        details={"why": why, "next": "batch-pipelines verify --audit"},
    )
