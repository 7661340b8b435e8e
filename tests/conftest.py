"""What all tests share: real PostgreSQL servers, and a database of its own for each test.

One server a version lives as long as the session. A test gets a copy of a template database in which
the ledger has been migrated, which takes a twentieth of the time of migrating it again.
"""

from __future__ import annotations

import os
import shutil
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg
import pytest

from batch_pipelines.engine.postgres.database import Connection, Database
from batch_pipelines.engine.postgres.migrate import upgrade
from batch_pipelines.engine.postgres.server import EmbeddedServer
from batch_pipelines.engine.settings import Settings
from tests.debian_postgres import DebianServer, debian_binaries
from tests.support_shop import open_shop, opened

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support_shop import Shop

_TEMPLATE = "template_ledger"
# Durability is what the product is about, but not that of a test's own database.
_END_SESSIONS = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s"
_FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


@pytest.fixture(scope="session", autouse=True)
def _no_settings_from_outside() -> None:
    for name in Settings.model_fields:
        os.environ.pop(f"BATCH_PIPELINES_{name.upper()}", None)


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """The embedded PostgreSQL 18, for the length of the session."""
    server = EmbeddedServer(home=tmp_path_factory.mktemp("home"), settings=_FAST)
    with server.use():
        yield server
    shutil.rmtree(server.folder)


@pytest.fixture(scope="session")
def _server_urls(embedded: EmbeddedServer) -> Iterator[dict[str, str]]:
    """URL of the maintenance database of each server, by the name of its version."""
    urls = {"18": embedded.url("postgres")}
    binaries = debian_binaries("15")
    if binaries is None:
        yield urls
        return
    with DebianServer(binaries, _FAST) as url:
        yield urls | {"15": url}


@pytest.fixture(scope="session")
def _templates() -> set[str]:
    return set()


@pytest.fixture(params=["18", "15"])
def database(
    request: pytest.FixtureRequest, _server_urls: dict[str, str], _templates: set[str]
) -> Iterator[Database]:
    """A migrated database of its own, on PostgreSQL 18 and, where its binaries are found, on 15."""
    version: str = request.param
    if version not in _server_urls:
        pytest.skip(f"no binaries of PostgreSQL {version} on this machine")
    yield from _copy_of_template(_server_urls[version], version, _templates)


@pytest.fixture
def database18(_server_urls: dict[str, str], _templates: set[str]) -> Iterator[Database]:
    """A migrated database of its own, on the embedded PostgreSQL 18 alone."""
    yield from _copy_of_template(_server_urls["18"], "18", _templates)


@pytest.fixture
def db(database: Database) -> Iterator[Connection]:
    """A connection to `database`, in autocommit mode."""
    with database.connect("test") as connection:
        yield connection


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings whose folders are all below the test's own."""
    feeds = tmp_path / "feeds"
    feeds.mkdir()
    return Settings(home=tmp_path / "home", feeds=feeds)


@pytest.fixture(scope="session")
def _shop_template(embedded: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database with ledger, tables and Dagster's storage, which takes seconds to make."""
    folder = tmp_path_factory.mktemp("shop")
    open_shop(folder)
    with psycopg.connect(embedded.url("postgres"), autocommit=True) as connection:
        connection.execute("CREATE DATABASE template_shop")
        with opened(folder, embedded.url("template_shop")):
            pass
        # Nobody may be in a database that is copied; Dagster leaves when it is garbage-collected.
        connection.execute(_END_SESSIONS, ("template_shop",))
    return "template_shop"


@pytest.fixture
def shop(embedded: EmbeddedServer, _shop_template: str, tmp_path: Path) -> Iterator[Shop]:
    """The shop with a database of its own, open."""
    open_shop(tmp_path)
    with (
        fresh_database(embedded, template=_shop_template) as url,
        opened(tmp_path, url) as shop,
    ):
        yield shop


@contextmanager
def fresh_database(embedded: EmbeddedServer, template: str = "template1") -> Iterator[str]:
    """Make a database for the length of a block."""
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(embedded.url("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield embedded.url(name)
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _copy_of_template(server: str, version: str, templates: set[str]) -> Iterator[Database]:
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(server, autocommit=True) as connection:
        if version not in templates:
            connection.execute(f"CREATE DATABASE {_TEMPLATE}")
            upgrade(Database(_at(server, _TEMPLATE)))
            templates.add(version)
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE}")
        try:
            yield Database(_at(server, name))
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _at(server: str, name: str) -> str:
    return psycopg.conninfo.make_conninfo(server, dbname=name)
