"""Staging: a delivery's typed rows in temporary tables, each with its place in the source.

What does not fit is looked for there, by queries over all rows at once, and what does is put into the
target tables from there. Temporary tables are written without WAL, are seen by nobody else, and are
gone with the session, however that ends.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from psycopg import sql

from batch_pipelines.engine.digests.sql import table_digest
from batch_pipelines.engine.errors import PublishError
from batch_pipelines.engine.reading.prefetch import prefetched
from batch_pipelines.engine.writing.copying import GROUP, PLACE, copy_placed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from batch_pipelines.engine.catalog import Column
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.reading.chunks import Chunk
    from batch_pipelines.engine.writing.proof import Proof
    from batch_pipelines.engine.writing.source import TableSource

BREACHES = sql.Identifier("pg_temp", "batch_pipelines_breaches")
"""Temporary table of what is wrong with which record; one row a reason."""
_BARE_BREACHES = sql.Identifier("batch_pipelines_breaches")
_CREATE_BREACHES = sql.SQL("""
CREATE TEMPORARY TABLE {name} (
    source integer, place bigint, sequence integer GENERATED ALWAYS AS IDENTITY, sqlstate text,
    message text, "column" text, "constraint" text)
""")
_CREATE = sql.SQL("CREATE TEMPORARY TABLE {name} ({columns}, {place} bigint{group})")
_FILL = sql.SQL("UPDATE {staged} SET {assignments} WHERE {group} / 2 = {signature}")
_ADD = sql.SQL("ALTER TABLE {staged} ADD COLUMN {column} {type} DEFAULT {default}")
# For the sorts and joins of judging; temporary tables have buffers of their own.
_ROOM = "SELECT set_config('temp_buffers', '32MB', false), set_config('work_mem', '64MB', false)"
_PLACES = sql.SQL("SELECT coalesce(sum({place}), 0) FROM {staged}")
_TAKE_OUT = sql.SQL("""
DELETE FROM {staged} s USING {breaches} b WHERE b.source = {source} AND b.place = s.{place}
""")


@dataclass(frozen=True)
class Staged:
    """A source in its temporary table.

    Attributes:
        number: Number of the source, from 0.
        source: The source.
        name: The quoted name of the temporary table.
        proof: Its proof.
        extra: Columns that no record brings, there only for rows to be judged or restored by.
    """

    number: int
    source: TableSource
    name: sql.Identifier
    proof: Proof
    extra: tuple[Column, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        """Names of all columns that its rows are judged by."""
        names = frozenset(column.name for column in (*self.source.columns, *self.extra))
        return names - self.source.server_changed


def stage(
    connection: Connection,
    proofs: Sequence[Proof],
    told: Callable[[Iterable[Chunk]], Iterator[Chunk]],
    extras: Mapping[str, Sequence[Column]] = MappingProxyType({}),
) -> tuple[Staged, ...]:
    """Bring sources into temporary tables of this session.

    Args:
        connection: A connection in autocommit mode.
        proofs: Watch the sources; their digests are complete afterwards.
        told: Passes chunks on and tells how far it has come.
        extras: By table, columns to stage that no record brings.

    Returns:
        The staged sources, in the same order.

    Raises:
        PublishError: What is staged is not what was sent.
    """
    make_room(connection)
    staged = []
    for number, proof in enumerate(proofs):
        source = proof.source
        name = create_staged(connection, staged_name(number), source)
        with proof, closing(prefetched(proof.watch(source.chunks()))) as ahead:
            places = copy_placed(connection, name, source, told(ahead))
        _prove_received(connection, proof, name, places)
        if source.filled:
            fill(connection, name, source)
        extra = extras.get(source.table.full_name, ())
        staged.append(complete_staged(connection, Staged(number, source, name, proof), extra))
    return tuple(staged)


def give_room(connection: Connection) -> None:
    """Give this session memory for temporary tables; after the first one it cannot be changed."""
    connection.execute(_ROOM)


def make_room(connection: Connection) -> None:
    """Make this session ready for staged tables: room for them, and for what is noted of their rows."""
    give_room(connection)
    connection.execute(_CREATE_BREACHES.format(name=_BARE_BREACHES))


def staged_name(number: int) -> str:
    """Name the temporary table of a source, by its number."""
    return f"batch_pipelines_staged_{number}"


def complete_staged(connection: Connection, staged: Staged, extra: Iterable[Column]) -> Staged:
    """Add what no record brings to a staged table that has its rows.

    Args:
        connection: A connection.
        staged: The staged rows.
        extra: Columns to be judged or restored by; rows get their defaults.

    Returns:
        The same rows with these columns.
    """
    columns = tuple(extra)
    _add(connection, staged.name, columns)
    connection.execute(sql.SQL("ANALYZE {}").format(staged.name))
    return replace(staged, extra=columns)


def create_staged(connection: Connection, name: str, source: TableSource) -> sql.Identifier:
    """Create the temporary table that takes a source's rows.

    Args:
        connection: A connection.
        name: The table's name.
        source: The source.

    Returns:
        The quoted name, for `copy_placed` to fill.
    """
    # A temporary table goes to pg_temp by itself; its creation does not take the schema's name.
    create = _CREATE.format(
        name=sql.Identifier(name),
        columns=_definitions(source.columns),
        place=sql.Identifier(PLACE),
        group=sql.SQL(", {} integer" if source.is_grouped else "").format(sql.Identifier(GROUP)),
    )
    connection.execute(create)
    return sql.Identifier("pg_temp", name)


def take_out(connection: Connection, staged: Staged) -> int:
    """Delete the staged rows of which something is noted.

    Args:
        connection: A connection with the staged table.
        staged: The staged source.

    Returns:
        How many rows.
    """
    query = _TAKE_OUT.format(
        staged=staged.name,
        breaches=BREACHES,
        source=sql.Literal(staged.number),
        place=sql.Identifier(PLACE),
    )
    return connection.execute(query).rowcount


def fill(connection: Connection, name: sql.Identifier, source: TableSource) -> None:
    """Give staged rows the defaults of the columns that they do not bring, a value for each row.

    Before they are judged, so that constraints see the values that will be stored.

    Args:
        connection: A connection with the staged table.
        name: The quoted name of the staged table.
        source: Says which columns which rows do not bring.
    """
    for number, absent in enumerate(source.signatures):
        columns = [column for column in source.columns if column.name in absent]
        assignments = [
            sql.SQL("{} = ({}){}").format(
                sql.Identifier(column.name),
                # The expression is PostgreSQL's own rendering.
                sql.SQL(column.default_sql or "NULL"),
                sql.SQL("::text" if column.wire is None else ""),
            )
            for column in columns
        ]
        if assignments:
            query = _FILL.format(
                staged=name,
                assignments=sql.SQL(", ").join(assignments),
                group=sql.Identifier(GROUP),
                signature=sql.Literal(number),
            )
            connection.execute(query)


def _add(connection: Connection, name: sql.Identifier, columns: Sequence[Column]) -> None:
    """Give a staged table more columns, and its rows their defaults."""
    for column in columns:
        # Both are PostgreSQL's own renderings.
        query = _ADD.format(
            staged=name,
            column=sql.Identifier(column.name),
            type=sql.SQL(column.type_name),
            default=sql.SQL(column.default_sql or "NULL"),
        )
        connection.execute(query)


def _definitions(columns: Sequence[Column]) -> sql.Composed:
    """Give the columns as they are read: those outside the closed list of types are text."""
    return sql.SQL(", ").join(
        sql.SQL("{} {}").format(
            sql.Identifier(column.name),
            # A type's name comes from PostgreSQL's own format_type, which quotes it.
            sql.SQL("text" if column.wire is None else column.type_name),
        )
        for column in columns
    )


def _prove_received(
    connection: Connection, proof: Proof, name: sql.Identifier, places: int
) -> None:
    """Compare what is staged with what was parsed, or good rows could be taken for bad ones.

    And text before PostgreSQL converts it: what it stores in the end may be written otherwise.
    """
    columns = [column.name for column in proof.source.columns]
    received = proof.received if proof.source.is_received_otherwise else proof.digest
    total = connection.execute(_PLACES.format(place=sql.Identifier(PLACE), staged=name)).fetchone()
    if total != (places,) or table_digest(connection, name, columns, sql.SQL("true")) != received:
        message = (
            f"{proof.source.table.full_name}: what arrived differs from the source; nothing was "
            "written. Run again; if it happens again, the machine's memory may be faulty."
        )
        raise PublishError(message)
