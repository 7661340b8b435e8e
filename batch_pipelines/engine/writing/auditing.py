"""Where validation finds rows that wait: by themselves, or with those of a batch that is visible.

Records that are replayed come to rows that the batch has already, so they are looked at together, by a
view of this session.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from psycopg import sql

from batch_pipelines.engine.catalog import STAMP, stamped_by
from batch_pipelines.engine.ledger.rejects import LeftOut
from batch_pipelines.engine.writing.copying import PLACE, file_and_record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy.typing as npt

    from batch_pipelines.engine.catalog import TableInfo
    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.ledger.staged_tables import StagedTable
    from batch_pipelines.engine.postgres.database import Connection

_SEE = sql.SQL("""
CREATE TEMPORARY VIEW {view} AS
SELECT {columns} FROM {table} WHERE {stamped} UNION ALL SELECT {columns} FROM {waiting}
""")
_PLACES = sql.SQL("SELECT {place} FROM {waiting} ORDER BY 1")


@dataclass(frozen=True)
class Whereabouts:
    """Where the rows of a table are, as validation is to see them.

    Attributes:
        relation: What has them, by schema and name; None for the table itself.
        is_whole: Whether no rows are there but those that wait.
        replayed: Records that had been set aside and wait now: their numbers by that of their file.
    """

    relation: tuple[str, str] | None = None
    is_whole: bool = True
    replayed: Mapping[int, npt.NDArray[np.int64]] = field(default_factory=dict)

    @property
    def identifier(self) -> sql.Identifier | None:
        """The quoted name of the relation."""
        return None if self.relation is None else sql.Identifier(*self.relation)

    def of(self, table: TableInfo) -> TableInfo:
        """Give a table by the name of what has its rows."""
        if self.relation is None:
            return table
        schema, name = self.relation
        return replace(table, schema=schema, name=name)

    def without_replayed(self, file_number: int, left_out: LeftOut) -> LeftOut:
        """Take those that wait now out of what was set aside of a file.

        Args:
            file_number: The file's number in the source.
            left_out: All of its records that were set aside.
        """
        stay = ~np.isin(left_out.records, self.replayed.get(file_number, np.zeros(0, np.int64)))
        return LeftOut(left_out.records[stay], left_out.offsets[stay], left_out.sizes[stay])


@contextmanager
def rows_to_check(
    connection: Connection, batch: Batch, waiting: Sequence[StagedTable]
) -> Iterator[dict[str, Whereabouts]]:
    """Make the rows of a batch visible to its validation, and to nobody else.

    Args:
        connection: The connection that will ask, in autocommit mode.
        batch: The batch.
        waiting: Its rows that wait.

    Yields:
        Where they are, by target table.
    """
    views = [each.asked for each in waiting if each.purpose == "replay"]
    try:
        yield {each.target_table: _whereabouts(connection, batch, each) for each in waiting}
    finally:
        for view in views:
            if not connection.broken:
                connection.execute(sql.SQL("DROP VIEW IF EXISTS {}").format(sql.Identifier(*view)))


def _whereabouts(connection: Connection, batch: Batch, waiting: StagedTable) -> Whereabouts:
    if waiting.purpose == "load":
        return Whereabouts(waiting.asked)
    names = [*(name for name, _ in waiting.layout["columns"]), STAMP]
    see = _SEE.format(
        view=sql.Identifier(waiting.name),
        columns=sql.SQL(", ").join(map(sql.Identifier, names)),
        table=sql.Identifier(*waiting.target_table.split(".")),
        stamped=stamped_by(batch.batch_id),
        waiting=waiting.identifier,
    )
    connection.execute(see)
    places = _PLACES.format(place=sql.Identifier(PLACE), waiting=waiting.identifier)
    found: dict[int, list[int]] = {}
    for (place,) in connection.execute(places).fetchall():
        number, record = file_and_record(place)
        found.setdefault(number, []).append(record)
    replayed = {number: np.array(records, np.int64) for number, records in found.items()}
    return Whereabouts(waiting.asked, is_whole=False, replayed=replayed)
