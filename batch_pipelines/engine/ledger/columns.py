"""Columns of a batch's tables: how true they keep what was sent, as it was known before the publish."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batch_pipelines.engine.fidelity import ColumnFidelity

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from batch_pipelines.engine.postgres.database import Connection

_FORGET = "DELETE FROM batch_audit.batch_column WHERE batch_id = %s"
_ADD = """
INSERT INTO batch_audit.batch_column (batch_id, target_table, column_name, place, fidelity, reason)
VALUES (%s, %s, %s, %s, %s, %s)
"""
_READ = """
SELECT target_table, column_name, fidelity, reason FROM batch_audit.batch_column
WHERE batch_id = %s ORDER BY target_table, place
"""


def record(
    connection: Connection, batch_id: str, found: Mapping[str, Sequence[ColumnFidelity]]
) -> None:
    """Keep what is known of a batch's columns, in place of what an earlier try knew.

    Args:
        connection: A connection inside a transaction.
        batch_id: The batch.
        found: The columns of each table, by its name.
    """
    connection.execute(_FORGET, (batch_id,))
    with connection.cursor() as cursor:
        rows = [
            (batch_id, table, each.column, place, each.kind, each.reason)
            for table, columns in found.items()
            for place, each in enumerate(columns)
        ]
        cursor.executemany(_ADD, rows)


def of_batch(connection: Connection, batch_id: str) -> dict[str, tuple[ColumnFidelity, ...]]:
    """Read what is known of a batch's columns.

    Args:
        connection: A connection.
        batch_id: The batch.

    Returns:
        The columns of each table, by its name; nothing of batches that were published before they
        were kept.
    """
    found: dict[str, tuple[ColumnFidelity, ...]] = {}
    for table, column, kind, reason in connection.execute(_READ, (batch_id,)).fetchall():
        found[table] = (*found.get(table, ()), ColumnFidelity(column, kind, reason))
    return found
