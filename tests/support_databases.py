"""Databases that last as long as a test, on a server of ours or on one that somebody has given us.

All their names begin with `batch_pipelines_test_` and the run's own number. On a given server a session
of that name is open while the run lives, so that a later run can tell what a killed one has left.
"""

from __future__ import annotations

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

RUN = f"batch_pipelines_test_{uuid.uuid4().hex[:12]}"
# Nobody else's sessions: autovacuum leaves by itself, and ending it takes rights.
_END_SESSIONS = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE datname = %s AND usename = current_user
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
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
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


def _url(server: str, name: str) -> str:
    parts = conninfo_to_dict(server)
    parts.pop("dbname", None)
    user = f"{quote(str(parts.pop('user')), safe='')}@" if "user" in parts else ""
    return f"postgresql://{user}/{name}?{urlencode(parts, quote_via=quote)}"


def _drop_left(connection: psycopg.Connection) -> None:
    for (name,) in connection.execute(_LEFT).fetchall():
        _drop(connection, name)


def _drop(connection: psycopg.Connection, name: str) -> None:
    # Not WITH (FORCE), which fails for an ordinary role while autovacuum is in there.
    connection.execute(_END_SESSIONS, (name,))
    connection.execute(f"DROP DATABASE IF EXISTS {name}")
