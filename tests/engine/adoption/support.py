"""What the tests of adoption share: other people's sessions, and how long they had to wait."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from batch_pipelines.engine.adoption.short_locks import Pace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from batch_pipelines.engine.postgres.database import Connection, Database

QUICK = Pace(first_pause=0.05, longest_pause=0.2, give_up_after=20)
_INDEXES = """
SELECT c.relname, i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE i.indrelid = %s::regclass AND %s = ANY(SELECT attname FROM pg_attribute
    WHERE attrelid = i.indrelid AND attnum = ANY(i.indkey::smallint[])) ORDER BY 1
"""


def indexes(db: Connection, table: str, column: str = "import_batch_id") -> list[tuple[str, bool]]:
    """List a table's indexes over a column, and whether they are valid."""
    return db.execute(_INDEXES, (table, column)).fetchall()


def column_type(db: Connection, table: str, column: str = "import_batch_id") -> str | None:
    """Read the type of a column; None where there is none."""
    row = db.execute(
        "SELECT format_type(atttypid, atttypmod) || CASE WHEN attnotnull THEN ' not null' ELSE '' END"
        " FROM pg_attribute WHERE attrelid = %s::regclass AND attname = %s AND NOT attisdropped",
        (table, column),
    ).fetchone()
    return None if row is None else str(row[0])


@contextmanager
def reading(database: Database, table: str, seconds: float) -> Iterator[None]:
    """Read a table in a transaction that stays open for so long, whatever the block does."""
    ready, done = threading.Event(), threading.Event()

    def read() -> None:
        with database.connect("a reader") as connection, connection.transaction():
            # As one long query does, it keeps its snapshot.
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            connection.execute(f"SELECT count(*) FROM (SELECT FROM {table} LIMIT 1) AS s".encode())
            ready.set()
            done.wait(seconds)

    thread = threading.Thread(target=read)
    thread.start()
    assert ready.wait(10)
    try:
        yield
    finally:
        done.set()
        thread.join()


@dataclass
class Waits:
    """How long the statements of a writer took, in seconds, in the order they were made."""

    seconds: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@contextmanager
def writing(
    database: Database,
    statement: str,
    parameters: Callable[[int], tuple[object, ...]],
    pause: float,
) -> Iterator[Waits]:
    """Write to a table all the time, a statement after the other, each its own transaction.

    Args:
        database: Where.
        statement: What is written.
        parameters: Its parameters, by the statement's number.
        pause: Between two statements, in seconds.

    Yields:
        How long each took.
    """
    waits, done = Waits(), threading.Event()

    def write() -> None:
        with database.connect("a writer") as connection:
            number = 0
            while not done.wait(pause):
                begun = time.monotonic()
                try:
                    connection.execute(statement.encode(), parameters(number))
                except Exception as error:  # noqa: BLE001  # the test judges
                    waits.errors.append(repr(error))
                waits.seconds.append(time.monotonic() - begun)
                number += 1

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield waits
    finally:
        done.set()
        thread.join()
