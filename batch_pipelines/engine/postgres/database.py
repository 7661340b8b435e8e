"""Connections to the target database, and the advisory locks that writers agree on.

Every connection pins what could change the meaning of a value (encoding, time zone, date style) and
carries timeouts, so that nothing waits for ever. Not here: the embedded server (`server`).
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import psycopg
from psycopg import conninfo

from batch_pipelines.engine.errors import SettingsError, UnavailableError
from batch_pipelines.engine.postgres.actor import Actor
from batch_pipelines.engine.postgres.server import OWNER, EmbeddedServer
from batch_pipelines.engine.roles.grants import EMBEDDED_LOGIN

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from batch_pipelines.engine.settings import Settings

DATA_DATABASE = "batch_pipelines"
DAGSTER_DATABASE = "dagster"
DAGSTER_SCHEMA = "batch_dagster"
OLDEST_SERVER = 150000

# Class ids of our two-key advisory locks: 'b','p' and a number, so that they meet nobody else's.
TABLE_LOCK_CLASS = 0x62700001
LEASE_LOCK_CLASS = 0x62700002
ADOPTION_LOCK_CLASS = 0x62700004
RETENTION_LOCK_CLASS = 0x62700006
ERASURE_LOCK_CLASS = 0x62700008

Connection = psycopg.Connection[tuple[Any, ...]]

_SESSION = """
SELECT set_config('client_encoding', 'UTF8', false),
       set_config('TimeZone', 'UTC', false),
       set_config('DateStyle', 'ISO, YMD', false),
       set_config('lock_timeout', %(lock_timeout)s, false),
       set_config('statement_timeout', %(statement_timeout)s, false),
       set_config('idle_in_transaction_session_timeout', %(idle_timeout)s, false),
       set_config('jit', 'off', false),
       set_config('batch_pipelines.principal', %(principal)s, false),
       set_config('batch_pipelines.session_context', %(context)s, false)
"""
# jit off: compiling a 20-column digest query costs more than it saves (see benchmarks/fixed_cost.py).

_SHORT_WAIT, _LONG_WAIT = "60s", "1h"
# No statement of ours should take longer, the COPY of a very large batch included.
_LONGEST_STATEMENT = "12h"
_PID = "SELECT pg_backend_pid()"
_PROBE = "SELECT set_config('batch_pipelines.session', 'here', false)"
_PROBED = "SELECT current_setting('batch_pipelines.session', true)"
_WAIT = "SELECT set_config('lock_timeout', %s, true)"
_LOCK_TABLE = {
    False: "SELECT pg_advisory_xact_lock_shared(%s, %s)",
    True: "SELECT pg_advisory_xact_lock(%s, %s)",
}


@dataclass(frozen=True)
class Database:
    """Where the target and the ledger are.

    Attributes:
        url: Connection string of libpq; a secret, so it does not appear in the repr.
        actor: Who acts over its connections; the audit trail names them.
    """

    url: str = field(repr=False)
    actor: Actor = field(default_factory=Actor.of_process)

    def connect(self, purpose: str, *, lock_timeout: str = _SHORT_WAIT) -> Connection:
        """Open a connection in autocommit mode, its session settings pinned.

        Args:
            purpose: What it is for; shown in pg_stat_activity.
            lock_timeout: How long a statement waits for a lock, in PostgreSQL's notation.

        Returns:
            The connection.

        Raises:
            SettingsError: The server is older than PostgreSQL 15.
            UnavailableError: It does not let us in.
        """
        try:
            connection = psycopg.connect(
                self.url,
                autocommit=True,
                connect_timeout=10,
                application_name=f"batch-pipelines {purpose}"[:63],
            )
        except psycopg.OperationalError as error:
            where = _without_password(self.url)
            state = f" (SQLSTATE {error.sqlstate})" if error.sqlstate else ""
            message = (
                f"The database {where} does not let us in{state}. Check that it runs, that "
                "BATCH_PIPELINES_DATABASE_URL is right, and that the role may connect."
            )
            raise UnavailableError(message) from None
        if connection.info.server_version < OLDEST_SERVER:
            version = connection.info.server_version // 10000
            connection.close()
            message = f"The database is PostgreSQL {version}; PostgreSQL 15 or newer is needed."
            raise SettingsError(message)
        session = {
            "lock_timeout": lock_timeout,
            "statement_timeout": _LONGEST_STATEMENT,
            "idle_timeout": "10min",
            "principal": self.actor.principal_id or "",
            "context": json.dumps(dict(self.actor.session)),
        }
        connection.execute(_SESSION, session)
        return connection


@contextmanager
def open_database(settings: Settings) -> Iterator[Database]:
    """Make the database available to the pipelines for as long as the block lasts.

    Args:
        settings: The settings; without a database URL the embedded server is started and, at the
            end, stopped again unless somebody else uses it.

    Yields:
        The database; on the embedded server as its writer logs in.

    Raises:
        ServerError: The embedded server cannot be started.
    """
    with _opened(settings, EMBEDDED_LOGIN) as database:
        yield database


@contextmanager
def open_as_owner(settings: Settings) -> Iterator[Database]:
    """Make the database available to who changes the ledger's schema, or tables of feeds.

    Args:
        settings: As of `open_database`.

    Yields:
        The database; on the embedded server as its owner logs in. Of another the settings say who does.

    Raises:
        ServerError: The embedded server cannot be started.
    """
    with _opened(settings, OWNER) as database:
        yield database


@contextmanager
def _opened(settings: Settings, user: str) -> Iterator[Database]:
    if settings.database_url is not None:
        yield Database(settings.database_url.get_secret_value())
        return
    server = embedded_server(settings)
    with server.use():
        yield Database(server.url(DATA_DATABASE, user))


def embedded_server(settings: Settings) -> EmbeddedServer:
    """Describe the embedded server of these settings, without touching it.

    Args:
        settings: The settings; only `home` matters.

    Returns:
        The server, with one database for data and ledger and one for Dagster, and the pipelines' login.
    """
    return EmbeddedServer(
        home=settings.home,
        databases=(DATA_DATABASE, DAGSTER_DATABASE),
        logins=(EMBEDDED_LOGIN,),
    )


def dagster_url(settings: Settings) -> str:
    """Say where Dagster keeps its own storage.

    Args:
        settings: The settings.

    Returns:
        A URL for SQLAlchemy: the one set; or, with a database URL set, a schema of its own in that
        database; or a database of its own on the embedded server.
    """
    if settings.dagster_url is not None:
        parts = conninfo.conninfo_to_dict(settings.dagster_url.get_secret_value())
    elif settings.database_url is not None:
        parts = conninfo.conninfo_to_dict(settings.database_url.get_secret_value())
        own = f"-csearch_path={DAGSTER_SCHEMA}"
        parts["options"] = f"{parts['options']} {own}" if parts.get("options") else own
    else:
        parts = conninfo.conninfo_to_dict(
            embedded_server(settings).url(DAGSTER_DATABASE, EMBEDDED_LOGIN)
        )
    database = quote(str(parts.pop("dbname", "")), safe="")
    # The driver is named because SQLAlchemy 2.1 takes a bare postgresql:// to mean psycopg 3, with
    # which dagster-postgres fails; the rest is a query, in which several hosts have room too.
    return f"postgresql+psycopg2:///{database}?{urlencode(parts, quote_via=quote)}"


def lock_tables(connection: Connection, table_oids: Sequence[int], *, exclusive: bool) -> None:
    """Take the transaction locks under which all writers meet, in OID order against deadlocks.

    Args:
        connection: A connection inside a transaction.
        table_oids: OIDs of the target tables.
        exclusive: True for whoever changes rows of others (supersede), False for plain inserts.
    """
    # Whoever supersedes waits for loads that may be long; a statement inside publish does not.
    connection.execute(_WAIT, (_LONG_WAIT,))
    for oid in sorted(table_oids):
        # An OID is unsigned and the lock's second key a signed integer.
        key = oid - (1 << 32) if oid >= 1 << 31 else oid
        connection.execute(_LOCK_TABLE[exclusive], (TABLE_LOCK_CLASS, key))
    connection.execute(_WAIT, (_SHORT_WAIT,))


def require_sessions(connection: Connection, other: Connection) -> None:
    """Refuse a pooler that hands each transaction another session: locks and settings get lost there.

    Where a pooler stands in between, the process id that it gave the client is not the server's.
    While one connection holds a transaction open, the other one's session has to be its own still.

    Args:
        connection: A connection in autocommit mode.
        other: Another one.

    Raises:
        SettingsError: The connection goes through such a pooler.
    """
    if connection.execute(_PID).fetchone() == (connection.info.backend_pid,):
        return
    connection.execute(_PROBE)
    with other.transaction():
        other.execute(_PID)
        row = connection.execute(_PROBED).fetchone()
    if row != ("here",):
        message = (
            "The database is behind a pooler in transaction mode, in which leases and locks do not "
            "hold. Use its session mode, or connect to PostgreSQL itself."
        )
        raise SettingsError(message)


def _without_password(url: str) -> str:
    try:
        parts = conninfo.conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        return "(whose URL cannot be parsed)"
    host, name = parts.get("host", "localhost"), parts.get("dbname", "")
    return f"{name} on {host}"
