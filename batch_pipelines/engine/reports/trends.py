"""How the batches of a feed went over time: throughput, success rate, rejects; and pictures of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.rows import class_row

from batch_pipelines.engine.reports.charts import Chart, Look, Picture, Series, draw
from batch_pipelines.engine.reports.page import Column, Table

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence

    from batch_pipelines.engine.postgres.database import Connection

# By the index on feed and start; duplicates did nothing, so there is nothing to compare. Speed is that
# of bulk_write, over all records, as Dagster's plot of that asset has it.
_RECENT = """
SELECT h.batch_id::text, h.partition_key, h.attempt, h.status, h.started_at, h.source_records,
       h.written_records, h.rejected_records, h.source_bytes,
       extract(epoch FROM s.completed_at - s.started_at)::float8 AS seconds
FROM batch_audit.import_history AS h
LEFT JOIN batch_audit.batch_stage AS s
    ON s.batch_id = h.batch_id AND s.stage = 'bulk_write' AND s.status = 'SUCCESS'
WHERE h.feed = %(feed)s AND h.started_at >= coalesce(%(since)s::timestamptz, '-infinity')
  AND h.started_at <= %(until)s AND h.status <> 'DUPLICATE'
ORDER BY h.started_at DESC LIMIT %(number)s
"""
LOOKS: dict[str, Look] = {
    "SUCCESS": "good", "PUBLISHED": "good", "ARCHIVED": "good", "SUPERSEDED": "good",
    "PARTIAL_SUCCESS": "partial", "FAILED": "bad", "VALIDATION_FAILED": "bad",
}  # fmt: skip
"""How the state of a batch looks in a picture; all others are `other`."""


@dataclass(frozen=True)
class RecentBatch:
    """A batch as it is compared with others; `seconds` is what its bulk_write took, if it has ended."""

    batch_id: str
    partition_key: str
    attempt: int
    status: str
    started_at: dt.datetime
    source_records: int | None
    written_records: int | None
    rejected_records: int | None
    source_bytes: int | None
    seconds: float | None

    @property
    def records_per_second(self) -> float | None:
        """How fast its records were read, proven and written; None where nothing was timed."""
        if not self.seconds or self.source_records is None:
            return None
        return self.source_records / self.seconds

    @property
    def written_percent(self) -> float | None:
        """Which share of its records became rows; None where it has none, or they are not counted."""
        if not self.source_records or self.written_records is None:
            return None
        return 100 * self.written_records / self.source_records


def recent_batches(
    connection: Connection,
    feed: str,
    until: dt.datetime,
    number: int | None,
    *,
    since: dt.datetime | None = None,
) -> tuple[RecentBatch, ...]:
    """Read the batches of a feed that are to be compared.

    Args:
        connection: A connection.
        feed: The feed.
        until: The newest of them began then or before.
        number: At most so many; None for all.
        since: All of them began then or later; None sets no such bound.

    Returns:
        The newest of them, oldest first, without duplicates.
    """
    wanted = {"feed": feed, "since": since, "until": until, "number": number}
    with connection.cursor(row_factory=class_row(RecentBatch)) as cursor:
        return tuple(reversed(cursor.execute(_RECENT, wanted).fetchall()))


def compared(
    recent: Sequence[RecentBatch], *, marked: str | None = None, alone: bool = False
) -> tuple[Picture, ...]:
    """Draw batches beside each other: how fast, how much of each was loaded, what was set aside.

    Args:
        recent: The batches, oldest first; at least one.
        marked: Id of the batch that is pointed at.
        alone: Whether each is to stand in a file of its own.

    Returns:
        Three pictures.
    """
    labels = tuple(each.partition_key for each in recent)
    place = next((n for n, each in enumerate(recent) if each.batch_id == marked), None)
    written = tuple(each.written_percent for each in recent)
    charts = [
        Chart(
            "throughput", "Throughput of bulk_write, records a second", labels,
            _by_look(recent, [each.records_per_second for each in recent]), marked=place,
        ),
        Chart(
            "loaded", "Loaded, % of the records", labels,
            (Series("% loaded", "plain", written),), form="line", top=100, marked=place,
        ),
        Chart(
            "rejects", "Records set aside", labels,
            (Series("set aside", "partial", tuple(each.rejected_records for each in recent)),),
            marked=place,
        ),
    ]  # fmt: skip
    return tuple(draw(chart, alone=alone) for chart in charts)


def compared_table(
    recent: Sequence[RecentBatch], caption: str = "The batches of the pictures, newest first"
) -> Table:
    """Give the numbers of the pictures.

    Args:
        recent: The batches, oldest first.
        caption: What it shows.

    Returns:
        A table, newest first.
    """
    return Table(
        "recent_batches", caption,
        (Column("partition"), Column("batch", "code"), Column("try", "count"), Column("state", "state"),
         Column("began", "time"), Column("records", "count"), Column("loaded", "count"),
         Column("set aside", "count"), Column("bulk_write s", "number"),
         Column("records/s", "count")),
        tuple(
            (b.partition_key, b.batch_id[:8], b.attempt, b.status, b.started_at, b.source_records,
             b.written_records, b.rejected_records, b.seconds, b.records_per_second)
            for b in reversed(recent)
        ),
    )  # fmt: skip


def _by_look(recent: Sequence[RecentBatch], values: Sequence[float | None]) -> tuple[Series, ...]:
    """Divide values of batches into one series a look, so that each shows how its batch ended."""
    names: dict[Look, str] = {
        "good": "loaded", "partial": "in part", "bad": "failed", "other": "not in force",
    }  # fmt: skip
    looks = [LOOKS.get(each.status, "other") for each in recent]
    return tuple(
        Series(
            name, look,
            tuple(value if found == look else None for found, value in zip(looks, values, strict=True)),
        )
        for look, name in names.items()
        if look in looks
    )  # fmt: skip
