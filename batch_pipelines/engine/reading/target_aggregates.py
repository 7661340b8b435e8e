"""Exact aggregates of the target's columns, asked of PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import sql

from batch_pipelines.engine.reading.aggregates import aggregates_of, recipe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batch_pipelines.engine.catalog import Column
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.reading.aggregates import Aggregate
    from batch_pipelines.engine.writing.source import TableSource


def target_statement(
    source: TableSource, columns: Sequence[Column], where: sql.Composable
) -> sql.Composed:
    """Write the statement that aggregates columns of a batch's rows.

    Args:
        source: Says which table.
        columns: One or more columns of it.
        where: The condition that tells the batch's rows, as `catalog.stamped_by` writes it.

    Returns:
        A SELECT of one row: for each column count, sum, smallest and largest, as text.
    """
    return _select(source, _parts(columns), where)


def _parts(columns: Sequence[Column]) -> list[sql.Composable]:
    parts: list[sql.Composable] = []
    for column in columns:
        name, own = sql.Identifier(column.name), recipe(column)
        parts.append(sql.SQL("count({})").format(name))
        total = "NULL" if own is None or own.pg_sum is None else f"({own.pg_sum})::text"
        order = None if own is None else own.pg_order
        shown = "{b}" if own is None else own.pg_bound
        low, high = (
            f"({shown.format(b=f'{bound}({order})')})::text" if order else "NULL"
            for bound in ("min", "max")
        )
        # The templates are constants of this module; the column's name is quoted by the driver.
        parts += [sql.SQL(text).format(c=name) for text in (total, low, high)]
    return parts


def _select(
    source: TableSource, parts: Sequence[sql.Composable], where: sql.Composable
) -> sql.Composed:
    return sql.SQL("SELECT {} FROM {} WHERE {}").format(
        sql.SQL(", ").join(parts), source.table.identifier, where
    )


def target_aggregates(
    connection: Connection, source: TableSource, where: sql.Composable
) -> tuple[int, dict[str, Aggregate]]:
    """Count a batch's rows and aggregate all columns that the source tells, in one scan.

    Args:
        connection: A connection.
        source: Says which table and columns.
        where: The condition that tells the batch's rows.

    Returns:
        How many rows, and an aggregate for each column name.
    """
    parts = [sql.SQL("count(*)"), *_parts(source.told)]
    rows, *totals = connection.execute(_select(source, parts, where)).fetchone() or (0,)
    return int(rows), aggregates_of(source.told, totals)
