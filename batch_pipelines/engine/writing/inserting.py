"""Inserting staged rows: many by one statement, or each by a statement of its own.

Rows of one column signature go together. By itself goes a row that its record, its table, or the
environment says so of, or whose signature has too few to be worth a statement for all. Where rows
refer to others of their own table all go by one statement, since PostgreSQL looks at foreign keys when a
statement ends, and a parent may come after its child.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg import sql

from batch_pipelines.engine.catalog import STAMP
from batch_pipelines.engine.ledger.proofs import Signature
from batch_pipelines.engine.writing.copying import GROUP, PLACE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.settings import Settings
    from batch_pipelines.engine.writing.source import TableSource
    from batch_pipelines.engine.writing.staging import Staged

_PLACE, _GROUP = sql.Identifier(PLACE), sql.Identifier(GROUP)
_COUNT = sql.SQL("SELECT {group}, count(*) FROM {staged} s GROUP BY 1 ORDER BY 1")
_PLACES = sql.SQL("SELECT {place} FROM {staged} s WHERE {group} = {number} ORDER BY 1")
_INDEX = sql.SQL("CREATE INDEX IF NOT EXISTS {name} ON {staged} ({place})")
_INSERT = sql.SQL("""
INSERT INTO {table} ({names}, {stamp}) SELECT {values}, {batch_id} FROM {staged} s WHERE {chosen}
""")


@dataclass(frozen=True)
class Policy:
    """Which rows of a table are inserted singly.

    Attributes:
        singly: All of them.
        minimum: Those of a group with fewer rows than this.
    """

    singly: bool = False
    minimum: int = 0

    @classmethod
    def of(cls, feed: Feed, table: str, settings: Settings) -> Policy:
        """Say what a feed and the environment want.

        Args:
            feed: The feed.
            table: The table's name with schema.
            settings: The settings.
        """
        individual = feed.table_named(table).write == "individual"
        return cls(individual or not settings.bulk, feed.bulk_minimum)

    def needs_staging(self, source: TableSource) -> bool:
        """Say whether rows of a source may have to be inserted singly, which COPY cannot."""
        return self.singly or source.is_grouped or source.records < self.minimum

    def is_bulk(self, group: int, rows: int) -> bool:
        """Say whether a group goes by one statement; an odd one was asked not to."""
        return not self.singly and group % 2 == 0 and rows >= self.minimum


@dataclass(frozen=True)
class _Group:
    number: int
    rows: int
    bulk: bool


def insert_staged(
    connection: Connection, staged: Staged, batch_id: str, policy: Policy
) -> tuple[Signature, ...]:
    """Insert staged rows into their table; called inside the publish transaction.

    Args:
        connection: The publishing connection.
        staged: The staged rows, judged.
        batch_id: The stamp.
        policy: Which of them singly.

    Returns:
        What was inserted, by column signature and way.
    """
    groups = [*_groups(connection, staged, policy)]
    table = staged.source.table
    if any(key.parent_oid == table.oid for key in table.parents):
        return _together(connection, staged, batch_id, groups)
    return tuple(_write(connection, staged, batch_id, group) for group in groups)


def signature(
    source: TableSource, group: int, entries: int, *, bulk: bool, statements: int, seconds: float
) -> Signature:
    """Describe rows of a group that have been written.

    Args:
        source: Their source.
        group: Their group; see `Chunk.groups`.
        entries: How many.
        bulk: Whether by one statement for all.
        statements: How many statements it took.
        seconds: How long.
    """
    absent = source.signatures[group // 2]
    return Signature(
        target_table=source.table.full_name,
        columns=[column.name for column in source.columns if column.name not in absent],
        entries=entries,
        bulk=bulk,
        statements=statements,
        fallback=False,
        seconds=seconds,
    )


def _groups(connection: Connection, staged: Staged, policy: Policy) -> Iterator[_Group]:
    query = _COUNT.format(group=_number(staged), staged=staged.name)
    for number, rows in connection.execute(query).fetchall():
        yield _Group(int(number), int(rows), policy.is_bulk(int(number), int(rows)))


def _number(staged: Staged) -> sql.Composable:
    return sql.SQL("s.{}").format(_GROUP) if staged.source.is_grouped else sql.SQL("0::integer")


def _together(
    connection: Connection, staged: Staged, batch_id: str, groups: list[_Group]
) -> tuple[Signature, ...]:
    began = time.perf_counter()
    _insert(connection, staged, batch_id, sql.SQL("true"))
    seconds = time.perf_counter() - began
    # The one statement is told of the first of them.
    return tuple(
        signature(
            staged.source, group.number, group.rows, bulk=True,
            statements=0 if place else 1, seconds=0.0 if place else seconds,
        )
        for place, group in enumerate(groups)
    )  # fmt: skip


def _write(connection: Connection, staged: Staged, batch_id: str, group: _Group) -> Signature:
    began = time.perf_counter()
    own = sql.SQL("{} = {}").format(_number(staged), sql.Literal(group.number))
    statements = 1
    if group.bulk:
        _insert(connection, staged, batch_id, own)
    else:
        statements = group.rows
        for place in _places(connection, staged, group):
            chosen = sql.SQL("s.{} = {}").format(_PLACE, sql.Literal(place))
            _insert(connection, staged, batch_id, chosen)
    return signature(
        staged.source, group.number, group.rows, bulk=group.bulk, statements=statements,
        seconds=time.perf_counter() - began,
    )  # fmt: skip


def _places(connection: Connection, staged: Staged, group: _Group) -> list[int]:
    name = sql.Identifier(f"batch_pipelines_by_place_{staged.number}")
    connection.execute(_INDEX.format(name=name, staged=staged.name, place=_PLACE))
    query = _PLACES.format(
        place=_PLACE, staged=staged.name, group=_number(staged), number=sql.Literal(group.number)
    )
    return [int(place) for (place,) in connection.execute(query).fetchall()]


def _insert(connection: Connection, staged: Staged, batch_id: str, chosen: sql.Composable) -> None:
    names = [sql.Identifier(column.name) for column in staged.source.columns]
    query = _INSERT.format(
        table=staged.source.table.identifier,
        names=sql.SQL(", ").join(names),
        stamp=sql.Identifier(STAMP),
        values=sql.SQL(", ").join(sql.SQL("s.{}").format(name) for name in names),
        batch_id=sql.Literal(batch_id),
        staged=staged.name,
        chosen=chosen,
    )
    connection.execute(query)
