"""Rows of a bag in temporary tables of the restoring transaction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pyarrow as pa
from psycopg import sql

from batch_pipelines.engine.writing.copying import copy_batches

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batch_pipelines.engine.archiving.rows.account import TableRows
    from batch_pipelines.engine.archiving.rows.reading import OpenRows
    from batch_pipelines.engine.postgres.database import Connection

_CREATE: Final = sql.SQL("CREATE TEMPORARY TABLE {table} ({columns}) ON COMMIT DROP")
_INSERT: Final = sql.SQL("""
INSERT INTO {target} ({columns}) OVERRIDING SYSTEM VALUE SELECT {values} FROM {staged} AS s
""")


@dataclass(frozen=True)
class StagedRows:
    """The rows of one table, staged.

    Attributes:
        table: What the bag says of it.
        number: Which of the staged tables they are in.
    """

    table: TableRows
    number: int

    @property
    def name(self) -> sql.Identifier:
        """The quoted name of the staged table."""
        return sql.Identifier("pg_temp", f"batch_pipelines_restore_{self.number}")

    @property
    def target(self) -> sql.Identifier:
        """The quoted name of the table that the rows come back into."""
        return sql.Identifier(*self.table.full_name.split("."))

    @property
    def typed(self) -> sql.Composed:
        """A subquery of the rows with all columns of the table, in their types."""
        values = [
            sql.SQL("{}::{} AS {}").format(
                sql.Identifier(column.name), sql.SQL(column.type_name), sql.Identifier(column.name)
            )
            if column.is_converted
            else sql.Identifier(column.name)
            for column in self.table.columns
        ]
        return sql.SQL("(SELECT {} FROM {})").format(sql.SQL(", ").join(values), self.name)


def stage_rows(connection: Connection, rows: OpenRows, table: TableRows, number: int) -> StagedRows:
    """Bring the rows of a table into a temporary one; they are proven on the way.

    Args:
        connection: A connection inside the restoring transaction, pinned.
        rows: The open bag.
        table: One of its account.
        number: Which one.

    Returns:
        The staged rows.

    Raises:
        ArchiveError: They are not what the bag was sealed with.
    """
    staged = StagedRows(table, number)
    columns = sql.SQL(", ").join(
        # The type is of the closed list, or text.
        sql.SQL("{} {}").format(sql.Identifier(column.name), sql.SQL(column.held_as.name))
        for column in table.columns
    )
    connection.execute(_CREATE.format(table=staged.name, columns=columns))
    schema = pa.schema([pa.field(column.name, column.held_as.arrow) for column in table.columns])
    copy_batches(connection, staged.name, schema, _plain(rows, table, schema))
    connection.execute(sql.SQL("ANALYZE {}").format(staged.name))
    return staged


def insert_rows(connection: Connection, staged: StagedRows) -> int:
    """Copy staged rows into their table, in their order.

    Args:
        connection: A connection inside the restoring transaction, pinned.
        staged: The rows.

    Returns:
        How many.
    """
    # PostgreSQL computes generated columns again; the digest tells whether to the same values.
    names = [column for column in staged.table.columns if not column.generated]
    values = [
        sql.SQL("s.{}::{}").format(sql.Identifier(column.name), sql.SQL(column.type_name))
        for column in names
    ]
    query = _INSERT.format(
        target=staged.target,
        columns=sql.SQL(", ").join(sql.Identifier(column.name) for column in names),
        values=sql.SQL(", ").join(values),
        staged=staged.name,
    )
    return connection.execute(query).rowcount


def _plain(rows: OpenRows, table: TableRows, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for batch in rows.batches(table):
        arrays = [
            array.storage if isinstance(array, pa.ExtensionArray) else array
            for array in batch.columns
        ]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)
