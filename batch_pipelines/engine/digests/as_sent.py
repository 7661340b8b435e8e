"""Columns of today as they were sent: what row digests of years ago are compared with.

A row's digest depends on the types of its columns. Where one has been changed since, its values are
brought back to the type that they were sent in, by way of text, as no type has casts to all others. A
value that this type does not have is certainly another than the one sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from psycopg import sql

from batch_pipelines.engine.wire_types import wire_type

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from batch_pipelines.engine.postgres.database import Connection

_HAS_INPUT_IS_VALID: Final = 160_000
_TYPES: Final = """
SELECT a.attname, a.atttypid::bigint, a.atttypmod
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE n.nspname = %s AND c.relname = %s
"""
_CAST: Final = sql.SQL("({value})::text::{type}")
_VALID: Final = sql.SQL("({value} IS NULL OR pg_input_is_valid(({value})::text, {name}))")


class ColumnGoneError(LookupError):
    """A table has lost a column; its name is the message."""


@dataclass(frozen=True)
class AsSent:
    """The columns of a digest, to be read from rows of today and from images of rows.

    What `row` and `image` write are expressions over a query's alias; values may be computed only where
    the condition is true.

    Attributes:
        names: Their names.
        types: What each was digested as.
        changed: Whether the column has another type today.
        checked: Whether the server can say if a value can be cast (PostgreSQL 16 and later).
    """

    names: tuple[str, ...]
    types: tuple[str, ...]
    changed: tuple[bool, ...]
    checked: bool

    def only(self, name: str) -> AsSent:
        """Give one of the columns alone."""
        place = self.names.index(name)
        return AsSent((name,), (self.types[place],), (self.changed[place],), self.checked)

    def row(self, alias: str) -> tuple[tuple[sql.Composable, ...], sql.Composed]:
        """Write the values of a row of the table, and the condition on which they can be cast."""
        columns = [sql.SQL("{}.{}").format(sql.SQL(alias), sql.Identifier(n)) for n in self.names]
        return self._cast(columns, self.changed)

    def image(self, alias: str) -> tuple[tuple[sql.Composable, ...], sql.Composed]:
        """Write the values of a `row_before_image`, in which all are text, and the condition."""
        texts = [
            sql.SQL("({}.image ->> {})").format(sql.SQL(alias), sql.Literal(n)) for n in self.names
        ]
        return self._cast(texts, [True] * len(texts))

    def _cast(
        self, values: Sequence[sql.Composable], needed: Sequence[bool]
    ) -> tuple[tuple[sql.Composable, ...], sql.Composed]:
        cast = tuple(
            _CAST.format(value=value, type=sql.SQL(kind)) if need else value
            for value, kind, need in zip(values, self.types, needed, strict=True)
        )
        return cast, sql.SQL(" AND ").join([sql.SQL("true"), *self._conditions(values, needed)])

    def _conditions(
        self, values: Sequence[sql.Composable], needed: Sequence[bool]
    ) -> Iterator[sql.Composable]:
        for value, kind, need in zip(values, self.types, needed, strict=True):
            if need and self.checked:
                yield _VALID.format(value=value, name=sql.Literal(kind))


NO_COLUMNS: Final = AsSent((), (), (), checked=False)
"""Where no digest can be compared."""


def as_sent(
    connection: Connection, full_name: str, names: Sequence[str], types: Sequence[str]
) -> AsSent:
    """Find out how to read a table's columns as they were sent.

    Args:
        connection: A connection.
        full_name: The table, as in `public.flights`.
        names: Columns of the digest, in its order.
        types: What each was digested as (`WireType.digested_as`); none where that was not kept, which
            takes them for what they are today.

    Returns:
        The columns.

    Raises:
        ColumnGoneError: One is no longer there.
    """
    now = _types_of_today(connection, full_name)
    for name in names:
        if name not in now:
            raise ColumnGoneError(name)
    then = tuple(types or [now[name] or "text" for name in names])
    return AsSent(
        tuple(names),
        then,
        tuple(now[name] != kind for name, kind in zip(names, then, strict=True)),
        connection.info.server_version >= _HAS_INPUT_IS_VALID,
    )


def _types_of_today(connection: Connection, full_name: str) -> Mapping[str, str | None]:
    rows = connection.execute(_TYPES, tuple(full_name.split("."))).fetchall()
    found = {str(name): wire_type(int(oid), int(typmod)) for name, oid, typmod in rows}
    return {name: None if wire is None else wire.digested_as for name, wire in found.items()}
