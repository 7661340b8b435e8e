"""Which rows of today are a batch's, and how their digest is to be taken."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batch_pipelines.engine.catalog import primary_key
from batch_pipelines.engine.digests.as_sent import NO_COLUMNS, ColumnGoneError, as_sent
from batch_pipelines.engine.digests.sides import BatchRows

if TYPE_CHECKING:
    from batch_pipelines.engine.digests.as_sent import AsSent
    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.ledger.proofs import TableBalance
    from batch_pipelines.engine.postgres.database import Connection

GONE = frozenset({"SUPERSEDED", "ROLLED_BACK", "ARCHIVED"})
"""States of batches of which no row should be left in the tables."""
SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"
"""Begins a transaction that sees table and ledger as of one moment."""


def batch_rows(
    connection: Connection, batch: Batch, recorded: TableBalance
) -> tuple[BatchRows, str | None]:
    """Describe the rows of a batch in a table of today.

    Args:
        connection: A connection.
        batch: The batch.
        recorded: What was recorded of the table, which is there.

    Returns:
        The rows; and why no digest of them can be compared, None where one can.
    """
    name, gone = recorded.target_table, batch.status in GONE
    columns: AsSent = NO_COLUMNS
    why = None
    if not (gone or recorded.columns or recorded.not_covered) and recorded.stored:
        # Of an adopted batch nobody knows what was sent.
        why = "no digest of the rows was recorded, so they were only counted"
    elif recorded.column_types is None and not gone:
        why = (
            "the type of a column was changed before records were replayed, so digests are of both"
        )
    elif not gone:
        try:
            columns = as_sent(connection, name, recorded.columns, recorded.column_types or [])
        except ColumnGoneError as error:
            why = f"column {error} is no longer in the table, so rows were only counted"
    key = primary_key(connection, name)
    return BatchRows(batch.batch_id, name, columns, key, replaced_count=not gone), why
