"""Where rows of a batch wait until its validation has passed: tables of the schema `batch_staging`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from batch_pipelines.engine.digests import RowDigest
from batch_pipelines.engine.ledger.proofs import ChunkDigest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batch_pipelines.engine.postgres.database import Connection

SCHEMA: Final = "batch_staging"
_ADD = """
INSERT INTO batch_audit.staged_table (batch_id, target_table, staging_table, purpose, layout, records,
    digest_sum, digest_moment, source_sum, source_moment, chunks)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""
_OF_BATCH = """
SELECT target_table, staging_table, purpose, layout, records, digest_sum, digest_moment, source_sum,
       source_moment, chunks
FROM batch_audit.staged_table WHERE batch_id = %s ORDER BY target_table
"""
_FORGET = "DELETE FROM batch_audit.staged_table WHERE batch_id = %s RETURNING staging_table"
_DROP = sql.SQL("DROP TABLE IF EXISTS {}")


@dataclass(frozen=True)
class StagedTable:
    """Rows of a batch that wait.

    Attributes:
        target_table: The table that they are for.
        name: Name of the table in which they wait, in the schema `SCHEMA`.
        purpose: Whether the batch is loaded, or records that had been set aside are replayed.
        layout: What they were judged as; another layout means that they have to be judged anew.
        digest: Of all columns of the table.
        sent: Of the rows as they were sent.
        chunks: Digests of the source's chunks, of the records that wait.
    """

    target_table: str
    name: str
    purpose: Literal["load", "replay"]
    layout: dict[str, Any]
    digest: RowDigest
    sent: RowDigest
    chunks: tuple[ChunkDigest, ...]

    @property
    def identifier(self) -> sql.Identifier:
        """The quoted name of the table in which they wait."""
        return sql.Identifier(SCHEMA, self.name)

    @property
    def asked(self) -> tuple[str, str]:
        """Schema and name of what validation asks: the table, or with it what a replay comes to."""
        return "pg_temp" if self.purpose == "replay" else SCHEMA, self.name


def record(connection: Connection, batch_id: str, staged: StagedTable) -> None:
    """Keep where rows wait; called in the transaction that creates their table."""
    # Whole numbers, and larger than a bigint may hold.
    chunks = [asdict(chunk) for chunk in staged.chunks]
    connection.execute(
        _ADD,
        (
            batch_id, staged.target_table, staged.name, staged.purpose, Jsonb(staged.layout),
            staged.digest.rows, staged.digest.total, staged.digest.moment,
            staged.sent.total, staged.sent.moment, Jsonb(chunks),
        ),
    )  # fmt: skip


def of_batch(connection: Connection, batch_id: str) -> list[StagedTable]:
    """Read where rows of a batch wait; none where they do not."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return [_staged(row) for row in cursor.execute(_OF_BATCH, (batch_id,))]


def _staged(row: dict[str, Any]) -> StagedTable:
    rows = int(row["records"])
    return StagedTable(
        row["target_table"], row["staging_table"], row["purpose"], row["layout"],
        RowDigest(rows, int(row["digest_sum"]), int(row["digest_moment"])),
        RowDigest(rows, int(row["source_sum"]), int(row["source_moment"])),
        tuple(ChunkDigest(**chunk) for chunk in row["chunks"]),
    )  # fmt: skip


def drop(connection: Connection, batch_ids: Sequence[str]) -> None:
    """Give back the room of rows that wait no more, because they are published or never will be.

    Args:
        connection: A connection.
        batch_ids: The batches.
    """
    with connection.transaction():
        for batch_id in batch_ids:
            for (name,) in connection.execute(_FORGET, (batch_id,)).fetchall():
                connection.execute(_DROP.format(sql.Identifier(SCHEMA, name)))
