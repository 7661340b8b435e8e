"""A transaction that is known to be committed, or known not to be."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg

from batch_pipelines.engine.failpoints import failpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batch_pipelines.engine.postgres.database import Connection, Database

# How long, in seconds, to ask what became of a COMMIT whose answer was lost; a server that crashed
# needs a while to recover.
_SETTLE_SECONDS = 60.0
_SETTLE_PAUSE = 0.5


@contextmanager
def settled(
    connection: Connection,
    database: Database,
    *,
    commit: bool = True,
    purpose: str = "bulk_write",
) -> Iterator[None]:
    """A transaction whose COMMIT counts even when its answer is lost on the way.

    `pg_xact_status` of PostgreSQL tells afterwards what became of a transaction, by its id.

    Args:
        connection: A connection in autocommit mode.
        database: Where to ask over another one.
        commit: Whether it ends so, or is rolled back whatever happens.
        purpose: First part of the names of its failpoints.

    Yields:
        Nothing.

    Raises:
        psycopg.Error: The transaction was aborted.
    """
    connection.execute("BEGIN")
    try:
        row = connection.execute("SELECT pg_current_xact_id()::text, pg_backend_pid()").fetchone()
        yield
        if not commit:
            connection.execute("ROLLBACK")
            return
        failpoint(f"{purpose}.before_commit", connection)
    except BaseException:
        if not connection.closed:
            connection.rollback()
        raise
    try:
        connection.execute("COMMIT")
        failpoint(f"{purpose}.after_commit", connection)
    except psycopg.OperationalError:
        connection.close()
        if row is None or not _committed(database, str(row[0])):
            raise


def _committed(database: Database, xid: str) -> bool:
    deadline = time.monotonic() + _SETTLE_SECONDS
    while True:
        try:
            with database.connect("settle") as connection:
                row = connection.execute("SELECT pg_xact_status(%s::xid8)", (xid,)).fetchone()
        except Exception:
            if time.monotonic() > deadline:
                raise
        else:
            if row is None or row[0] != "in progress" or time.monotonic() > deadline:
                return row is not None and row[0] == "committed"
        time.sleep(_SETTLE_PAUSE)
