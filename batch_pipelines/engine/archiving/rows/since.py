"""How rows that are put away differ from those that were loaded, by count and digest of what was sent.

Where the columns are as they were, the digest is taken from the rows that go by: they are proven to be
PostgreSQL's afterwards. It spares PostgreSQL a second look at all of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from batch_pipelines.engine.archiving.rows.account import SinceLoading
from batch_pipelines.engine.archiving.rows.live import stamped_rows
from batch_pipelines.engine.archiving.rows.parquet import digest_of
from batch_pipelines.engine.catalog import read_table
from batch_pipelines.engine.digests.recorded import asked, digest_today
from batch_pipelines.engine.digests.row_digest import RowDigest
from batch_pipelines.engine.digests.sql import table_digest
from batch_pipelines.engine.ledger import rollbacks
from batch_pipelines.engine.verification.rows import batch_rows
from batch_pipelines.engine.writing.keeping import whole_digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import pyarrow as pa

    from batch_pipelines.engine.archiving.rows.shape import HeldColumn
    from batch_pipelines.engine.digests.sides import BatchRows
    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.ledger.proofs import TableBalance
    from batch_pipelines.engine.postgres.database import Connection


@dataclass
class Sent:
    """What was sent of the rows of a table, digested while they go by.

    Attributes:
        batch_id: The batch.
        recorded: What was recorded of them when they were published.
        rows: The rows of today.
        why: Why they cannot be compared; None where they can.
        columns: Those that were sent, as they are held; none where they do not go by as they were sent.
        digest: Of the rows that went by.
    """

    batch_id: str
    recorded: TableBalance
    rows: BatchRows
    why: str | None
    columns: tuple[HeldColumn, ...]
    digest: RowDigest = field(default_factory=RowDigest.zero)

    @classmethod
    def of(
        cls,
        connection: Connection,
        batch: Batch,
        recorded: TableBalance,
        held: Sequence[HeldColumn],
    ) -> Sent:
        """Say what of the rows was sent.

        Args:
            connection: A connection inside the transaction in which they are read.
            batch: The batch.
            recorded: What was recorded of the table.
            held: All its columns.
        """
        rows, why = batch_rows(connection, batch, recorded)
        by_name = {column.name: column for column in held}
        chosen = [by_name[name] for name in rows.columns.names if name in by_name]
        types = tuple(column.held_as.digested_as for column in chosen)
        as_sent = types == rows.columns.types and not any(rows.columns.changed)
        return cls(batch.batch_id, recorded, rows, why, tuple(chosen) if as_sent else ())

    def watching(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Digest rows, and pass them on."""
        names = [column.name for column in self.columns]
        for batch in batches:
            if names:
                self.digest += digest_of(batch.select(names), self.columns)
            yield batch

    def since(self, connection: Connection) -> SinceLoading:
        """Hold the rows against what was recorded when they were published.

        Args:
            connection: A connection inside the transaction in which they were read.

        Returns:
            What was found.
        """
        loaded = self.recorded.stored
        try:
            with connection.transaction():
                own, images = self._own_and_images(connection)
        except psycopg.DataError:
            why = "values cannot be brought back to the types that they were sent in"
            return SinceLoading(loaded, 0, None, why)
        if self.why is not None:
            return SinceLoading(loaded, images.rows, None, self.why)
        digests = (self.recorded.digest_sum, self.recorded.digest_moment)
        sent = digests if self.rows.columns.names else (0, 0)
        is_same = own + images == RowDigest(loaded, *sent)
        if is_same and not images.rows:
            is_same = self._is_whole(connection)
        return SinceLoading(loaded, images.rows, is_same)

    def _own_and_images(self, connection: Connection) -> tuple[RowDigest, RowDigest]:
        if not self.columns:
            return digest_today(connection, self.rows)
        return self.digest, table_digest(connection, *asked(self.rows)[1])

    def _is_whole(self, connection: Connection) -> bool:
        """Look at columns that the batch did not bring, where the ledger has a digest of them, too."""
        name = self.recorded.target_table
        whole = rollbacks.whole(connection, self.batch_id, name)
        if whole is None:
            return True
        info = read_table(connection, None, name)
        written = sql.SQL("{} AS x").format(info.identifier)
        where = stamped_rows(self.batch_id)
        return whole_digest(connection, info, whole.columns, written, where) == whole.digest
