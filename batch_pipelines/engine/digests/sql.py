"""The digest of rows in a table: computed by its server or, before PostgreSQL 18, read back.

What lives here: the statements and the choice between them. What does not: which rows to ask for;
they are never named here other than by the caller's condition.

The statements are plain SELECTs without parameters, run with an ordinary (client-side) cursor: a
server-side one would keep PostgreSQL from using parallel workers.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Final

import crc32c
import numpy as np
from psycopg import sql
from psycopg.rows import tuple_row

from batch_pipelines.engine.digests.row_digest import CENTRE, RowDigest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import psycopg

# ROW(x), never (x): with one column the latter is no row.
_WIRE_ROWS: Final = sql.SQL(
    "SELECT pg_catalog.record_send(ROW({columns})) AS wire_row FROM {table} WHERE {where}"
)

# The square of c - 2^31 fits a bigint, and a sum of bigint is a numeric: both are exact.
#
# Without the clock the planner would merge the subquery into the sums and send each row once for
# each c in them: 1.66 us a row of flights with two workers, 0.67 us with it. What matters is that
# it is volatile (is_simple_subquery in src/backend/optimizer/prep/prepjointree.c) and may run in
# parallel workers; OFFSET 0 keeps the subquery, too, but not the workers.
_DIGEST: Final = sql.SQL(
    """
    SELECT count(*), coalesce(sum(c), 0), coalesce(sum((c - {centre}) * (c - {centre})), 0)
    FROM (
        SELECT pg_catalog.crc32c(wire_row) AS c, pg_catalog.clock_timestamp()
        FROM ({wire_rows}) AS sent
    ) AS digested
    """
)

_READ_BACK: Final = sql.SQL("COPY ({wire_rows}) TO STDOUT (FORMAT binary)")

HAS_CRC32C: Final = 180_000
"""`server_num` of PostgreSQL 18, with which crc32c(bytea) came."""

# Rows read back at a time. Memory is bounded by this and one row; more does not make it faster.
_READ_BACK_ROWS: Final = 1 << 14


def table_digest(
    connection: psycopg.Connection[Any],
    table: sql.Composable,
    columns: Sequence[str | sql.Composable],
    where: sql.Composable,
) -> RowDigest:
    """Digest rows of a table as PostgreSQL sends them.

    Args:
        connection: A connection in a state to run a query; its client_encoding is UTF-8.
        table: The table, quoted: an `sql.Identifier`.
        columns: At least one: a column's name, or an expression (a user-defined type is digested as
            text: its own OID, which is in the bytes, changes when it is created again).
        where: The condition that the rows meet, its values as `sql.Literal`.

    Returns:
        What the rows add up to; equal to `RowDigest.of(row_crc32c(...))` of equal values.

    Raises:
        ValueError: There is no column, or the connection would convert text before it is digested.
    """
    statement = digest_statement(connection, table, columns, where)
    if connection.info.encoding != "utf-8":
        raise ValueError(
            "Row digests are of UTF-8, as in Arrow; this connection converts text to "
            f"{connection.info.encoding}. Connect with client_encoding=UTF8."
        )
    if connection.info.server_version >= HAS_CRC32C:
        return _ask(connection, statement)
    return _read_back(connection, statement)


def digest_statement(
    connection: psycopg.Connection[Any],
    table: sql.Composable,
    columns: Sequence[str | sql.Composable],
    where: sql.Composable,
) -> sql.Composed:
    """Write the statement that digests rows of a table, for `table_digest` or to be run by hand.

    Args:
        connection: To the server that is to run it.
        table: See `table_digest`.
        columns: See there.
        where: See there.

    Returns:
        A SELECT of count, sum and second moment; before PostgreSQL 18 the COPY that sends the rows.

    Raises:
        ValueError: There is no column.
    """
    if not columns:
        raise ValueError("A row digest needs at least one column; rows without any are all equal.")
    listed = [sql.Identifier(each) if isinstance(each, str) else each for each in columns]
    wire_rows = _WIRE_ROWS.format(columns=sql.SQL(", ").join(listed), table=table, where=where)
    if connection.info.server_version >= HAS_CRC32C:
        return _DIGEST.format(wire_rows=wire_rows, centre=sql.Literal(CENTRE))
    return _READ_BACK.format(wire_rows=wire_rows)


def _ask(connection: psycopg.Connection[Any], digest: sql.Composed) -> RowDigest:
    with connection.cursor(row_factory=tuple_row) as cursor:
        ((rows, total, moment),) = cursor.execute(digest).fetchall()
    return RowDigest(int(rows), int(total), int(moment))


def _read_back(connection: psycopg.Connection[Any], copy_out: sql.Composed) -> RowDigest:
    digest = RowDigest.zero()
    with connection.cursor() as cursor, cursor.copy(copy_out) as copy:
        crcs = (crc32c.crc32c(wire_row) for (wire_row,) in copy.rows())
        while len(chunk := _up_to(_READ_BACK_ROWS, crcs)):
            digest += RowDigest.of(chunk)
    return digest


def _up_to(count: int, crcs: Iterable[int]) -> np.ndarray[Any, np.dtype[np.uint32]]:
    return np.fromiter(itertools.islice(crcs, count), np.uint32)
