"""Rows of a batch as they are in the tables now, digested as those in its bag."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg import sql

from batch_pipelines.engine.archiving.rows.shape import columns_of, pin
from batch_pipelines.engine.catalog import STAMP
from batch_pipelines.engine.digests.sql import table_digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batch_pipelines.engine.archiving.rows.account import TableRows
    from batch_pipelines.engine.archiving.rows.shape import HeldColumn
    from batch_pipelines.engine.digests.row_digest import RowDigest
    from batch_pipelines.engine.postgres.database import Connection


@dataclass(frozen=True)
class LiveRows:
    """The rows of a batch in a table now, beside those in its bag.

    Attributes:
        full_name: The table.
        kept: The digest in the bag.
        live: The digest of the rows in the table; None where it, or a column of it, is gone, has another
            type or was added.
    """

    full_name: str
    kept: RowDigest
    live: RowDigest | None

    @property
    def is_same(self) -> bool:
        """Whether the bag holds exactly these rows."""
        return self.live == self.kept


def stamped_rows(batch_id: str) -> sql.Composed:
    """Write the condition on a row `x` of a table that a batch has written it."""
    return sql.SQL("x.{} = {}").format(sql.Identifier(STAMP), sql.Literal(batch_id))


def digest_live(
    connection: Connection, full_name: str, columns: Sequence[HeldColumn], batch_id: str
) -> RowDigest:
    """Digest the rows of a batch in a table.

    Args:
        connection: A connection inside a transaction, pinned.
        full_name: The table.
        columns: All its columns.
        batch_id: The batch.

    Returns:
        Their digest, by PostgreSQL; before PostgreSQL 18, of what it sends.
    """
    rows = sql.SQL("{} AS x").format(sql.Identifier(*full_name.split(".")))
    values = [column.value("x") for column in columns]
    return table_digest(connection, rows, values, stamped_rows(batch_id))


def live_rows(
    connection: Connection, batch_id: str, tables: Sequence[TableRows]
) -> tuple[LiveRows, ...]:
    """Hold the rows of a batch that are in its tables against those in its bag.

    Nothing may go where one of them is not the same, and nothing after this has been asked in another
    transaction: it is asked in the one that deletes, with the rows locked against changes.

    Args:
        connection: A connection inside a transaction.
        batch_id: The batch.
        tables: What its bag holds.

    Returns:
        What was found, table by table.
    """
    pin(connection)
    return tuple(
        LiveRows(
            table.full_name,
            table.digest,
            digest_live(connection, table.full_name, table.columns, batch_id)
            if _has_columns(connection, table)
            else None,
        )
        for table in tables
    )


def _has_columns(connection: Connection, table: TableRows) -> bool:
    held = [(column.name, column.type_name, column.generated) for column in table.columns]
    return columns_of(connection, table.full_name) == held
