"""What is kept of erasures: that they were done, why, where, how far they came; never for whom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from psycopg.rows import class_row, scalar_row
from psycopg.types.json import Jsonb

from batch_pipelines.engine.errors import ErasureError

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping, Sequence

    from batch_pipelines.engine.postgres.database import Connection

Kind = Literal[
    "rows", "before_images", "superseded_rows", "quarantine", "bag", "rows_bag", "records_bag"
]
State = Literal["FOUND", "REWRITTEN", "ERASED"]
Positions = dict[str, list[int]]
"""Numbers of records, from 1 and rising, by file; of rows and lines, from 0, by table."""


@dataclass(frozen=True)
class Erasure:
    """An erasure; times with time zone.

    Attributes:
        erasure_id: Its id.
        feed: The feed it was asked for by.
        target_table: The table.
        key_columns: Columns that said whose rows.
        key_salt, key_hash: By which the key is known again; None when all is done.
        reason: Why.
        requested_by: Who asked for it.
        state: `DONE` when nothing is left to do.
        started_at, completed_at: When.
    """

    erasure_id: str
    feed: str
    target_table: str
    key_columns: list[str]
    key_salt: bytes | None
    key_hash: bytes | None
    reason: str
    requested_by: str
    state: Literal["IN_PROGRESS", "DONE"]
    started_at: dt.datetime
    completed_at: dt.datetime | None


@dataclass(frozen=True)
class Place:
    """A place where records of the person were found.

    Attributes:
        place_id: Its number; 0 while it is not recorded.
        kind: What it is.
        batch_id: The batch; None of rows that were typed in by hand.
        place: Of a bag, where it stands.
        found: How many records.
        positions: Which, by their numbers.
        dropped: Delivered files that leave the bag as a whole.
        erased: How many went; None while it is not done.
        state: How far it came: a bag is `REWRITTEN` when another one has taken its place, and `ERASED`
            when it is gone.
        new_place: The bag that has taken its place.
    """

    place_id: int
    kind: Kind
    batch_id: str | None
    place: str | None
    found: int
    positions: Positions
    dropped: Sequence[str] = ()
    erased: int | None = None
    state: State = "FOUND"
    new_place: str | None = None


_ERASURE = """
SELECT erasure_id::text, feed, target_table, key_columns, key_salt, key_hash, reason, requested_by,
       state, started_at, completed_at
FROM batch_audit.erasure
"""
_UNFINISHED = _ERASURE + "WHERE state = 'IN_PROGRESS' ORDER BY started_at"
_BY_ID = _ERASURE + "WHERE erasure_id = %s"
_BEGIN = """
INSERT INTO batch_audit.erasure (erasure_id, feed, target_table, key_columns, key_salt, key_hash, reason,
    requested_by)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
"""
_ADD = """
INSERT INTO batch_audit.erasure_place (erasure_id, kind, batch_id, place, found, positions, dropped,
    old_sha256)
VALUES (%(erasure_id)s, %(kind)s, %(batch_id)s, %(place)s, %(found)s, %(positions)s, %(dropped)s,
    (SELECT tagmanifest_sha256 FROM batch_audit.archive_manifest WHERE place = %(place)s))
"""
_PLACES = """
SELECT place_id, kind, batch_id::text, place, found, positions, dropped, erased, state, new_place
FROM batch_audit.erasure_place WHERE erasure_id = %s ORDER BY place_id
"""
_ERASED = """
UPDATE batch_audit.erasure_place
SET state = 'ERASED', erased = coalesce(%(erased)s, erased, found), ended_at = clock_timestamp()
WHERE place_id = %(place_id)s
"""
_FORGET_FOUND = """
DELETE FROM batch_audit.erasure_place WHERE erasure_id = %s AND state = 'FOUND'
"""
_REWRITTEN = """
UPDATE batch_audit.erasure_place
SET state = 'REWRITTEN', erased = %(erased)s, new_place = %(new_place)s, new_sha256 = %(new_sha256)s
WHERE place_id = %(place_id)s
"""
_DONE = """
UPDATE batch_audit.erasure
SET state = 'DONE', completed_at = clock_timestamp(), key_salt = NULL, key_hash = NULL
WHERE erasure_id = %s
"""
_PENDING = """
SELECT e.erasure_id::text FROM batch_audit.erasure AS e
JOIN batch_audit.erasure_place AS p USING (erasure_id)
WHERE e.state = 'IN_PROGRESS' AND p.batch_id = %s AND p.state <> 'ERASED'
LIMIT 1
"""
_OF_BATCH = """
SELECT p.kind, coalesce(sum(p.erased), 0)::bigint FROM batch_audit.erasure_place AS p
WHERE p.batch_id = %s AND p.state = 'ERASED' GROUP BY 1 ORDER BY 1
"""


def begin(
    connection: Connection, erasure_id: str, feed: str, table: str, columns: Sequence[str],
    salt: bytes, key_hash: bytes, reason: str, by: str,
) -> None:  # fmt: skip
    """Write an erasure down, before anything is done; see `Erasure`."""
    wanted = (erasure_id, feed, table, [*columns], salt, key_hash, reason, by)
    connection.execute(_BEGIN, wanted)


def replan(connection: Connection, erasure_id: str, places: Sequence[Place]) -> None:
    """Write down where records were found, in place of what was found there before and not worked on."""
    connection.execute(_FORGET_FOUND, (erasure_id,))
    for each in places:
        connection.execute(
            _ADD,
            {
                "erasure_id": erasure_id, "kind": each.kind, "batch_id": each.batch_id,
                "place": each.place, "found": each.found, "positions": Jsonb(each.positions),
                "dropped": [*each.dropped],
            },
        )  # fmt: skip


def unfinished(connection: Connection) -> list[Erasure]:
    """List the erasures that are not done, the oldest first."""
    with connection.cursor(row_factory=class_row(Erasure)) as cursor:
        return cursor.execute(_UNFINISHED).fetchall()


def by_id(connection: Connection, erasure_id: str) -> Erasure:
    """Read an erasure by its id.

    Raises:
        ErasureError: There is none.
    """
    with connection.cursor(row_factory=class_row(Erasure)) as cursor:
        found = cursor.execute(_BY_ID, (erasure_id,)).fetchone()
    if found is None:
        message = f"There is no erasure {erasure_id}."
        raise ErasureError(message)
    return found


def places(connection: Connection, erasure_id: str) -> list[Place]:
    """Read where records were found, in the order in which they go."""
    with connection.cursor(row_factory=class_row(Place)) as cursor:
        return cursor.execute(_PLACES, (erasure_id,)).fetchall()


def mark_erased(connection: Connection, place: Place, erased: int | None = None) -> None:
    """Say that nothing is left at a place; how many records went, if it was not said before."""
    connection.execute(_ERASED, {"place_id": place.place_id, "erased": erased})


def mark_rewritten(
    connection: Connection, place: Place, erased: int, new_place: str, new_sha256: str
) -> None:
    """Say that another bag has taken the place of one, which is to go."""
    connection.execute(
        _REWRITTEN,
        {
            "place_id": place.place_id, "erased": erased, "new_place": new_place,
            "new_sha256": new_sha256,
        },
    )  # fmt: skip


def mark_done(connection: Connection, erasure_id: str) -> None:
    """Say that all is done, and forget by what the key was known."""
    connection.execute(_DONE, (erasure_id,))


def require_none_under_way(connection: Connection, batch_id: str) -> None:
    """Refuse to bring anything of a batch back of which somebody is being erased.

    Args:
        connection: A connection.
        batch_id: The batch.

    Raises:
        ErasureError: Its bags are not all rewritten yet.
    """
    with connection.cursor(row_factory=scalar_row) as cursor:
        found = cursor.execute(_PENDING, (batch_id,)).fetchone()
    if found is not None:
        message = (
            f"Somebody is being erased from batch {batch_id} (erasure {found}), and its bags have them "
            "still; nothing was done. `batch-pipelines erase --resume` ends what was begun; then run "
            "this again."
        )
        raise ErasureError(message)


def of_batch(connection: Connection, batch_id: str) -> Mapping[Kind, int]:
    """Count what was erased of a batch, by kind of place."""
    return dict(connection.execute(_OF_BATCH, (batch_id,)).fetchall())
