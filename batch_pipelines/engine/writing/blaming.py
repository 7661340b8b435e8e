"""Blaming: in which columns rows are not stored as they were sent, where their digests have shown it.

Column by column, as rows cannot be told apart yet. Where two rows have swapped a value, no column by
itself shows it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import sql

from batch_pipelines.engine.digests import RowDigest, row_crc32c
from batch_pipelines.engine.digests.sql import table_digest
from batch_pipelines.engine.writing.proof import wire_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batch_pipelines.engine.catalog import Column
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.writing.source import TableSource


def differing_from_source(
    connection: Connection, source: TableSource, stored: sql.Composable
) -> list[str]:
    """Name the columns that are stored otherwise than the source has them, by reading it once more.

    Args:
        connection: The publishing connection.
        source: The source, none of whose readable records was set aside.
        stored: The condition on the batch's rows.
    """
    sent = {column.name: RowDigest.zero() for column in source.exact}
    for chunk in source.chunks():
        arrays = {c.name: a for c, a in zip(chunk.columns, chunk.arrays, strict=True)}
        for column in source.exact if chunk.rows else ():
            sent[column.name] += RowDigest.of(row_crc32c([wire_of(column)], [arrays[column.name]]))
    return [
        column.name
        for column in source.exact
        if table_digest(connection, source.table.identifier, [column.name], stored)
        != sent[column.name]
    ]


def differing_from_staged(
    connection: Connection,
    source: TableSource,
    staged: sql.Identifier,
    columns: Sequence[Column],
    stored: sql.Composable,
) -> list[str]:
    """Name the columns that are stored otherwise than they are staged.

    Args:
        connection: The publishing connection, with the staged table.
        source: The source.
        staged: The quoted name of the staged table, converted and judged.
        columns: Some of its columns.
        stored: The condition on the batch's rows.
    """
    found = []
    for column in columns:
        value = as_digested(column)
        ours = table_digest(connection, staged, [value], sql.SQL("true"))
        if table_digest(connection, source.table.identifier, [value], stored) != ours:
            found.append(column.name)
    return found


def as_digested(column: Column) -> sql.Composed:
    """Write a column for a digest: one outside the closed list of types as text.

    Args:
        column: The column.
    """
    return sql.SQL("{}{}").format(
        sql.Identifier(column.name), sql.SQL("::text" if column.wire is None else "")
    )
