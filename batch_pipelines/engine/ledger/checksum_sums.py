"""Sums of a batch's checksums, which the ledger's questions about all batches are answered from."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from batch_pipelines.engine.postgres.database import Connection

_SUM = "SELECT batch_audit.sum_checksums(ARRAY[%s::uuid])"


def refresh(connection: Connection, batch_id: str) -> None:
    """Sum up the checksums of a batch anew, in the transaction that has added some.

    Args:
        connection: A connection inside a transaction.
        batch_id: The batch.
    """
    connection.execute(_SUM, (batch_id,))
