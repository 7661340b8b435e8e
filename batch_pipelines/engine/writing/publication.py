"""What one batch is to publish: its sources, what they replace, and how far it is to go."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from batch_pipelines.engine.ledger import proofs
from batch_pipelines.engine.writing.inserting import Policy
from batch_pipelines.engine.writing.proof import Proof

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from batch_pipelines.engine.catalog import TableInfo
    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.ledger.rejects import Rejects
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.reading.chunks import Chunk
    from batch_pipelines.engine.work import Work
    from batch_pipelines.engine.writing.source import TableSource


@dataclass(frozen=True)
class Publication:
    """What one batch is to publish.

    Attributes:
        work: The run's work.
        batch: The batch.
        sources: What it brings for each table, parents first.
        superseded: Id of the batch that it replaces, or None.
        retired: Tables with rows of that batch that are no longer the feed's.
        digests: Folder for the row digests.
        purpose: `load` a batch; `replay` records that were set aside when it was published, whose
            rows come to those that it has already; or a `rehearsal`, which ends before the ledger is
            told, and is rolled back.
        step: `whole`, or for a feed that publishes after validation: `stage` rows, for them to wait;
            `publish` those that have waited.
        bisected: Statements it took to find single rows by halving, by table.
    """

    work: Work
    batch: Batch
    sources: tuple[TableSource, ...]
    superseded: str | None
    retired: tuple[TableInfo, ...]
    digests: Path
    purpose: Literal["load", "replay", "rehearsal"]
    step: Literal["whole", "stage", "publish"] = "whole"
    bisected: dict[str, int] = field(default_factory=dict)

    def staged_only(self) -> Publication:
        """Give the first step: rows are judged and staged, and then wait."""
        digests = self.work.waiting_digests(self.batch.batch_id)
        return replace(self, step="stage", digests=digests)

    def upsert_key(self, source: TableSource) -> tuple[str, ...]:
        """Give the columns by which a table's rows are upserted; none where they are inserted."""
        table = self.work.feed.table_named(source.table.full_name)
        return table.upsert_key(source.table.primary_key)

    def policy(self, source: TableSource) -> Policy:
        """Say which rows of a source are inserted singly."""
        return Policy.of(self.work.feed, source.table.full_name, self.work.settings)

    def proves_all(self, source: TableSource) -> bool:
        """Say whether stored rows are held against staged ones in all columns.

        Where the source does not tell all their values, or PostgreSQL has converted some from text.
        """
        return bool(source.filled or {*source.as_text} & {*source.meant})

    @property
    def is_real(self) -> bool:
        """Whether it is to be committed."""
        return self.purpose != "rehearsal"

    @property
    def records(self) -> int:
        """Records by the independent count."""
        return sum(source.records for source in self.sources)

    def proof(self, source: TableSource, rejects: Rejects) -> Proof:
        """Begin the proof of one source."""
        return Proof(source, self.row_digests(source), rejects)

    def row_digests(self, source: TableSource) -> Path:
        """Say where the row digests of one source are kept."""
        # Which run a replay is of, is known when it is published.
        named = self.purpose == "replay" and self.step != "stage"
        suffix = f".replay-{self.work.run_id}.parquet" if named else ".parquet"
        return self.digests / f"{source.table.full_name}{suffix}"

    def told(self, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
        """Pass chunks on and tell how far it has come."""
        done = 0
        for chunk in chunks:
            yield chunk
            done += chunk.rows
            self.work.progress("bulk_write", done, self.batch.source_records or done)

    def replaced(self, connection: Connection) -> dict[str, frozenset[str]]:
        """List for each table the columns that the superseded batch brought."""
        if self.superseded is None:
            return {}
        return {
            each.target_table: frozenset(
                {*each.columns, *each.normalised, *each.filled, *each.server_changed}
            )
            for each in proofs.tables(connection, self.superseded)
        }
