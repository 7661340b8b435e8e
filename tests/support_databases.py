"""Databases that last as long as a test, on a server of ours or on one that somebody has given us.

All their names begin with `batch_pipelines_test_` and the run's own number. On a given server a session
of that name is open while the run lives, so that a later run can tell what a killed one has left.
"""

from __future__ import annotations

import os
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

import psycopg
from psycopg.conninfo import conninfo_to_dict

from batch_pipelines.engine.errors import SettingsError
from batch_pipelines.engine.postgres.database import Database

if TYPE_CHECKING:
    from collections.abc import Iterator

# Where files are in memory, to copy them takes half of what it takes to log each of their pages.
_STRATEGY = "WAL_LOG" if "BATCH_PIPELINES_DATABASE_URL" in os.environ else "FILE_COPY"
RUN = f"batch_pipelines_test_{uuid.uuid4().hex[:12]}"
# Read before it is taken away from the code under test.
IS_GIVEN = "BATCH_PIPELINES_DATABASE_URL" in os.environ
WRITER = "batch_pipelines_test_writer"
VIEWER = "batch_pipelines_test_viewer"
_MAKE_USERS = f"""
DO $$ BEGIN CREATE ROLE {WRITER} LOGIN IN ROLE batch_writer;
EXCEPTION WHEN duplicate_object THEN NULL; END $$;
DO $$ BEGIN CREATE ROLE {VIEWER} LOGIN IN ROLE batch_auditor, batch_values;
EXCEPTION WHEN duplicate_object THEN NULL; END $$
"""
# What docs/roles.md has a site grant on the tables of its feeds.
_LET_WRITER_IN = f"""
ALTER DEFAULT PRIVILEGES GRANT USAGE ON SCHEMAS TO {WRITER};
ALTER DEFAULT PRIVILEGES GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {WRITER};
ALTER DEFAULT PRIVILEGES GRANT USAGE ON SEQUENCES TO {WRITER}
"""
# Nobody else's sessions: autovacuum leaves by itself, and ending it takes rights.
_END_SESSIONS = f"""
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE datname = %s AND usename IN (current_user, '{WRITER}', '{VIEWER}')
"""
_MAY_CREATE = """
SELECT current_user, rolsuper OR rolcreatedb AND rolcreaterole FROM pg_roles
WHERE rolname = current_user
"""
# The first 33 characters are the name of a run, as in RUN.
_LEFT = """
SELECT datname FROM pg_database d
WHERE datname ~ '^batch_pipelines_test_[0-9a-f]{12}_' AND datname <> current_database()
    AND pg_get_userbyid(datdba) = current_user
    AND NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = left(d.datname, 33))
"""


def require_createdb(url: str) -> None:
    """Refuse a server where tests cannot have databases of their own.

    Args:
        url: A database of the server.

    Raises:
        SettingsError: It does not answer, is too old, or its role may not create databases or roles.
    """
    with Database(url).connect("tests") as connection:
        ((role, may_create),) = connection.execute(_MAY_CREATE).fetchall()
    if not may_create:
        raise SettingsError(
            "BATCH_PIPELINES_DATABASE_URL is set, so the tests create databases and roles of their own "
            f"on that server, for which its role {role} needs CREATEDB and CREATEROLE; found that it "
            f'lacks one. Let an administrator type `ALTER ROLE "{role}" CREATEDB CREATEROLE`, or '
            "unset the variable."
        )


@contextmanager
def occupied(url: str) -> Iterator[None]:
    """Use a server that is not ours for the length of a block, and leave no database behind.

    Args:
        url: A database of the server; nothing in it is touched.

    Yields:
        Nothing; what killed runs of the same role have left is gone.
    """
    with psycopg.connect(url, autocommit=True, application_name=RUN) as connection:
        connection.execute("SET idle_session_timeout = 0")
        _drop_left(connection)
        try:
            yield
        finally:
            connection.execute("SET application_name = 'batch-pipelines tests'")
            _drop_left(connection)


def let_writer_in(url: str) -> None:
    """Have a user who is a writer and no more, with rights on all tables made from now on, and a viewer.

    On a server that was given nobody may log in whom its administrator does not know.

    Args:
        url: A database with a ledger; copies of it let the users in as well.
    """
    if IS_GIVEN:
        return
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_MAKE_USERS)
        connection.execute(_LET_WRITER_IN)


def as_writer(url: str) -> str:
    """Say how that user connects.

    Args:
        url: A database that lets it in; on a server that was given, the answer.
    """
    if IS_GIVEN:
        return url
    return _url(url, str(conninfo_to_dict(url)["dbname"]), user=WRITER)


def as_viewer(url: str) -> str:
    """Say how a user connects who reads the ledger, and may see values of rows.

    Args:
        url: A database that lets it in; on a server that was given, the answer.
    """
    if IS_GIVEN:
        return url
    return _url(url, str(conninfo_to_dict(url)["dbname"]), user=VIEWER)


@contextmanager
def fresh(server: str, template: str = "template1") -> Iterator[str]:
    """Make a database for the length of a block.

    Args:
        server: URL of another database of the server.
        template: What it is a copy of.

    Yields:
        Its URL.
    """
    name = f"{RUN}_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY {_STRATEGY}")
        try:
            yield _url(server, name)
        finally:
            _drop(connection, name)


@contextmanager
def make_template(server: str, purpose: str) -> Iterator[tuple[str, str]]:
    """Make a database that lasts as long as the run, and fill it within the block.

    Args:
        server: URL of another database of the server.
        purpose: A word for its name.

    Yields:
        Its name and its URL.
    """
    name = f"{RUN}_{purpose}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield name, _url(server, name)
        # Nobody may be in a database that is copied; Dagster leaves when it is garbage-collected.
        connection.execute(_END_SESSIONS, (name,))


def _url(server: str, name: str, *, user: str | None = None) -> str:
    parts = conninfo_to_dict(server)
    parts.pop("dbname", None)
    if user is not None:
        parts["user"] = user
    user = f"{quote(str(parts.pop('user')), safe='')}@" if "user" in parts else ""
    return f"postgresql://{user}/{name}?{urlencode(parts, quote_via=quote)}"


def _drop_left(connection: psycopg.Connection) -> None:
    for (name,) in connection.execute(_LEFT).fetchall():
        _drop(connection, name)


def _drop(connection: psycopg.Connection, name: str) -> None:
    # Not WITH (FORCE), which fails for an ordinary role while autovacuum is in there.
    connection.execute(_END_SESSIONS, (name,))
    connection.execute(f"DROP DATABASE IF EXISTS {name}")
