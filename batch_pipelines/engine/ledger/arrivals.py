"""What the ledger knows of deliveries that lie in landing: which it has had, and who works on them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.rows import class_row, scalar_row

if TYPE_CHECKING:
    from collections.abc import Collection

    from batch_pipelines.engine.postgres.database import Connection


@dataclass(frozen=True)
class Tried:
    """What became of the deliveries of one partition.

    Attributes:
        partition_key: The partition.
        fingerprint: Of the last delivery that a batch looked at; None where no batch got so far.
        looked_at: How many batches looked at a delivery.
        status: Of the last batch.
    """

    partition_key: str
    fingerprint: str | None
    looked_at: int
    status: str


# One value instead of a hundred thousand rows: a tenth of a second instead of half of one.
_KEYS = """
SELECT coalesce(string_agg(partition_key, E'\\n'), '') FROM (
    SELECT DISTINCT partition_key FROM batch_audit.import_history WHERE feed = %s) AS keys
"""
_TRIED = """
SELECT partition_key,
       (array_agg(fingerprint ORDER BY attempt DESC) FILTER (WHERE fingerprint IS NOT NULL))[1]
           AS fingerprint,
       count(fingerprint) AS looked_at,
       (array_agg(status ORDER BY attempt DESC))[1] AS status
FROM batch_audit.import_history WHERE feed = %s AND partition_key = ANY(%s) GROUP BY 1
"""
_HELD = """
SELECT partition_key FROM batch_audit.batch_lease
WHERE feed = %s AND partition_key = ANY(%s) AND released_at IS NULL
    AND expires_at > clock_timestamp()
"""
_FILES = """
SELECT partition_key, file_name, size FROM batch_audit.import_file JOIN (
    SELECT DISTINCT ON (partition_key) partition_key, batch_id
    FROM batch_audit.import_history
    WHERE feed = %s AND partition_key = ANY(%s) AND fingerprint IS NOT NULL
    ORDER BY partition_key, attempt DESC) AS last USING (batch_id)
"""


def known_keys(connection: Connection, feed: str) -> list[str]:
    """List the partitions of a feed that have had a batch, each once, in an order of the server's."""
    with connection.cursor(row_factory=scalar_row) as cursor:
        text: str = cursor.execute(_KEYS, (feed,)).fetchall()[0]
    return text.split("\n") if text else []


def tried(connection: Connection, feed: str, keys: Collection[str]) -> dict[str, Tried]:
    """Say what became of the deliveries of partitions, of those that have had a batch."""
    with connection.cursor(row_factory=class_row(Tried)) as cursor:
        rows = cursor.execute(_TRIED, (feed, list(keys))).fetchall()
    return {row.partition_key: row for row in rows}


def held(connection: Connection, feed: str, keys: Collection[str]) -> set[str]:
    """Say on which of some partitions a run is at work."""
    with connection.cursor(row_factory=scalar_row) as cursor:
        return set(cursor.execute(_HELD, (feed, list(keys))).fetchall())


def files_of(connection: Connection, feed: str, keys: Collection[str]) -> dict[str, dict[str, int]]:
    """Give names and sizes in bytes of the files that partitions were last loaded from."""
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for key, name, size in connection.execute(_FILES, (feed, list(keys))).fetchall():
        found[str(key)][str(name)] = int(size)
    return found
