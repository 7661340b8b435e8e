"""What the ledger keeps for rollbacks, and of them."""

from __future__ import annotations

from dataclasses import asdict, astuple, dataclass
from typing import TYPE_CHECKING

from psycopg.rows import class_row

from batch_pipelines.engine.digests import RowDigest
from batch_pipelines.engine.ledger.batch_events import tell

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from batch_pipelines.engine.postgres.database import Connection


@dataclass(frozen=True)
class TableRollback:
    """What a rollback does in one table; all counts are rows.

    Attributes:
        target_table: The table.
        deleted: Rows that go.
        restored: Rows that get their before-image back.
        reinstated: Rows of the batch that had been superseded, which come back.
        owned: Rows of other tables that go with them, because the feed declares them theirs.
        kept: Rows that stay as they are, because somebody has touched or refers to them.
        differing: Of those that came back, rows that a trigger made otherwise than they had been.
    """

    target_table: str
    deleted: int
    restored: int
    reinstated: int
    owned: int
    kept: int
    differing: int


@dataclass(frozen=True)
class WholeDigest:
    """Digest of a batch's rows in a table over more columns than it brought."""

    columns: list[str]
    digest: RowDigest


_KEPT = "UPDATE batch_audit.import_history SET superseded_rows_kept = %s WHERE batch_id = %s"
_UNTIL = """
UPDATE batch_audit.import_history
SET rollback_possible_until = clock_timestamp() + make_interval(days => %s) WHERE batch_id = %s
"""
_ADD_WHOLE = """
INSERT INTO batch_audit.whole_digest AS w (batch_id, target_table, columns, records, digest_sum,
    digest_moment)
VALUES (%s, %s, %s, %s, %s, %s)
ON CONFLICT (batch_id, target_table) DO UPDATE SET records = w.records + excluded.records,
    digest_sum = w.digest_sum + excluded.digest_sum,
    digest_moment = w.digest_moment + excluded.digest_moment
"""
_WHOLE = """
SELECT columns, records, digest_sum, digest_moment FROM batch_audit.whole_digest
WHERE batch_id = %s AND target_table = %s
"""
# A transaction's id in a row has 32 bits and comes round again: only a young one says who wrote it.
_XIDS = """
SELECT array(SELECT xid(x)::text FROM unnest(published_xids) AS x
             WHERE pg_current_xact_id()::text::numeric - x::text::numeric < 2000000000)
FROM batch_audit.import_history WHERE batch_id = %s
"""
_SUPERSEDED = """
SELECT batch_id::text FROM batch_audit.import_history
WHERE superseded_by = %s AND status = 'SUPERSEDED'
"""
_ARE_KEPT = "SELECT superseded_rows_kept FROM batch_audit.import_history WHERE batch_id = %s"
_REINSTATE = """
UPDATE batch_audit.import_history AS h
SET status = status_before, superseded_by = NULL,
    -- What was superseded in the archive is there again, and will be restored to what it was.
    status_before = CASE status_before WHEN 'ARCHIVED' THEN
        CASE WHEN rejected_records > 0 OR EXISTS (SELECT FROM batch_audit.import_file AS f
                                                  WHERE f.batch_id = h.batch_id AND f.set_aside)
        THEN 'PARTIAL_SUCCESS' ELSE 'SUCCESS' END END
WHERE batch_id = %s
"""
_ROLLED_BACK = """
UPDATE batch_audit.import_history
SET status = 'ROLLED_BACK', rolled_back_at = clock_timestamp(), rolled_back_by = %s,
    rollback_reason = %s
WHERE batch_id = %s
"""
_ADD = """
INSERT INTO batch_audit.batch_rollback (batch_id, target_table, deleted, restored, reinstated,
    owned, kept, differing)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
"""
_OF_BATCH = """
SELECT target_table, deleted, restored, reinstated, owned, kept, differing
FROM batch_audit.batch_rollback WHERE batch_id = %s ORDER BY target_table
"""
_SINCE = """
SELECT batch_id::text FROM batch_audit.import_history
WHERE published_at >= %s AND status = ANY(%s) ORDER BY published_at DESC
"""


def record_kept(connection: Connection, batch_id: str, *, kept: bool) -> None:
    """Say whether the rows that a batch superseded were kept."""
    connection.execute(_KEPT, (kept, batch_id))


def are_kept(connection: Connection, batch_id: str) -> bool:
    """Say whether the rows that a batch superseded were kept."""
    row = connection.execute(_ARE_KEPT, (batch_id,)).fetchone()
    return row is not None and row[0] is True


def record_until(connection: Connection, batch_id: str, days: int | None) -> None:
    """Say until when a batch can be rolled back: days from now, or for ever."""
    connection.execute(_UNTIL, (days, batch_id))


def add_whole(
    connection: Connection, batch_id: str, table: str, columns: Sequence[str], digest: RowDigest
) -> None:
    """Keep the digest of new rows of a batch over all columns, or add it to that of others."""
    kept = (batch_id, table, list(columns), digest.rows, digest.total, digest.moment)
    connection.execute(_ADD_WHOLE, kept)


def whole(connection: Connection, batch_id: str, table: str) -> WholeDigest | None:
    """Read the digest over all columns; None where the batch brought all, or is older than that."""
    row = connection.execute(_WHOLE, (batch_id, table)).fetchone()
    if row is None:
        return None
    columns, rows, total, moment = row
    return WholeDigest(columns, RowDigest(int(rows), int(total), int(moment)))


def xids(connection: Connection, batch_id: str) -> list[str]:
    """List the transactions that wrote a batch's rows, of those that a row's xmin can tell."""
    row = connection.execute(_XIDS, (batch_id,)).fetchone()
    return [] if row is None else row[0]


def superseded_by(connection: Connection, batch_id: str) -> str | None:
    """Find the batch that another one has superseded."""
    row = connection.execute(_SUPERSEDED, (batch_id,)).fetchone()
    return None if row is None else str(row[0])


def reinstate(connection: Connection, batch_id: str) -> None:
    """Say that a superseded batch is in force again."""
    connection.execute(_REINSTATE, (batch_id,))
    tell(connection, batch_id, "reinstated", "SUCCESS")


def mark_rolled_back(
    connection: Connection, batch_id: str, *, by: str, reason: str, tables: Iterable[TableRollback]
) -> None:
    """Say that a batch is rolled back, and what that did; called inside the rollback's transaction."""
    connection.execute(_ROLLED_BACK, (by, reason, batch_id))
    with connection.cursor() as cursor:
        cursor.executemany(_ADD, [(batch_id, *astuple(table)) for table in tables])


def of_batch(connection: Connection, batch_id: str) -> list[TableRollback]:
    """Read what the rollback of a batch did to each of its tables."""
    with connection.cursor(row_factory=class_row(TableRollback)) as cursor:
        return cursor.execute(_OF_BATCH, (batch_id,)).fetchall()


def since(connection: Connection, moment: object, states: Iterable[str]) -> list[str]:
    """List the batches published since a moment and in one of these states, newest first."""
    rows = connection.execute(_SINCE, (moment, list(states))).fetchall()
    return [str(batch_id) for (batch_id,) in rows]


def counts(tables: Iterable[TableRollback]) -> list[dict[str, object]]:
    """Write counts as an event's details have them."""
    return [asdict(table) for table in tables]
