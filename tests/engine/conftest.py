"""What the engine's tests share: a site on each of the servers."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, Protocol

import pytest

from batch_pipelines.engine.postgres.database import Database
from batch_pipelines.engine.settings import Settings
from tests.conftest import _copy_of_template, as_pipelines
from tests.support_engine import Site, feed_of, sharing_sessions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

    from batch_pipelines.engine.feeds import Feed


class MakeSite(Protocol):
    """Makes a site."""

    def __call__(self, ddl: str, tables: Mapping[str, str] | None = None, **more: object) -> Site:
        """Make a site.

        Args:
            ddl: SQL that creates the tables.
            tables: Pattern of the files for each table of the feed; `public.t` by default.
            more: What else the feed's file would say.
        """


class OpenSite(Protocol):
    """Opens a site with a database of its own, as often as an example needs one."""

    def __call__(
        self, ddl: str, feed: Feed, version: str = "18", *, sharing: bool = True
    ) -> AbstractContextManager[Site]:
        """Open a site, for a block.

        Args:
            ddl: SQL that creates the tables.
            feed: Its feed.
            version: Of PostgreSQL.
            sharing: Whether runs go on in each other's sessions; see `sharing_sessions`.
        """


@pytest.fixture(scope="session")
def open_site(
    _server_urls: dict[str, str], _templates: set[str], tmp_path_factory: pytest.TempPathFactory
) -> OpenSite:
    """Opens sites for many examples of one test."""

    @contextmanager
    def opened(
        ddl: str, feed: Feed, version: str = "18", *, sharing: bool = True
    ) -> Iterator[Site]:
        folder = tmp_path_factory.mktemp("site")
        settings = Settings(home=folder / "home", feeds=folder / "feeds")
        copied = contextmanager(_copy_of_template)(_server_urls[version], version, _templates)
        with copied as database, database.connect("test") as connection:
            connection.execute(ddl.encode())
            site = Site(database, settings, feed, connection)
            with sharing_sessions(site) if sharing else nullcontext():
                yield site

    return opened


@pytest.fixture
def site(
    request: pytest.FixtureRequest, database: Database, settings: Settings
) -> Iterator[MakeSite]:
    """Makes a site on each version of PostgreSQL."""
    with ExitStack() as stack:
        yield _maker(request, database, settings, stack)


@pytest.fixture
def site18(
    request: pytest.FixtureRequest, database18: Database, settings: Settings
) -> Iterator[MakeSite]:
    """Makes a site on PostgreSQL 18 alone."""
    with ExitStack() as stack:
        yield _maker(request, database18, settings, stack)


def _maker(
    request: pytest.FixtureRequest, database: Database, settings: Settings, stack: ExitStack
) -> MakeSite:
    pipelines = Database(as_pipelines(request, database.url))

    def make(ddl: str, tables: Mapping[str, str] | None = None, **more: object) -> Site:
        connection = stack.enter_context(database.connect("test"))
        connection.execute(ddl.encode())
        feed = feed_of(tables or {"public.t": "*"}, **more)
        return stack.enter_context(sharing_sessions(Site(pipelines, settings, feed, connection)))

    return make
