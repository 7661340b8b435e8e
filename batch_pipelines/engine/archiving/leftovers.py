"""What killed runs have left of bags that were not written, or not deleted, to their end.

Nothing of it is taken for a bag. Whoever has the partition's lease removes what was not written to its
end; what was not deleted to its end is left to retention, which goes on with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from batch_pipelines.engine.alerts import resolve

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batch_pipelines.engine.archiving.archives import Archive
    from batch_pipelines.engine.postgres.database import Connection

_DELETED: Final = ".deleted"
_KNOWN: Final = """
SELECT FROM batch_audit.archive_manifest WHERE place = %s AND state <> 'DELETED'
"""
_AT_WORK: Final = """
SELECT FROM batch_audit.batch_lease
WHERE feed = %s AND partition_key = %s AND released_at IS NULL AND expires_at > clock_timestamp()
"""


def remove_leftovers(connection: Connection, archive: Archive, partition: str) -> None:
    """Remove what is left of bags of a partition that were not written to their end.

    Args:
        connection: A connection in autocommit mode.
        archive: The archive.
        partition: FEED/KEY; its lease is the caller's, and the caller writes no bag now.

    Raises:
        ArchiveError: It cannot be listed, or they cannot be deleted.
    """
    for name in [*archive.unfinished(partition)]:
        if not is_being_deleted(name) and not _is_known(connection, archive.place(name)):
            archive.remove(name)
            resolve(connection, alert_key(archive.place(name)))


def leftovers(connection: Connection, archive: Archive) -> Iterator[str]:
    """List what is left in an archive, but for what a run may be writing at this moment.

    Args:
        connection: A connection.
        archive: The archive.

    Yields:
        Names.

    Raises:
        ArchiveError: It cannot be listed.
    """
    for name in [*archive.unfinished(None)]:
        feed, key, _ = name.split("/")
        at_work = connection.execute(_AT_WORK, (feed, key)).fetchone() is not None
        # A run that has ended meanwhile has made a whole one of it.
        if not at_work and not _is_known(connection, archive.place(name)) and archive.files(name):
            yield name


def is_being_deleted(name: str) -> bool:
    """Say whether what is left is of a bag that retention had begun to delete."""
    return name.endswith(_DELETED) and not name.endswith(f".unfinished{_DELETED}")


def alert_key(place: str) -> str:
    """Give the key by which alerts of what is left are told apart."""
    return f"archive/UNKNOWN/{place}/"


def _is_known(connection: Connection, place: str) -> bool:
    return connection.execute(_KNOWN, (place,)).fetchone() is not None
