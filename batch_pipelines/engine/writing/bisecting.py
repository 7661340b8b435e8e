"""Bisecting: finding, by trying, the rows that triggers and exclusion constraints refuse.

No query can tell what they do, so ever smaller parts of the staged rows are inserted, in the order of
the source and in a transaction that is always rolled back: what was accepted stays for those after it.
Halving takes at most 1 + 2 k ceil(log2 n) statements for k bad rows of n.

A row may refer to a later one of its table. What ends with such a row is tried again together with
what follows, until all that it refers to is there: PostgreSQL looks at foreign keys last, so a row that
is refused for no other reason has nothing else against it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from batch_pipelines.engine.catalog import STAMP
from batch_pipelines.engine.rejects import Breach
from batch_pipelines.engine.writing.copying import PLACE

if TYPE_CHECKING:
    from collections.abc import Callable

    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.writing.staging import Staged

# PostgreSQL keeps up to 64 subtransactions of a transaction where other sessions see them at once; more
# make every reader look them up. So after fewer than that a new transaction takes over.
_MOST_SUBTRANSACTIONS = 50
_ORDER = sql.Identifier("pg_temp", "batch_pipelines_order")
_PLACE = sql.Identifier(PLACE)
_NUMBER = sql.SQL("""
CREATE TEMPORARY TABLE batch_pipelines_order AS
SELECT row_number() OVER (ORDER BY {place}) - 1 AS number, {place} AS place FROM {staged}
""")
_INDEX = "CREATE UNIQUE INDEX ON pg_temp.batch_pipelines_order (number) INCLUDE (place)"
# So that a small part is found without reading all rows.
_INDEX_STAGED = sql.SQL("CREATE INDEX IF NOT EXISTS {name} ON {staged} ({place})")
_INSERT = sql.SQL("""
INSERT INTO {table} ({names}, {stamp})
SELECT {values}, {batch_id} FROM {staged} s
WHERE s.{place} >= {low} AND s.{place} < {high} AND NOT s.{place} = ANY({bad})
""")
# Constraint triggers are constraints too.
_DEFERRABLE = """
SELECT n.nspname, c.conname FROM pg_constraint c JOIN pg_namespace n ON n.oid = c.connamespace
WHERE c.conrelid = %s AND c.condeferrable AND NOT c.conname = ANY (%s)
"""
_END = 1 << 62
_FOREIGN_KEY = "23503"


@dataclass
class Bisection:
    """The search among one table's staged rows.

    Attributes:
        statements: How many insertions were tried.
        found: Place of each refused row, and why.
        held: Number of the first row that waits for later ones, to which it or one behind it refers.
    """

    statements: int
    found: dict[int, Breach]
    held: int | None = None


def bisect(
    connection: Connection,
    staged: Staged,
    batch_id: str,
    prepare: Callable[[], None],
    enough: Callable[[int], bool],
    forward: frozenset[str] = frozenset(),
) -> Bisection:
    """Find the staged rows that their table refuses.

    Args:
        connection: A connection in autocommit mode, with the staged tables.
        staged: The staged rows.
        batch_id: The stamp.
        prepare: Does in a transaction what publish does before it inserts these rows.
        enough: Says of a number of refused rows that no more need to be found.
        forward: Names of the foreign keys whose parents may come later; they have been judged.

    Returns:
        What was found.

    Raises:
        psycopg.Error: Something else than a row is to blame.
    """
    with connection.transaction():
        connection.execute("DROP TABLE IF EXISTS pg_temp.batch_pipelines_order")
        rows = connection.execute(_NUMBER.format(place=_PLACE, staged=staged.name)).rowcount
        connection.execute(_INDEX)
        index = sql.Identifier(f"batch_pipelines_by_place_{staged.number}")
        connection.execute(_INDEX_STAGED.format(name=index, staged=staged.name, place=_PLACE))
    at_once = _made_immediate(connection, staged, forward)
    search = Bisection(0, {})
    # Parts to try, the next one last; everything before it is decided.
    waiting = [(0, rows)] if rows else []
    while waiting and not enough(len(search.found)):
        with connection.transaction(force_rollback=True):
            prepare()
            connection.execute(at_once)
            first = waiting[-1][0] if search.held is None else search.held
            if first:
                search.statements += 1
                _insert(connection, staged, batch_id, 0, first, [*search.found])
            _search(connection, staged, batch_id, waiting, search, enough, forward)
    return search


def _search(
    connection: Connection,
    staged: Staged,
    batch_id: str,
    waiting: list[tuple[int, int]],
    search: Bisection,
    enough: Callable[[int], bool],
    forward: frozenset[str],
) -> None:
    accepted = 0
    while waiting and accepted < _MOST_SUBTRANSACTIONS and not enough(len(search.found)):
        low, high = waiting.pop()
        start, bad = (low, []) if search.held is None else (search.held, [*search.found])
        search.statements += 1
        try:
            with connection.transaction():
                _insert(connection, staged, batch_id, start, high, bad)
            accepted += 1
            search.held = None
        except psycopg.Error as error:
            if not is_about_rows(error):
                raise
            if error.sqlstate == _FOREIGN_KEY and error.diag.constraint_name in forward:
                search.held = start
            elif high - low == 1:
                search.found[_place_of(connection, low)] = _breach(error)
            else:
                middle = (low + high) // 2
                waiting += [(middle, high), (low, middle)]


def _made_immediate(
    connection: Connection, staged: Staged, forward: frozenset[str]
) -> sql.Composed | sql.SQL:
    """Have the table's deferrable constraints looked at row by row, but those that must wait."""
    parameters = (staged.source.table.oid, sorted(forward))
    names = connection.execute(_DEFERRABLE, parameters).fetchall()
    if not names:
        return sql.SQL("")
    listed = sql.SQL(", ").join(sql.Identifier(*name) for name in names)
    return sql.SQL("SET CONSTRAINTS {} IMMEDIATE").format(listed)


def is_about_rows(error: psycopg.Error) -> bool:
    """Say whether an error of an INSERT or COPY may come from some rows and not from all.

    Args:
        error: What PostgreSQL said.

    Returns:
        True for data and integrity errors, and for what triggers raise, whatever code they choose.
    """
    state = error.sqlstate
    return state is not None and (state == _TOO_LARGE or state[:2] not in NOT_ROWS)


# program_limit_exceeded, of its class the one code that is about a value: one too long for an index.
_TOO_LARGE = "54000"
# Classes of PostgreSQL's own error codes (manual, appendix A) that are about anything but rows: the
# connection, transactions, privileges, syntax and schema, resources, the operator, the system.
NOT_ROWS = frozenset(
    {
        "00", "01", "02", "03", "08", "0A", "0B", "0L", "0P", "25", "26", "28", "2D", "3B", "3D", "3F",
        "40", "42", "53", "54", "55", "57", "58", "72", "F0", "XX",
    }
)  # fmt: skip
"""The first two characters of codes that are not about rows."""


def _insert(
    connection: Connection, staged: Staged, batch_id: str, low: int, high: int, bad: list[int]
) -> None:
    columns = staged.source.columns
    query = _INSERT.format(
        table=staged.source.table.identifier,
        names=sql.SQL(", ").join(sql.Identifier(c.name) for c in columns),
        stamp=sql.Identifier(STAMP),
        values=sql.SQL(", ").join(sql.SQL("s.{}").format(sql.Identifier(c.name)) for c in columns),
        batch_id=sql.Literal(batch_id),
        staged=staged.name,
        place=_PLACE,
        low=sql.Literal(_place_of(connection, low)),
        high=sql.Literal(_place_of(connection, high)),
        bad=sql.Literal(bad),
    )
    connection.execute(query)


def _place_of(connection: Connection, number: int) -> int:
    query = sql.SQL("SELECT place FROM {} WHERE number = {}").format(_ORDER, sql.Literal(number))
    row = connection.execute(query).fetchone()
    return int(row[0]) if row else _END


def _breach(error: psycopg.Error) -> Breach:
    """Say what PostgreSQL refused, without its text: that is translated, and holds values."""
    diag, state = error.diag, error.sqlstate or ""
    if diag.constraint_name:
        message = f"breaks {diag.constraint_name}"
    elif state.startswith(("22", "23")):
        message = "is refused by the table"
    else:
        message = "is refused by a trigger of the table"
    return Breach(state, message, diag.column_name, diag.constraint_name)
