"""What batches cost: write-ahead log, seconds, room in the archive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.rows import class_row

if TYPE_CHECKING:
    from batch_pipelines.engine.postgres.database import Connection

_OF_BATCH = """
SELECT written_records, source_bytes, wal_bytes, wal_bytes_per_row::float8, publish_seconds,
       stage_seconds, rows_per_second::float8, megabytes_per_second::float8, bags, bag_bytes
FROM batch_audit.batch_cost WHERE batch_id = %s
"""


@dataclass(frozen=True)
class BatchCost:
    """What a batch cost, as the view `batch_cost` has it; None where it was not measured.

    Attributes:
        written_records: Rows written.
        source_bytes: Size of its files in bytes.
        wal_bytes: Write-ahead log that the server wrote meanwhile, in bytes.
        wal_bytes_per_row: Of it for a row.
        publish_seconds: Time that a server process was busy with the publish transaction.
        stage_seconds: Time of the last try of each stage, together.
        rows_per_second: Rows in a second of `publish_seconds`.
        megabytes_per_second: 10^6 bytes of its files in a second of `publish_seconds`.
        bags: How many bags it has.
        bag_bytes: Bytes of their payload.
    """

    written_records: int | None
    source_bytes: int | None
    wal_bytes: int | None
    wal_bytes_per_row: float | None
    publish_seconds: float | None
    stage_seconds: float | None
    rows_per_second: float | None
    megabytes_per_second: float | None
    bags: int
    bag_bytes: int | None


def of_batch(connection: Connection, batch_id: str) -> BatchCost:
    """Read what a batch cost.

    Args:
        connection: A connection.
        batch_id: A batch of the ledger.

    Returns:
        What it cost so far.
    """
    with connection.cursor(row_factory=class_row(BatchCost)) as cursor:
        (found,) = cursor.execute(_OF_BATCH, (batch_id,)).fetchall()
    return found
