"""Speeds: how fast a stage was with the recent batches of a feed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.rows import class_row

if TYPE_CHECKING:
    import datetime as dt

    from batch_pipelines.engine.ledger.stages import Stage
    from batch_pipelines.engine.postgres.database import Connection

# By the index on feed and start, newest first; the rest by the batch's id.
_RECENT = """
SELECT h.batch_id::text, h.partition_key, s.started_at,
       (SELECT coalesce(sum(f.size), 0)::bigint FROM batch_audit.import_file f
        WHERE f.batch_id = h.batch_id) AS size,
       coalesce(h.source_records, 0) AS records,
       extract(epoch FROM s.completed_at - s.started_at)::float8 AS seconds
FROM batch_audit.import_history h
JOIN batch_audit.batch_stage s ON s.batch_id = h.batch_id AND s.stage = %(stage)s
WHERE h.feed = %(feed)s AND s.status = 'SUCCESS' AND s.completed_at > s.started_at
ORDER BY h.started_at DESC LIMIT %(number)s
"""


@dataclass(frozen=True)
class StageSpeed:
    """How long a stage took for a batch.

    Attributes:
        batch_id: The batch.
        partition_key: Its partition.
        started_at: When the stage began, in its last try.
        size: Bytes of the batch's files.
        records: Records in them.
        seconds: Time the stage took.
    """

    batch_id: str
    partition_key: str
    started_at: dt.datetime
    size: int
    records: int
    seconds: float


def recent_speeds(
    connection: Connection, feed: str, stage: Stage, number: int
) -> tuple[StageSpeed, ...]:
    """Read how fast a stage was with the recent batches of a feed.

    Args:
        connection: A connection.
        feed: The feed.
        stage: The stage.
        number: At most so many batches.

    Returns:
        The batches with which it succeeded, oldest first.
    """
    wanted = {"feed": feed, "stage": stage, "number": number}
    with connection.cursor(row_factory=class_row(StageSpeed)) as cursor:
        return tuple(reversed(cursor.execute(_RECENT, wanted).fetchall()))
