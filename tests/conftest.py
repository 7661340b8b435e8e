"""What all tests share: real PostgreSQL servers, and a database of its own for each test.

With BATCH_PIPELINES_DATABASE_URL the server is that one; otherwise there are two, of both ends of what
is supported, which live as long as the session. A test gets a copy of a template database in which the
ledger has been migrated, which takes a twentieth of the time of migrating it again.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import hypothesis
import psycopg
import pytest

from batch_pipelines.engine.errors import SettingsError
from batch_pipelines.engine.postgres.database import Connection, Database
from batch_pipelines.engine.postgres.migrate import upgrade
from batch_pipelines.engine.settings import Settings, load_settings
from tests import support_databases as databases
from tests.debian_postgres import DebianServer, debian_binaries
from tests.support_memory import RoomyServer, roomy_folder, server_folder
from tests.support_s3 import opened_store, running_server
from tests.support_shop import migrate, open_shop, opened

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from batch_pipelines.engine.postgres.server import EmbeddedServer
    from tests.support_s3 import Server, Store
    from tests.support_shop import Shop

# How long an example takes says how busy the machine is, and nothing of what is tested.
hypothesis.settings.register_profile(
    "untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("untimed")

# Read before `_no_settings_from_outside` takes it away from the code under test.
_GIVEN = os.environ.get("BATCH_PIPELINES_DATABASE_URL")
_OLDEST = "15"  # of the versions that are supported
_FAST = {
    # Durability is what the product is about, but not that of a test's own database.
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_wal_size": "256MB",  # it takes memory: see `roomy_folder`
}


class _Servers(dict[str, str]):
    """URL of a database of each server, by the name of its version; a test of another is skipped."""

    def __missing__(self, version: str) -> str:
        if _GIVEN:
            (found,) = self
            pytest.skip(
                f"for PostgreSQL {version}; that of BATCH_PIPELINES_DATABASE_URL is {found}"
            )
        pytest.skip(f"no binaries of PostgreSQL {version} on this machine")


def pytest_configure() -> None:
    """Let the tests' own folders be where there is room, unless somebody has chosen a place."""
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(roomy_folder()))


@pytest.hookimpl(tryfirst=True)  # what is marked here is to be left out where it is not wanted
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave most tests on PostgreSQL 15 to `make soak`; begin with those that are long.

    With a long one last, a worker would be left with it when the others are done.
    """
    for item in items:
        if _is_on_oldest(item) and item.get_closest_marker("versions") is None:
            item.add_marker("soak")
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


def pytest_sessionstart() -> None:
    """Stop before the first test if the server given cannot be used."""
    if not _GIVEN:
        return
    try:
        load_settings()
        databases.require_createdb(_GIVEN)
    except SettingsError as error:
        raise pytest.UsageError(str(error)) from None


@pytest.fixture(scope="session", autouse=True)
def _no_settings_from_outside() -> None:
    for name in Settings.model_fields:
        os.environ.pop(f"BATCH_PIPELINES_{name.upper()}", None)


@pytest.fixture(scope="session")
def embedded() -> Iterator[EmbeddedServer]:
    """The embedded PostgreSQL 18, for the length of the session."""
    with server_folder() as folder:
        server = RoomyServer(home=folder, settings=_FAST)
        with server.use():
            yield server


@pytest.fixture(scope="session")
def _server_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of a database of the first server: the one given, or else the embedded one."""
    if not _GIVEN:
        embedded: EmbeddedServer = request.getfixturevalue("embedded")
        yield embedded.url("postgres")
        return
    with databases.occupied(_GIVEN):
        yield _GIVEN


@pytest.fixture(scope="session")
def _server_urls(_server_url: str) -> Iterator[_Servers]:
    binaries = debian_binaries(_OLDEST)
    if _GIVEN:
        with psycopg.connect(_GIVEN) as connection:
            version = connection.info.server_version // 10000
        # What holds on 18 shall hold on its successors.
        yield _Servers({str(min(version, 18)): _GIVEN})
    elif binaries is None:
        yield _Servers({"18": _server_url})
    else:
        with DebianServer(binaries, _FAST) as url:
            yield _Servers({"18": _server_url, _OLDEST: url})


@pytest.fixture(scope="session")
def _templates() -> set[str]:
    return set()


@pytest.fixture(params=["given"] if _GIVEN else ["18", _OLDEST])
def database(
    request: pytest.FixtureRequest, _server_urls: _Servers, _templates: set[str]
) -> Iterator[Database]:
    """A migrated database of its own: on PostgreSQL 18 and, where found, on 15; or as given.

    On 15 among the others only if the test is marked `versions`, else under `make soak`.
    """
    version = next(iter(_server_urls)) if _GIVEN else request.param
    yield from _copy_of_template(_server_urls[version], version, _templates)


@pytest.fixture
def database18(_server_urls: _Servers, _templates: set[str]) -> Iterator[Database]:
    """A migrated database of its own, on PostgreSQL 18 alone."""
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
def _shop_template(_server_url: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database with ledger, tables and Dagster's storage, which takes seconds to make."""
    folder = tmp_path_factory.mktemp("shop")
    open_shop(folder)
    with databases.make_template(_server_url, "shop") as (name, url):
        migrate(folder, url)
        with opened(folder, url, databases.as_writer(url)):
            return name


@pytest.fixture
def shop(
    request: pytest.FixtureRequest, _server_url: str, _shop_template: str, tmp_path: Path
) -> Iterator[Shop]:
    """The shop with a database of its own, open."""
    open_shop(tmp_path)
    with (
        databases.fresh(_server_url, _shop_template) as url,
        opened(tmp_path, url, as_pipelines(request, url)) as shop,
    ):
        yield shop


@pytest.fixture(scope="session")
def _s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("s3") / "log") as server:
        yield server


@pytest.fixture
def store(_s3: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Store]:
    """A bucket of its own on a local S3 server, to which the environment leads."""
    with opened_store(_s3, monkeypatch, tmp_path) as store:
        yield store


def as_pipelines(request: pytest.FixtureRequest, url: str) -> str:
    """Say how the pipelines of a test log in: as a writer, or as the ledger's owner if it is marked so.

    Args:
        request: The request of a fixture of the test.
        url: The database, as its owner logs in.
    """
    marked = request.node.get_closest_marker("owner") is not None
    return url if marked else databases.as_writer(url)


@contextmanager
def fresh_database(embedded: EmbeddedServer) -> Iterator[str]:
    """Make an empty database on the embedded server for the length of a block."""
    with databases.fresh(embedded.url("postgres")) as url:
        yield url


def _is_on_oldest(item: pytest.Item) -> bool:
    called = getattr(item, "callspec", None)
    return called is not None and called.params.get("database") == _OLDEST


def _copy_of_template(server: str, version: str, templates: set[str]) -> Iterator[Database]:
    if version not in templates:
        with databases.make_template(server, "ledger") as (_, url):
            upgrade(Database(url))
            databases.let_writer_in(url)
        templates.add(version)
    with databases.fresh(server, f"{databases.RUN}_ledger") as url:
        yield Database(url)
