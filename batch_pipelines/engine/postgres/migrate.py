"""Bringing the ledger's schema up and down (Alembic), and creating the tables of feeds that ship SQL."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from batch_pipelines.engine.errors import FeedError, SettingsError
from batch_pipelines.engine.roles.settle import (
    FIRST_REVISION,
    ensure_roles,
    is_settled,
    leave,
    settle,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    import sqlalchemy

    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.postgres.database import Connection, Database

_VERSION = "SELECT version_num FROM batch_audit.alembic_version"
# One upgrade at a time: 'b', 'p' and a number no other advisory lock of ours has.
_LOCK = "SELECT pg_advisory_lock(%s)"
_LOCK_KEY = 0x62700003
_NO_SCHEMA = "SELECT to_regnamespace('batch_audit') IS NULL"
_CREATE_SCHEMA = "CREATE SCHEMA IF NOT EXISTS batch_audit"
_DROP_SCHEMA = "DROP TABLE IF EXISTS batch_audit.alembic_version; DROP SCHEMA batch_audit"


@dataclass(frozen=True)
class LedgerStatus:
    """Where the ledger's schema stands.

    Attributes:
        current: Revision in the database, None where there is no ledger.
        head: Newest revision that this program knows.
        pending: Revisions that `upgrade` would apply, oldest first.
    """

    current: str | None
    head: str
    pending: tuple[str, ...]


def revisions() -> tuple[str, ...]:
    """List the revisions this program ships, oldest first, without loading Alembic.

    Returns:
        The number each file name in `migrations/versions` begins with, which is its revision.
    """
    folder = _migrations() / "versions"
    return tuple(sorted(path.name.split("_")[0] for path in folder.glob("[0-9]*_*.py")))


def status(connection: Connection) -> LedgerStatus:
    """Compare the ledger's schema with this program.

    Args:
        connection: A connection to the target database, in autocommit mode.

    Returns:
        Current, newest and pending revisions.

    Raises:
        SettingsError: Who is logged in may not see it.
    """
    known = revisions()
    try:
        row = connection.execute(_VERSION).fetchone()
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        row = None
    except psycopg.errors.InsufficientPrivilege:
        message = (
            f"There is a ledger that the user {connection.info.user} may not read. Run "
            "`batch-pipelines db upgrade` as its owner, and give the user a role of docs/roles.md."
        )
        raise SettingsError(message) from None
    current = str(row[0]) if row else None
    pending = known[known.index(current) + 1 :] if current in known else known
    return LedgerStatus(current, known[-1], () if current and current not in known else pending)


def require_current(connection: Connection) -> None:
    """Refuse to work on a ledger of another version.

    Args:
        connection: A connection to the target database, in autocommit mode.

    Raises:
        SettingsError: The ledger is missing, older or newer than this program.
    """
    found = _known_status(connection)
    if found.current != found.head:
        message = (
            f"The ledger is at revision {found.current or 'none'}, {found.head} is needed. "
            "Run `batch-pipelines db upgrade`."
        )
        raise SettingsError(message)


def upgrade(database: Database, revision: str = "head") -> LedgerStatus:
    """Apply pending migrations and give each role its rights; two at once wait for each other.

    Args:
        database: The target database.
        revision: Where to stop.

    Returns:
        The status afterwards.

    Raises:
        SettingsError: There is no such revision, the ledger is newer than this program, PostgreSQL
            refuses a migration, or an administrator has to make the roles.
    """
    check_revision(revision)
    with database.connect("upgrade") as connection:
        found = _known_status(connection)
        if found.current == found.head and is_settled(connection):
            return found
        connection.execute(_LOCK, (_LOCK_KEY,))
        with_roles = revision == "head" or revision >= FIRST_REVISION
        if with_roles:
            ensure_roles(connection)
        missing = connection.execute(_NO_SCHEMA).fetchone()
        # Looked up first: IF NOT EXISTS asks for the right to create even where nothing is created.
        if missing is not None and missing[0]:
            connection.execute(_CREATE_SCHEMA)
        if found.current != found.head:
            _alembic(database, "upgrade", revision)
        if with_roles:
            settle(connection)
        return status(connection)


def downgrade(database: Database, revision: str) -> LedgerStatus:
    """Take migrations back, with what their tables hold.

    Args:
        database: The target database.
        revision: Where to stop; `base` removes the whole ledger.

    Returns:
        The status afterwards.

    Raises:
        SettingsError: There is no such revision, it is newer than the current one, the ledger is
            newer than this program, or PostgreSQL refuses (something of others depends on the
            ledger).
    """
    check_revision(revision)
    with database.connect("downgrade") as connection:
        connection.execute(_LOCK, (_LOCK_KEY,))
        current = _known_status(connection).current
        if current is None or (revision != "base" and revision > current):
            message = f"The ledger is at revision {current or 'none'}: nothing to take back."
            raise SettingsError(message)
        if revision == "base" or revision < FIRST_REVISION:
            leave(connection)
        _alembic(database, "downgrade", revision)
        if revision == "base":
            connection.execute(_DROP_SCHEMA)
        return status(connection)


def create_tables(connection: Connection, feeds: Iterable[Feed], folder: Path) -> tuple[str, ...]:
    """Run the `ddl:` of every feed any of whose tables is missing.

    One that refers to a table which is not there yet waits for those of the other feeds.

    Args:
        connection: A connection to the target database, in autocommit mode.
        feeds: The feeds.
        folder: The folder of the feed files, where relative `ddl:` paths start.

    Returns:
        Names of the feeds whose SQL was run.

    Raises:
        FeedError: A `ddl:` file is missing or PostgreSQL refuses it.
    """
    done: list[str] = []
    waiting = [
        feed
        for feed in feeds
        if feed.ddl is not None
        and not all(_exists(connection, t.schema_name, t.name) for t in feed.tables)
    ]
    while waiting:
        later, refusal = [], None
        for feed in waiting:
            path = folder / str(feed.ddl)
            try:
                with connection.transaction():
                    connection.execute(path.read_bytes())
                done.append(feed.feed)
            except OSError as error:
                message = f"{path}: `ddl` of feed {feed.feed} cannot be read ({error.strerror})."
                raise FeedError(message) from None
            except psycopg.Error as error:
                primary = error.diag.message_primary
                message = f"{path}: PostgreSQL refuses it (SQLSTATE {error.sqlstate}): {primary}."
                if not isinstance(error, psycopg.errors.UndefinedTable):
                    raise FeedError(message) from None
                later.append(feed)
                refusal = refusal or FeedError(message)
        if refusal is not None and len(later) == len(waiting):
            raise refusal
        waiting = later
    return tuple(done)


def _exists(connection: Connection, schema: str, name: str) -> bool:
    sql = "SELECT to_regclass(format('%%I.%%I', %s::text, %s::text)) IS NOT NULL"
    row = connection.execute(sql, (schema, name)).fetchone()
    return bool(row and row[0])


def _known_status(connection: Connection) -> LedgerStatus:
    found = status(connection)
    if found.current is not None and found.current not in revisions():
        message = (
            f"The ledger is at revision {found.current}, which this program ({found.head}) does "
            "not know. Use the version of batch-pipelines that made it, or a newer one."
        )
        raise SettingsError(message)
    return found


def check_revision(revision: str) -> None:
    """Refuse a revision that does not exist.

    Args:
        revision: A revision, `head` or `base`.

    Raises:
        SettingsError: There is none of that name.
    """
    if revision not in {"head", "base", *revisions()}:
        message = f"There is no revision {revision}; there are {', '.join(revisions())}."
        raise SettingsError(message)


def _migrations() -> Path:
    # Found by path and not imported: its env.py runs only inside Alembic.
    return Path(__file__).resolve().parents[3] / "migrations"


def _alembic(database: Database, direction: str, revision: str) -> None:
    # Alembic and SQLAlchemy take a quarter of a second to import, which only migrations need.
    import alembic.command  # noqa: PLC0415
    import alembic.config  # noqa: PLC0415
    import sqlalchemy  # noqa: PLC0415

    config = alembic.config.Config()
    config.set_main_option("script_location", str(_migrations()).replace("%", "%%"))
    engine: sqlalchemy.Engine = sqlalchemy.create_engine(
        "postgresql+psycopg://",
        creator=lambda: psycopg.connect(database.url),
        poolclass=sqlalchemy.NullPool,
    )
    try:
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            getattr(alembic.command, direction)(config, revision)
    except sqlalchemy.exc.DBAPIError as error:
        if not isinstance(error.orig, psycopg.Error):
            raise
        diag = error.orig.diag
        # DDL of ours: the server's text and detail name objects and hold no row.
        said = "; ".join(filter(None, (diag.message_primary, diag.message_detail)))
        message = (
            f"PostgreSQL refused to {direction} the ledger (SQLSTATE {error.orig.sqlstate}): {said}. "
            "Nothing was changed."
        )
        raise SettingsError(message) from None
