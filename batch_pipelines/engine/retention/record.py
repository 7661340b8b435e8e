"""The record: how far retention came with each class of data of each batch, and its events."""

from __future__ import annotations

import datetime as dt  # noqa: TC003  # psycopg's row factory makes what the dataclass says
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from psycopg.rows import class_row, scalar_row

from batch_pipelines.engine.feed_parts.retention import DataClass  # noqa: TC001
from batch_pipelines.engine.ledger import events

if TYPE_CHECKING:
    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.retention.plan import Found

State = Literal["FOUND", "ARCHIVED", "VERIFIED", "DELETED", "KEPT", "FAILED"]


@dataclass(frozen=True)
class Chunk:
    """One class of data of one batch that retention has worked on, as `retention_chunk` has it.

    Attributes:
        chunk_id: Its number.
        batch_id: The batch.
        feed, partition_key: Its partition.
        data_class: What of it.
        state: How far it came.
        rule, legal_source, due_at: By which rule, and since when.
        records: Rows, or files of bags.
        bytes: Their size.
        place: The bag that has what was deleted.
        reason: Why it failed, or was kept after all.
        ended_at: When; None while it is worked on.
    """

    chunk_id: int
    batch_id: str
    feed: str
    partition_key: str
    data_class: DataClass
    state: State
    rule: str
    legal_source: str
    due_at: dt.datetime
    records: int
    bytes: int
    place: str | None
    reason: str | None
    ended_at: dt.datetime | None

    @property
    def name(self) -> str:
        """Feed and partition key."""
        return f"{self.feed}/{self.partition_key}"


@dataclass(frozen=True)
class Course:
    """Who runs retention, and as which run.

    Attributes:
        run_id: Id of the run: Dagster's, or one made for it.
        requested_by: Who asked for it.
    """

    run_id: str
    requested_by: str

    def event(
        self,
        action: str,
        status: str,
        details: dict[str, object],
        *,
        batch_id: str | None = None,
        feed: Feed | None = None,
    ) -> events.Event:
        """Make the audit trail's entry for a step."""
        kind, which = ("retention", self.run_id) if batch_id is None else ("batch", batch_id)
        return events.Event(
            self.requested_by, action, status, kind, which,
            correlation_id=self.run_id, details=details,
            compliance_context={} if feed is None else feed.compliance.context,
        )  # fmt: skip


_BEGIN = """
INSERT INTO batch_audit.retention_chunk (run_id, batch_id, data_class, rule, legal_source, due_at,
    records, bytes, requested_by)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING chunk_id
"""
_ARCHIVED = """
UPDATE batch_audit.retention_chunk SET state = 'ARCHIVED', archived_at = clock_timestamp(), place = %s
WHERE chunk_id = %s
"""
_VERIFIED = """
UPDATE batch_audit.retention_chunk SET state = 'VERIFIED', verified_at = clock_timestamp()
WHERE chunk_id = %s
"""
_END = """
UPDATE batch_audit.retention_chunk
SET state = %s, reason = %s, records = coalesce(%s, records), ended_at = clock_timestamp()
WHERE chunk_id = %s
"""
_LEFT = """
UPDATE batch_audit.retention_chunk
SET state = 'FAILED', ended_at = clock_timestamp(),
    reason = format('Its run ended without a word as far as %%s; run %%s goes on.', state, %s::text)
WHERE ended_at IS NULL
"""
_LEASED = """
SELECT feed, partition_key FROM batch_audit.batch_lease
WHERE released_at IS NULL AND run_id IN (SELECT run_id FROM batch_audit.retention_chunk)
"""
_COLUMNS = """
SELECT c.chunk_id, c.batch_id::text, h.feed, h.partition_key, c.data_class, c.state, c.rule,
       c.legal_source, c.due_at, c.records, c.bytes, c.place, c.reason, c.ended_at
FROM batch_audit.retention_chunk AS c JOIN batch_audit.import_history AS h USING (batch_id)
"""
_OF_RUN = _COLUMNS + "WHERE c.run_id = %s ORDER BY c.chunk_id"
_OF_BATCH = _COLUMNS + "WHERE c.batch_id = %s AND c.state = 'DELETED' ORDER BY c.chunk_id"


def begin(connection: Connection, course: Course, item: Found) -> int:
    """Write down what is about to be worked on; give its number."""
    kept = (
        course.run_id, item.batch_id, item.data_class, item.rule, item.legal_source, item.due_at,
        item.records, item.bytes, course.requested_by,
    )  # fmt: skip
    with connection.cursor(row_factory=scalar_row) as cursor:
        return int(cursor.execute(_BEGIN, kept).fetchone() or 0)


def archived(connection: Connection, chunk_id: int, place: str | None) -> None:
    """Say that it is put away; None where nothing was to be."""
    connection.execute(_ARCHIVED, (place, chunk_id))


def verified(connection: Connection, chunk_id: int) -> None:
    """Say that what was put away was read back, and is the same."""
    connection.execute(_VERIFIED, (chunk_id,))


def end(
    connection: Connection,
    chunk_id: int,
    state: State,
    reason: str | None = None,
    records: int | None = None,
) -> None:
    """Say how it ended; `DELETED` in the transaction that deletes."""
    connection.execute(_END, (state, reason, records, chunk_id))


def end_left(connection: Connection, run_id: str) -> int:
    """End what a killed run has left; give how many. Nobody else is at work."""
    return connection.execute(_LEFT, (run_id,)).rowcount


def leased(connection: Connection) -> list[tuple[str, str]]:
    """List the partitions, feed and key, whose lease a killed run has left. Nobody else is at work."""
    return [(feed, key) for feed, key in connection.execute(_LEASED)]


def of_run(connection: Connection, run_id: str) -> tuple[Chunk, ...]:
    """Read what a run has worked on."""
    with connection.cursor(row_factory=class_row(Chunk)) as cursor:
        return tuple(cursor.execute(_OF_RUN, (run_id,)).fetchall())


def deleted(connection: Connection, batch_id: str) -> tuple[Chunk, ...]:
    """Read what retention has deleted of a batch, in that order."""
    with connection.cursor(row_factory=class_row(Chunk)) as cursor:
        return tuple(cursor.execute(_OF_BATCH, (batch_id,)).fetchall())


def told(item: Found) -> dict[str, object]:
    """Write what was found as an event's details have it."""
    kept = {name: str(value) for name, value in asdict(item).items() if name != "kept_by"}
    return {**kept, "records": item.records, "bytes": item.bytes}
