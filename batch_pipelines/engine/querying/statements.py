"""The statements that read a query: its columns, its rows in ranges of the key, and their count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy.sql import quoted_name

from batch_pipelines.engine.errors import FeedError
from batch_pipelines.engine.queries import BATCH

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from batch_pipelines.engine.queries import Query
    from batch_pipelines.engine.querying.connecting import Result, Snapshot

# Types of PostgreSQL whose values its drivers give exactly: boolean, bytea, bigint, smallint, integer,
# text, name, real, double precision, char(n), varchar. PostgreSQL writes every other one as text.
REAL: Final = 700
_AS_THEY_ARE: Final = {16, 17, 20, 21, 23, 25, 19, REAL, 701, 1042, 1043}

Key = tuple[Any, ...]
"""A row's values of the key columns, as the driver gives them."""


@dataclass(frozen=True)
class Statements:
    """The statements for one SELECT.

    Attributes:
        snapshot: Where they are executed.
        names: Its columns, in order.
        reals: Those of them that are floats of 32 bits.
        untyped: Those without a type, as all of SQLite's: each row may have another.
        key: The key columns.
    """

    snapshot: Snapshot
    names: tuple[str, ...]
    reals: frozenset[str]
    untyped: frozenset[str]
    key: tuple[str, ...]
    _inner: sa.Subquery
    _output: tuple[sa.ColumnElement[Any], ...]
    _values: Mapping[str, object]

    def all(self) -> Result:
        """Read all rows, in no order."""
        return self._execute(sa.select(*self._output))

    def totals(self) -> tuple[int, int]:
        """Count all rows, and those without a value in a key column."""
        missing = sa.or_(*[column.is_(None) for column in self._key])
        found = self._execute(
            sa.select(sa.func.count(), sa.func.count(sa.case((missing, 1)))).select_from(
                self._inner
            )
        )
        with found, self.snapshot.told("the count"):
            rows, without_key = found.one()
        return int(rows), int(without_key)

    def range_of(self, after: Key | None, rows: int) -> Result:
        """Read rows in the order of the key.

        Args:
            after: The key behind which they begin; None for the first.
            rows: How many at most.
        """
        wanted = sa.select(*self._output).order_by(*self._key).limit(rows)
        return self._execute(wanted if after is None else wanted.where(self._beyond(after)))

    def count(self, after: Key | None, to: Key) -> int:
        """Count the rows behind a key, up to another one.

        Args:
            after: The key behind which they begin; None for the first.
            to: The last key.
        """
        wanted = sa.select(sa.func.count()).select_from(self._inner)
        wanted = wanted.where(sa.not_(self._beyond(to)))
        found = self._execute(wanted if after is None else wanted.where(self._beyond(after)))
        with found, self.snapshot.told("the count"):
            return int(found.scalar_one())

    @property
    def _key(self) -> list[sa.ColumnElement[Any]]:
        return [self._inner.c[name] for name in self.key]

    def _beyond(self, values: Key) -> sa.ColumnElement[bool]:
        """Say that a row's key comes behind another, in the database's own order."""
        first, *others = self._key
        value, *rest = (self._parameter(value) for value in values)
        if not others:
            return first > value
        beyond: sa.ColumnElement[bool] = sa.false()
        for column, bound in [*zip(others, rest, strict=True)][::-1]:
            beyond = sa.or_(column > bound, sa.and_(column == bound, beyond))
        # Not (a, b) > (x, y), which not every database has; the first part lets an index serve.
        return sa.and_(first >= value, sa.or_(first > value, beyond))

    def _parameter(self, value: object) -> sa.BindParameter[Any]:
        # As text, PostgreSQL reads a real as the real that it wrote; as a double it would be another.
        if self.snapshot.is_postgresql and isinstance(value, float):
            value = repr(value)
        # Without a type of SQLAlchemy's, so that the database takes it for one of the column's type.
        return sa.bindparam(None, value, type_=sa.types.NullType())

    def _execute(self, statement: sa.Executable) -> Result:
        return self.snapshot.execute(statement, "the query", **self._values)


def statements_of(snapshot: Snapshot, query: Query, batch: str | None) -> Statements:
    """Ask the database for a query's columns, and make the statements that read it.

    Args:
        snapshot: Where.
        query: The query.
        batch: The partition key; None where only the columns matter.

    Returns:
        The statements.

    Raises:
        DeliveryError: The database refuses the query.
        FeedError: A column has no name or that of another, or a key column is not there.
    """
    return _statements(
        snapshot, query.select or _whole(snapshot, query.table or ""), query.key, batch
    )


def statements_of_keys(snapshot: Snapshot, select: str) -> Statements:
    """Make the statement that reads the partition keys; see `statements_of`."""
    return _statements(snapshot, select, (), None)


def _statements(
    snapshot: Snapshot, select: str, key: tuple[str, ...], batch: str | None
) -> Statements:
    nothing: sa.Select[*tuple[Any, ...]] = sa.select(sa.literal_column("*")).where(sa.text("1 = 0"))
    values: dict[str, object] = dict.fromkeys(_places(select), batch)
    found = snapshot.execute(nothing.select_from(_inner(select, ())), "the query", **values)
    with found:
        described = [] if found.cursor is None else [*found.cursor.description]
    names = [str(each[0]) for each in described]
    _check(snapshot, names, key)
    inner = _inner(select, names)
    output: list[sa.ColumnElement[Any]] = [inner.c[name] for name in names]
    codes = {name: each[1] for name, each in zip(names, described, strict=True)}
    if snapshot.is_postgresql:
        output = [
            column if codes[name] in _AS_THEY_ARE else sa.cast(column, sa.Text)
            for name, column in zip(names, output, strict=True)
        ]
    return Statements(
        snapshot,
        tuple(names),
        frozenset(n for n in names if snapshot.is_postgresql and codes[n] == REAL),
        frozenset(n for n in names if codes[n] is None),
        key,
        inner,
        tuple(output),
        values,
    )


def _inner(select: str, names: Sequence[str]) -> sa.Subquery:
    # A colon is the statement's own and begins no parameter.
    first, *others = select.replace(":", "\\:").split(BATCH)
    places = _places(select)
    bound = [f" :{place} {other}" for place, other in zip(places, others, strict=True)]
    # The line end closes a comment.
    text = sa.text("".join([first, *bound, "\n"]))
    text = text.bindparams(*[sa.bindparam(p, type_=sa.types.NullType()) for p in places])
    # Quoted always: these are the names as the database gives them.
    columns: list[sa.ColumnClause[Any]] = [
        sa.column(quoted_name(name, quote=True)) for name in names
    ]
    return text.columns(*columns).subquery("q")


def _places(select: str) -> list[str]:
    """Name a parameter for each place of the key: it may be a text in one, and a date in another."""
    return [f"batch_{place}" for place in range(select.count(BATCH))]


def _whole(snapshot: Snapshot, table: str) -> str:
    quote = snapshot.connection.dialect.identifier_preparer.quote_identifier
    return f"SELECT * FROM {'.'.join(quote(part) for part in table.split('.'))}"


def _check(snapshot: Snapshot, names: Sequence[str], key: Sequence[str]) -> None:
    problems = [
        f"has the column {name!r} twice" for name in dict.fromkeys(names) if names.count(name) > 1
    ]
    problems += [
        f"has no column {name!r}, which is of the `key`" for name in key if name not in names
    ]
    if problems:
        message = (
            f"The query in the database of {snapshot.name} {', '.join(problems)}. "
            f"It has: {', '.join(names)}. Give each a name of its own, and correct `key`."
        )
        raise FeedError(message)
