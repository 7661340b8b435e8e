"""The Dagster instance: its folder, its configuration and its storage on PostgreSQL."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg

from batch_pipelines.engine.errors import SettingsError
from batch_pipelines.engine.feed_files import load_feeds
from batch_pipelines.engine.postgres.database import (
    DAGSTER_DATABASE,
    DAGSTER_SCHEMA,
    Database,
    dagster_url,
    embedded_server,
    open_as_owner,
    open_database,
)
from batch_pipelines.engine.postgres.migrate import create_tables, upgrade
from batch_pipelines.engine.roles.grants import EMBEDDED_LOGIN
from batch_pipelines.engine.roles.letting_in import give_database, let_in
from batch_pipelines.engine.roles.settle import open_schema
from batch_pipelines.run_tags import WRITES_TAG

if TYPE_CHECKING:
    from collections.abc import Iterator

    import dagster as dg

    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.settings import Settings

# The URL is a secret: dagster.yaml names this variable instead of holding it.
_STORAGE_VARIABLE = "BATCH_PIPELINES_DAGSTER_STORAGE"

_CONFIG = """\
# Written by batch-pipelines at each start; a change here is overwritten.
storage:
  postgres:
    postgres_url:
      env: {storage}
run_coordinator:
  module: batch_pipelines.run_queue
  class: FeedRunCoordinator
concurrency:
  runs:
    max_concurrent_runs: {runs_at_once}
    # Names no table, so that it holds for feeds that are not written yet.
    tag_concurrency_limits:
      - key: {writes}
        value:
          applyLimitPerUniqueValue: true
        limit: 1
sensors:
  # One that waits for a place or a channel that hangs holds no other up.
  use_threads: true
  num_workers: 4
run_monitoring:
  enabled: true
  free_slots_after_run_end_seconds: 30
telemetry:
  enabled: false
nux:
  enabled: false
"""


@dataclass(frozen=True)
class UpToDate:
    """What stands after a database was brought up to date.

    Attributes:
        revision: Of the ledger.
        created: Names of the feeds whose tables were made.
    """

    revision: str | None
    created: tuple[str, ...]


@contextmanager
def prepared(settings: Settings) -> Iterator[Database]:
    """Make database and Dagster's folder ready for as long as the block lasts.

    The embedded server is ours: its ledger and the tables of feeds that ship SQL are brought up to
    date. Somebody's own server is not touched but for Dagster's schema; `db upgrade` does the rest.

    Args:
        settings: The settings.

    Yields:
        The target database; meanwhile the environment tells Dagster where its folder is.

    Raises:
        ServerError: The embedded server cannot be started.
        SettingsError: The database cannot be reached.
    """
    with open_database(settings) as database:
        if settings.database_url is None:
            bring_up_to_date(settings)
        url = dagster_url(settings)
        if settings.database_url is not None and settings.dagster_url is None:
            with database.connect("prepare") as connection:
                _ensure_schema(connection)
        home = settings.dagster_home
        home.mkdir(parents=True, exist_ok=True)
        config = home / "dagster.yaml"
        wanted = _CONFIG.format(
            storage=_STORAGE_VARIABLE, runs_at_once=settings.runs_at_once, writes=WRITES_TAG
        )
        if not config.exists() or config.read_text(encoding="utf-8") != wanted:
            config.write_text(wanted, encoding="utf-8")
        os.environ["DAGSTER_HOME"] = str(home)
        os.environ[_STORAGE_VARIABLE] = url
        yield database


def bring_up_to_date(settings: Settings) -> UpToDate:
    """Migrate the ledger, make the tables of feeds that ship SQL, and let the pipelines in.

    On the embedded server its owner does it, whom the pipelines do not log in as; on another whoever
    the settings name.

    Args:
        settings: The settings.

    Returns:
        What was done.

    Raises:
        SettingsError: PostgreSQL refuses a migration, or an administrator has to make the roles.
        FeedError: It refuses the SQL of a feed.
    """
    feeds = load_feeds(settings.feeds)
    with open_as_owner(settings) as owner:
        ledger = upgrade(owner)
        with owner.connect("prepare") as connection:
            if settings.database_url is None:
                let_in(connection, EMBEDDED_LOGIN)
            elif settings.dagster_url is None:
                open_schema(connection, DAGSTER_SCHEMA)
            created = create_tables(connection, feeds.values(), settings.feeds)
        if settings.database_url is None:
            storage = Database(embedded_server(settings).url(DAGSTER_DATABASE))
            with storage.connect("prepare") as connection:
                give_database(connection, EMBEDDED_LOGIN)
    return UpToDate(ledger.current, created)


def _ensure_schema(connection: Connection) -> None:
    # Looked up first: IF NOT EXISTS asks for the right to create even where nothing is created.
    row = connection.execute("SELECT to_regnamespace(%s) IS NULL", (DAGSTER_SCHEMA,)).fetchone()
    if row is not None and row[0]:
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {DAGSTER_SCHEMA}")


def open_instance() -> dg.DagsterInstance:
    """Open the instance of `prepared`.

    Returns:
        The instance.

    Raises:
        SettingsError: Dagster's storage cannot be reached.
    """
    # A second and a half to import, which only running something needs.
    import dagster as dg  # noqa: PLC0415
    import dagster_postgres.utils  # noqa: PLC0415
    import sqlalchemy.exc  # noqa: PLC0415

    from resources.storage import hold_connections  # noqa: PLC0415

    try:
        instance = dg.DagsterInstance.get()
    except (
        sqlalchemy.exc.OperationalError,
        psycopg.OperationalError,
        dagster_postgres.utils.DagsterPostgresException,
    ):
        message = (
            "Dagster's storage does not let us in. Check that its database runs and that "
            "BATCH_PIPELINES_DAGSTER_URL is right."
        )
        raise SettingsError(message) from None
    hold_connections(instance)
    return instance
