"""Proof before visibility: what PostgreSQL has stored equals what was sent, in count and digests.

Nobody has counted the new rows when they are proven, so PostgreSQL is told how to read them.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from psycopg import sql

from batch_pipelines.engine.catalog import STAMP
from batch_pipelines.engine.digests import RowDigest
from batch_pipelines.engine.digests.sql import table_digest
from batch_pipelines.engine.errors import PublishError
from batch_pipelines.engine.writing.balancing import require_balance
from batch_pipelines.engine.writing.blaming import (
    as_digested,
    differing_from_source,
    differing_from_staged,
)
from batch_pipelines.engine.writing.ruling import broken_rules

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from batch_pipelines.engine.catalog import TableInfo
    from batch_pipelines.engine.ledger.rejects import Rejects
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.writing.proof import Proof
    from batch_pipelines.engine.writing.publication import Publication
    from batch_pipelines.engine.writing.source import TableSource
    from batch_pipelines.engine.writing.staging import Staged
    from batch_pipelines.engine.writing.superseding import Put

_COUNT = sql.SQL("SELECT count(*) FROM {table} WHERE {stamped}")
# A partitioned table has its rows in its partitions; of another, PostgreSQL lists none.
_SIZE = """
SELECT coalesce(sum(pg_relation_size(relid)), pg_relation_size(%(table)s))
FROM pg_partition_tree(%(table)s)
"""
_BY_INDEX = ("enable_indexscan", "enable_indexonlyscan", "enable_bitmapscan")
# From this share of a table on, reading all of it (in parallel) beats looking rows up (alone): rows that
# are read cost three times as much as others that are passed over, on flights.
_MOST = 0.25


@dataclass(frozen=True)
class Before:
    """What a table holds of the batch before it is published: its digests, and what breaks rules."""

    stored: RowDigest = field(default_factory=RowDigest.zero)
    whole: RowDigest = field(default_factory=RowDigest.zero)
    broken: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Written:
    """One table's part: the proof of its source, what happened, and the staged rows, if any."""

    proof: Proof
    put: Put
    staged: Staged | None = None


def stored_before(connection: Connection, publication: Publication) -> dict[str, Before]:
    """Look at the rows that the batch has already.

    Args:
        connection: The publishing connection, inside a transaction.
        publication: What is to be published.

    Returns:
        How they stand, by table; nothing but where records are replayed.
    """
    if publication.purpose != "replay":
        return {}
    batch_id = publication.batch.batch_id
    return {
        source.table.full_name: Before(
            _stored(connection, source, batch_id),
            _whole(connection, source, source.table.identifier, _stamped(batch_id))
            if publication.proves_all(source)
            else RowDigest.zero(),
            broken_rules(connection, source.table, source.rules, batch_id),
        )
        for source in publication.sources
    }


def is_most(before: int, now: int) -> bool:
    """Say whether a table is mostly the batch's.

    Args:
        before: Its bytes before the batch.
        now: Its bytes.
    """
    return now - before > _MOST * now


@contextmanager
def reading_whole(connection: Connection, *, wanted: bool) -> Iterator[None]:
    """Have tables read as a whole and not by an index, which keeps PostgreSQL from using workers.

    Nobody has counted the new rows yet, so its planner takes them for few.

    Args:
        connection: A connection inside a transaction.
        wanted: Whether to.
    """
    if wanted:
        for name in _BY_INDEX:
            connection.execute(f"SET LOCAL {name} = off")
    yield
    if wanted:
        for name in _BY_INDEX:
            connection.execute(f"SET LOCAL {name} TO DEFAULT")


def size_of(connection: Connection, table: TableInfo) -> int:
    """Give the bytes of a table with its partitions, without indexes.

    Args:
        connection: A connection.
        table: The table.
    """
    row = connection.execute(_SIZE, {"table": table.oid}).fetchone()
    return int(row[0]) if row else 0


def prove(
    connection: Connection,
    written: Written,
    batch_id: str,
    rejects: Rejects,
    before: Mapping[str, Before],
) -> None:
    """Compare what PostgreSQL holds with what was parsed, and that with the independent count.

    Args:
        connection: The publishing connection, inside a transaction.
        written: What was written into a table.
        batch_id: The batch.
        rejects: The records that were set aside.
        before: What the tables held of the batch before; see `stored_before`.

    Raises:
        PublishError: They differ.
    """
    proof, source = written.proof, written.proof.source
    name = source.table.full_name
    require_balance(proof, rejects)
    stored = _stored(connection, source, batch_id)
    expected = before.get(name, Before()).stored + proof.digest
    if not source.exact:
        # All columns arrived as text, which was proven then; what is stored may be written otherwise.
        stored = replace(expected, rows=stored.rows)
    if stored.rows != expected.rows:
        message = (
            f"{name}: {stored.rows} rows are stored of {expected.rows}; nothing was written. Run again; "
            "if it happens again, a trigger may take rows away or add some."
        )
        raise PublishError(message)
    if stored != expected:
        what = "the digests of the stored rows differ from those of the source"
        columns: list[str] = []
        if not before:
            stamped = _stamped(batch_id)
            columns = (
                differing_from_source(connection, source, stamped)
                if written.staged is None
                else differing_from_staged(
                    connection, source, written.staged.name, source.exact, stamped
                )
            )
        raise PublishError(_otherwise(name, what, columns))


def prove_all(
    connection: Connection, staged: Staged, batch_id: str, before: Mapping[str, Before]
) -> None:
    """Compare all columns of stored rows with those of the staged ones.

    What was staged has been compared with the source, before it got the values that the table has, or
    was converted from text.

    Args:
        connection: The publishing connection, inside a transaction.
        staged: The staged rows of a table.
        batch_id: The batch.
        before: What the tables held of the batch before; see `stored_before`.

    Raises:
        PublishError: They differ.
    """
    source, name = staged.source, staged.source.table.full_name
    wanted = before.get(name, Before()).whole
    wanted += _whole(connection, source, staged.name, sql.SQL("true"))
    if _whole(connection, source, source.table.identifier, _stamped(batch_id)) != wanted:
        what, columns = "the stored rows differ from those that were staged", []
        if not before:
            stamped = _stamped(batch_id)
            columns = differing_from_staged(connection, source, staged.name, source.meant, stamped)
        raise PublishError(_otherwise(name, what, columns))


def _otherwise(name: str, what: str, columns: Sequence[str]) -> str:
    """Say that rows are stored otherwise than they were sent, in which columns, and what to do."""
    listed = ", ".join(columns)
    where = f" in {listed}" if columns else ""
    return (
        f"{name}: {what}{where}; nothing was written. Where a trigger changes them and is to, name the "
        f"columns in the feed, `server_changed: [{listed or 'COLUMN'}]` of {name}: they are then not "
        "proven. Otherwise run again; if it happens again, the machine's memory may be faulty."
    )


def _whole(
    connection: Connection, source: TableSource, table: sql.Identifier, where: sql.Composable
) -> RowDigest:
    """Digest what is to be stored as it is staged, types outside the closed list as text."""
    columns = [as_digested(column) for column in source.meant]
    return table_digest(connection, table, columns, where)


def _stamped(batch_id: str) -> sql.Composed:
    return sql.SQL("{} = {}").format(sql.Identifier(STAMP), sql.Literal(batch_id))


def _stored(connection: Connection, source: TableSource, batch_id: str) -> RowDigest:
    """Digest a batch's rows as PostgreSQL has them; where no column is exact, only count them."""
    stamped = _stamped(batch_id)
    table, columns = source.table.identifier, [column.name for column in source.exact]
    if columns:
        return table_digest(connection, table, columns, stamped)
    row = connection.execute(_COUNT.format(table=table, stamped=stamped)).fetchone()
    return RowDigest(int(row[0]) if row else 0, 0, 0)
