"""What rows that are to come back would collide with: keys that are taken, parents that are gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from psycopg import sql

from batch_pipelines.engine.catalog import STAMP
from batch_pipelines.engine.restoring.plan import Obstacle

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from batch_pipelines.engine.catalog import ForeignKey, TableInfo, UniqueIndex
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.restoring.staged import StagedRows

_NAMED: Final = 3
_TAKEN: Final = sql.SQL("""
SELECT t.{stamp}::text, count(*) FROM
    (SELECT {keys} FROM {staged} AS {alias} WHERE {predicate}) AS s
    JOIN (SELECT {keys}, {stamp} FROM {table} WHERE {predicate}) AS t ON {same}
GROUP BY 1 ORDER BY 2 DESC, 1
""")
_WITHOUT_PARENT: Final = sql.SQL("""
SELECT count(*) FROM {staged} AS s
WHERE {given} AND NOT EXISTS (SELECT FROM {parent} AS p WHERE {same}) AND NOT ({comes_back})
""")
_COMES_BACK: Final = sql.SQL("EXISTS (SELECT FROM {staged} AS p WHERE {same})")


def collisions(
    connection: Connection, staged: StagedRows, info: TableInfo, others: Sequence[StagedRows]
) -> Iterator[Obstacle]:
    """Find what the rows of a table would collide with.

    Args:
        connection: A connection inside the restoring transaction.
        staged: The rows.
        info: Their table's catalog.
        others: The staged rows of all tables, these among them.

    Yields:
        What stands in the way, with counts.
    """
    for index in info.unique_indexes:
        if found := _taken(connection, staged, index):
            rows = sum(count for _, count in found)
            whose = ", ".join(
                f"{count:,} of {'no batch' if stamp is None else f'batch {stamp}'}"
                for stamp, count in found[:_NAMED]
            )
            more = f" and {len(found) - _NAMED} more batches" if len(found) > _NAMED else ""
            text = f"{rows:,} rows have a key ({index.name}) that rows there have: {whose}{more}"
            yield Obstacle("taken", info.full_name, text, rows)
    for key in info.parents:
        if rows := _without_parent(connection, staged, key, others):
            text = (
                f"{rows:,} rows refer ({key.name}) to rows of {'.'.join(key.parent)} that are gone"
            )
            yield Obstacle("parent", info.full_name, text, rows)


def _taken(
    connection: Connection, staged: StagedRows, index: UniqueIndex
) -> list[tuple[str | None, int]]:
    # The expressions come from PostgreSQL's own pg_get_indexdef, which quotes them.
    keys = [
        sql.SQL("{} AS {}").format(sql.SQL(part), sql.Identifier(f"k{n}"))
        for n, part in enumerate(index.parts)
    ]
    equal = "s.{0} IS NOT DISTINCT FROM t.{0}" if index.nulls_equal else "s.{0} = t.{0}"
    same = [sql.SQL(equal).format(sql.Identifier(f"k{n}")) for n in range(len(keys))]
    query = _TAKEN.format(
        stamp=sql.Identifier(STAMP),
        keys=sql.SQL(", ").join(keys),
        staged=staged.typed,
        # Expressions of an index may name the table.
        alias=sql.Identifier(staged.table.full_name.split(".")[1]),
        predicate=sql.SQL(index.predicate or "true"),
        table=staged.target,
        same=sql.SQL(" AND ").join(same),
    )
    return [(stamp, int(count)) for stamp, count in connection.execute(query).fetchall()]


def _without_parent(
    connection: Connection, staged: StagedRows, key: ForeignKey, others: Sequence[StagedRows]
) -> int:
    pairs = [*zip(key.child_columns, key.parent_columns, strict=True)]
    same = sql.SQL(" AND ").join(
        sql.SQL("p.{} = s.{}").format(sql.Identifier(parent), sql.Identifier(child))
        for child, parent in pairs
    )
    coming = [
        _COMES_BACK.format(staged=other.typed, same=same)
        for other in others
        if other.table.full_name == ".".join(key.parent)
    ]
    query = _WITHOUT_PARENT.format(
        staged=staged.typed,
        given=sql.SQL(" AND ").join(
            sql.SQL("s.{} IS NOT NULL").format(sql.Identifier(child)) for child, _ in pairs
        ),
        parent=sql.Identifier(*key.parent),
        same=same,
        comes_back=sql.SQL(" OR ").join([sql.SQL("false"), *coming]),
    )
    row = connection.execute(query).fetchone()
    return int(row[0]) if row else 0
