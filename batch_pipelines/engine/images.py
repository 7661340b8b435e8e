"""Images: a row as the ledger keeps it, a JSON object of its columns, each value as text.

Text, because PostgreSQL reads back what it wrote, of every type; a number of JSON would lose digits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batch_pipelines.engine.catalog import Column


def as_json(row: str, names: Iterable[str]) -> sql.Composed:
    """Write columns of a row as an image.

    Args:
        row: The row's alias in the query.
        names: The columns.

    Returns:
        An expression of type jsonb.
    """
    # Not jsonb_build_object, which takes no more than fifty pairs.
    chosen = [*names]
    values = [sql.SQL("{}.{}::text").format(sql.SQL(row), sql.Identifier(n)) for n in chosen]
    return sql.SQL("jsonb_object({}::text[], ARRAY[{}]::text[])").format(
        sql.Literal(chosen), sql.SQL(", ").join(values)
    )


def part(image: sql.Composable, names: Iterable[str]) -> sql.Composed:
    """Write some columns of an image as an image.

    Args:
        image: An expression of the image.
        names: The columns.

    Returns:
        An expression of type jsonb.
    """
    chosen = [*names]
    values = [sql.SQL("{} ->> {}").format(image, sql.Literal(n)) for n in chosen]
    return sql.SQL("jsonb_object({}::text[], ARRAY[{}]::text[])").format(
        sql.Literal(chosen), sql.SQL(", ").join(values)
    )


def value(image: sql.Composable, column: Column) -> sql.Composed:
    """Read a column's value out of an image.

    Args:
        image: An expression of the image.
        column: The column.

    Returns:
        An expression of the column's type.
    """
    # The type's name comes from PostgreSQL's own format_type, which quotes it.
    return sql.SQL("({} ->> {})::{}").format(
        image, sql.Literal(column.name), sql.SQL(column.type_name)
    )
