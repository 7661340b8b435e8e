"""Connecting to the database that a feed's query reads: one read-only snapshot, nothing written.

What goes wrong there is told without the driver's text, which may repeat a row's values or the URL.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy import exc

from batch_pipelines.engine.errors import DeliveryError, SettingsError, UnreachableError
from batch_pipelines.engine.settings import read_secret

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batch_pipelines.engine.queries import Query

Result = sa.CursorResult[*tuple[Any, ...]]
_POSTGRESQL, _SQLITE = "postgresql", "sqlite"
# What PostgreSQL writes as text must not depend on settings of the role or database.
_SESSION = """
SELECT set_config('TimeZone', 'UTC', true), set_config('DateStyle', 'ISO, YMD', true),
       set_config('IntervalStyle', 'postgres', true), set_config('extra_float_digits', '3', true),
       set_config('bytea_output', 'hex', true), set_config('lock_timeout', '60s', true),
       set_config('statement_timeout', '12h', true),
       set_config('idle_in_transaction_session_timeout', '10min', true)
"""
_LIBPQ: Final = {
    "connect_timeout": 10, "application_name": "batch-pipelines query", "client_encoding": "UTF8",
}  # fmt: skip


@dataclass(frozen=True)
class Snapshot:
    """A connection on which every statement sees the same rows, where the database can do that.

    Attributes:
        connection: The connection, in a transaction.
        name: Name of the variable that holds the database's URL, for messages.
        isolation: The transaction's isolation level.
    """

    connection: sa.Connection
    name: str
    isolation: str

    @property
    def is_postgresql(self) -> bool:
        """Whether it writes every type as text that reads back as the same value."""
        return self.connection.dialect.name == _POSTGRESQL

    @property
    def server(self) -> str:
        """Kind and version of the database."""
        version = self.connection.dialect.server_version_info or ()
        return " ".join([self.connection.dialect.name, ".".join(map(str, version))])

    def execute(self, statement: sa.Executable, what: str, **values: object) -> Result:
        """Execute a statement; its rows are streamed.

        Args:
            statement: The statement.
            what: What it is, for messages.
            values: Values of its parameters.

        Returns:
            The result.

        Raises:
            DeliveryError: The database refuses it.
        """
        with self.told(what):
            return self.connection.execute(
                statement, values, execution_options={"stream_results": True}
            )

    @contextmanager
    def told(self, what: str) -> Iterator[None]:
        """Say what went wrong without the driver's text.

        Args:
            what: What the database is asked.

        Yields:
            Nothing.

        Raises:
            DeliveryError: The database refuses it, or the driver cannot take what it answers.
            UnreachableError: The connection is lost.
        """
        try:
            yield
        except exc.DBAPIError as error:
            if error.connection_invalidated:
                message = (
                    f"The connection to the database of {self.name} was lost; nothing of it was kept. "
                    "Run again."
                )
                raise UnreachableError(message) from None
            message = (
                f"The database of {self.name} refused {what}{_state(error)}. "
                "Try the statement there, and correct the feed."
            )
            raise DeliveryError(message) from None
        except (exc.SQLAlchemyError, ValueError, OverflowError) as error:
            message = (
                f"What the database of {self.name} answers to {what} cannot be taken "
                f"({type(error).__name__}). Cast the column in question to text in the SELECT."
            )
            raise DeliveryError(message) from None


@contextmanager
def open_snapshot(query: Query) -> Iterator[Snapshot]:
    """Connect to a query's database for the length of a block.

    Args:
        query: The query; its variable holds the URL.

    Yields:
        A transaction that only reads and is rolled back.

    Raises:
        SettingsError: The variable is not set, its URL cannot be used, or the driver is missing.
        UnreachableError: The database does not let us in.
    """
    engine = _engine(query)
    try:
        with _connection(engine, query) as connection:
            isolation = _begin(connection)
            yield Snapshot(connection, query.url_variable, isolation)
    finally:
        engine.dispose()


def _engine(query: Query) -> sa.Engine:
    name, secret = query.url_variable, read_secret(query.url_variable)
    if secret is None:
        message = f"{name} is not set; put the URL of the database to read into it."
        raise SettingsError(message)
    try:
        url = sa.make_url(secret.get_secret_value())
        is_libpq = url.get_backend_name() == _POSTGRESQL and "psycopg" in url.get_driver_name()
        # NullPool: one connection, which ends with its block.
        engine = sa.create_engine(
            url,
            poolclass=sa.NullPool,
            hide_parameters=True,
            connect_args=_LIBPQ if is_libpq else {},
        )
    # Also what a URL's query says that the dialect cannot read; the message would repeat it.
    except (exc.ArgumentError, ImportError, TypeError, ValueError) as error:
        why = "its driver is not installed" if isinstance(error, ImportError) else "no such kind"
        if isinstance(error, exc.ArgumentError) and not isinstance(error, exc.NoSuchModuleError):
            why = "not of the form dialect://user:password@host/database"
        message = f"The URL in {name} cannot be used by SQLAlchemy: {why}."
        raise SettingsError(message) from None
    file = url.database or ""
    is_file = url.get_backend_name() == _SQLITE and file and not file.startswith((":", "file:"))
    if is_file and not Path(file).is_file():
        # SQLite would make an empty one.
        message = (
            f"There is no SQLite file where {name} says. Correct the URL; a path begins with /."
        )
        raise UnreachableError(message)
    return engine


@contextmanager
def _connection(engine: sa.Engine, query: Query) -> Iterator[sa.Connection]:
    try:
        connection = engine.connect()
    except (exc.SQLAlchemyError, ValueError, TypeError, OSError) as error:
        message = (
            f"The database of {query.url_variable} does not let us in{_state(error)}. Check that it "
            "runs, that the URL is right, and that the role may connect."
        )
        raise UnreachableError(message) from None
    with connection:
        yield connection


def _begin(connection: sa.Connection) -> str:
    """Begin a transaction whose statements see the same rows; give its isolation level."""
    dialect = connection.dialect
    if dialect.name == _SQLITE:
        # Its driver begins none for a SELECT.
        connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.exec_driver_sql("PRAGMA query_only = ON")
        connection.exec_driver_sql("BEGIN")
        return "SERIALIZABLE"
    driver = connection.connection.dbapi_connection
    levels = {*dialect.get_isolation_level_values(driver)} if driver is not None else set()
    level = "REPEATABLE READ" if "REPEATABLE READ" in levels else "SERIALIZABLE"
    if level in levels:
        connection.execution_options(isolation_level=level)
    if dialect.name == _POSTGRESQL:
        connection.execution_options(postgresql_readonly=True)
        connection.exec_driver_sql(_SESSION)
    return level if level in levels else "as the database has it"


def _state(error: Exception) -> str:
    state = getattr(getattr(error, "orig", None), "sqlstate", None)
    return f" (SQLSTATE {state})" if state else ""
