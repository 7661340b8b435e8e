"""What was put away of batches: where each bag stands, and what was found when it was last looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, LiteralString

from psycopg.rows import class_row

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping, Sequence

    from batch_pipelines.engine.postgres.database import Connection

Kind = Literal["bag", "rows", "records"]
State = Literal["VALID", "DAMAGED", "MISSING", "UNVERIFIED", "DELETED"]


@dataclass(frozen=True)
class ArchiveRecord:
    """A bag of a batch.

    Attributes:
        batch_id: The batch.
        kind: `bag` where it holds what was delivered, `rows` where rows of tables, `records` where
            lines of the ledger.
        place: Its full path or URL.
        payload_files: Files of its payload.
        payload_bytes: Their size in bytes.
        tagmanifest_sha256: SHA-256, hex, of the tag manifest, which covers all of the bag.
        strategy: What it keeps of the source.
        key_id: The key for which it is encrypted; None where it is not.
        state: What was found when it was last looked at; `UNVERIFIED` where it could not be reached,
            `DELETED` of one whose time was over.
        verified_at: When all of it was last read, and was as it was sealed.
        checked_at: When it was last looked at.
        problems: What of it is not as it was sealed.
    """

    batch_id: str
    kind: Kind
    place: str
    payload_files: int
    payload_bytes: int
    tagmanifest_sha256: str
    strategy: str
    key_id: str | None
    state: State
    verified_at: dt.datetime
    checked_at: dt.datetime
    problems: list[str]


_COLUMNS = """
SELECT batch_id::text, kind, place, payload_files, payload_bytes, tagmanifest_sha256, strategy, key_id,
       state, verified_at, checked_at, problems
FROM batch_audit.archive_manifest
"""
# What was deleted is only history: none of these lists it.
_OF_BATCH = _COLUMNS + "WHERE batch_id = %s AND state <> 'DELETED' ORDER BY id"
_BAG = _COLUMNS + (
    "WHERE batch_id = %s AND kind = 'bag' AND state <> 'DELETED' ORDER BY id DESC LIMIT 1"
)
_ROWS = _COLUMNS + "WHERE batch_id = %s AND kind = 'rows' ORDER BY id DESC LIMIT 1"
_DELETED = _COLUMNS + (
    "WHERE batch_id = %s AND kind = 'bag' AND state = 'DELETED' ORDER BY id DESC LIMIT 1"
)
_OF_FEED = """
WHERE state <> 'DELETED' AND (%(feed)s::text IS NULL OR batch_id IN (
    SELECT batch_id FROM batch_audit.import_history WHERE feed = %(feed)s))
"""
_EVERY = _COLUMNS + _OF_FEED + "ORDER BY id"
# Those longest not looked at first, so that in time every bag has its turn.
_SAMPLE = _COLUMNS + _OF_FEED + "ORDER BY checked_at, id LIMIT %(number)s"
_NOTE = """
UPDATE batch_audit.archive_manifest SET state = %(state)s, problems = %(problems)s,
    checked_at = %(now)s, verified_at = CASE %(state)s WHEN 'VALID' THEN %(now)s ELSE verified_at END
WHERE place = %(place)s
"""
_RECORD = """
INSERT INTO batch_audit.archive_manifest (batch_id, kind, place, payload_files, payload_bytes,
    tagmanifest_sha256, strategy, key_id, verified_at, checked_at)
VALUES (%(batch_id)s, %(kind)s, %(place)s, %(payload_files)s, %(payload_bytes)s,
    %(tagmanifest_sha256)s, %(strategy)s, %(key_id)s, %(verified_at)s, %(checked_at)s)
"""


def record(connection: Connection, found: ArchiveRecord) -> None:
    """Keep where a bag stands that has just been read back."""
    connection.execute(_RECORD, found.__dict__)


def bag(connection: Connection, batch_id: str) -> ArchiveRecord | None:
    """Read where the newest bag of a batch stands, None while it has none."""
    with connection.cursor(row_factory=class_row(ArchiveRecord)) as cursor:
        return cursor.execute(_BAG, (batch_id,)).fetchone()


def rows(connection: Connection, batch_id: str) -> ArchiveRecord | None:
    """Read where the newest bag of a batch's rows stands, None while it has none."""
    with connection.cursor(row_factory=class_row(ArchiveRecord)) as cursor:
        return cursor.execute(_ROWS, (batch_id,)).fetchone()


def deleted_bag(connection: Connection, batch_id: str) -> ArchiveRecord | None:
    """Read where the newest bag of a batch stood that was deleted because its time was over."""
    with connection.cursor(row_factory=class_row(ArchiveRecord)) as cursor:
        return cursor.execute(_DELETED, (batch_id,)).fetchone()


def of_batch(connection: Connection, batch_id: str) -> list[ArchiveRecord]:
    """Read all that was put away of a batch, oldest first."""
    with connection.cursor(row_factory=class_row(ArchiveRecord)) as cursor:
        return cursor.execute(_OF_BATCH, (batch_id,)).fetchall()


def every(connection: Connection, feed: str | None) -> list[ArchiveRecord]:
    """Read all that was put away, oldest first, of one feed if asked."""
    return _read(connection, _EVERY, {"feed": feed})


def sample(connection: Connection, number: int, feed: str | None) -> list[ArchiveRecord]:
    """Choose bags to be verified next: those longest not looked at, of one feed if asked.

    Args:
        connection: A connection.
        number: At most so many.
        feed: Only of this feed, if given.

    Returns:
        The bags.
    """
    return _read(connection, _SAMPLE, {"feed": feed, "number": number})


def note(
    connection: Connection, place: str, state: State, problems: Sequence[str], now: dt.datetime
) -> None:
    """Keep what was found of a bag."""
    found = {"place": place, "state": state, "problems": [*problems], "now": now}
    connection.execute(_NOTE, found)


def _read(
    connection: Connection, query: LiteralString, wanted: Mapping[str, object]
) -> list[ArchiveRecord]:
    with connection.cursor(row_factory=class_row(ArchiveRecord)) as cursor:
        return cursor.execute(query, wanted).fetchall()
