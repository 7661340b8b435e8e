"""Another database to read from, of PostgreSQL or SQLite, behind an environment variable."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any, Protocol

import psycopg
import pytest

from tests.support_databases import fresh
from tests.support_engine import feed_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.engine.conftest import MakeSite
    from tests.support_engine import Site

VARIABLE = "LEGACY_URL"


class Other:
    """The other database.

    Attributes:
        url: As SQLAlchemy writes it.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    def sql(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Run SQL, in a transaction of its own."""
        if self.url.startswith("sqlite"):
            with closing(sqlite3.connect(self.url.removeprefix("sqlite:///"))) as lite, lite:
                return lite.execute(statement, parameters).fetchall()
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), parameters or None)
            return cursor.fetchall() if cursor.description else []


class MakeQuerySite(Protocol):
    """Makes a site whose feed has a query."""

    def __call__(self, ddl: str, query: dict[str, object], **more: object) -> Site:
        """Make a site.

        Args:
            ddl: SQL that creates the target tables.
            query: The feed's `source.query`, without its variable.
            more: What else the feed's file would say.
        """


@pytest.fixture
def postgres(_server_urls: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Other]:
    """A second database of PostgreSQL; on an older server than the target's, where there is one."""
    with fresh([*_server_urls.values()][-1]) as url:
        monkeypatch.setenv(VARIABLE, url)
        yield Other(url)


@pytest.fixture
def sqlite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Other:
    """A file of SQLite."""
    url = f"sqlite:///{tmp_path}/legacy.db"
    monkeypatch.setenv(VARIABLE, url)
    with closing(sqlite3.connect(tmp_path / "legacy.db")) as lite:
        # As applications have it that read and write at once.
        lite.execute("PRAGMA journal_mode = WAL")
    return Other(url)


@pytest.fixture(params=["postgres", "sqlite"])
def other(request: pytest.FixtureRequest) -> Other:
    """Each of the two."""
    found: Other = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def query_site(site18: MakeSite) -> MakeQuerySite:
    """Makes a site on PostgreSQL 18 whose feed has a query."""

    def make(ddl: str, query: dict[str, object], **more: object) -> Site:
        site = site18(ddl)
        source = {"query": {"url_variable": VARIABLE, **query}}
        site.feed = feed_of({"public.t": "*"}, source=source, **more)
        return site

    return make
