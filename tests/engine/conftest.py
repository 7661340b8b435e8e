"""What the engine's tests share: a site on each of the servers."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol

import pytest

from batch_pipelines.engine.postgres.database import Database
from tests.conftest import as_pipelines
from tests.support_engine import Site, feed_of, sharing_sessions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from batch_pipelines.engine.settings import Settings


class MakeSite(Protocol):
    """Makes a site."""

    def __call__(self, ddl: str, tables: Mapping[str, str] | None = None, **more: object) -> Site:
        """Make a site.

        Args:
            ddl: SQL that creates the tables.
            tables: Pattern of the files for each table of the feed; `public.t` by default.
            more: What else the feed's file would say.
        """


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
