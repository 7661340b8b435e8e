"""Which files were gathered into which batch. A file's name is in one, and stays in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg.rows import scalar_row

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from batch_pipelines.engine.postgres.database import Connection

# One feed is gathered by one at a time: the sensor, or somebody's import.
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('batch_audit.gathered_file ' || %s, 0))"
_KEYS = """
SELECT file_name, partition_key FROM batch_audit.gathered_file
WHERE feed = %s AND file_name = ANY(%s)
"""
_ADD = "COPY batch_audit.gathered_file (feed, file_name, partition_key) FROM STDIN"
_MEMBERS = """
SELECT file_name FROM batch_audit.gathered_file WHERE feed = %s AND partition_key = ANY(%s)
"""
# What a batch has published once stays together for ever, whatever became of it.
_RELEASE = """
DELETE FROM batch_audit.gathered_file AS g
WHERE feed = %(feed)s AND partition_key = ANY(%(keys)s)
    AND NOT EXISTS (
        SELECT FROM batch_audit.import_history AS h
        WHERE h.feed = g.feed AND h.partition_key = g.partition_key
            AND h.status NOT IN ('FAILED', 'DUPLICATE'))
RETURNING partition_key
"""


def lock(connection: Connection, feed: str) -> None:
    """Keep others from gathering files of a feed until the end of the transaction."""
    connection.execute(_LOCK, (feed,))


def keys_of(connection: Connection, feed: str, names: Collection[str]) -> dict[str, str]:
    """Give the partition of each file that was gathered, by name, of some files."""
    return dict(connection.execute(_KEYS, (feed, list(names))).fetchall())


def members(connection: Connection, feed: str, keys: Collection[str]) -> set[str]:
    """Give the names of all files of partitions."""
    with connection.cursor(row_factory=scalar_row) as cursor:
        return set(cursor.execute(_MEMBERS, (feed, list(keys))).fetchall())


def add(connection: Connection, feed: str, keys: Mapping[str, str]) -> None:
    """Write down the partition of each file, by name."""
    with connection.cursor() as cursor, cursor.copy(_ADD) as copy:
        for name, key in keys.items():
            copy.write_row((feed, name, key))


def release(connection: Connection, feed: str, keys: Collection[str]) -> set[str]:
    """Take partitions apart that have never been loaded; their files are gathered anew.

    Returns:
        Those that were.
    """
    with connection.cursor(row_factory=scalar_row) as cursor:
        return set(cursor.execute(_RELEASE, {"feed": feed, "keys": list(keys)}).fetchall())
