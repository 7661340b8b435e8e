"""What the tests of upgrades share: stations, each in a database of its own."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol

import pytest

from tests import support_databases as databases
from tests.engine.upgrading.support import opened

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.engine.upgrading.support import Station


class Open(Protocol):
    """Opens a station on a version of PostgreSQL."""

    def __call__(self, revision: str, version: str = "18") -> Station:
        """Open it; what cannot be opened here is skipped."""


@pytest.fixture
def station(_server_urls: dict[str, str], tmp_path: Path) -> Iterator[Open]:
    """Opens a station, for the length of a test."""
    with ExitStack() as stack:

        def open_station(revision: str, version: str = "18") -> Station:
            url = stack.enter_context(databases.fresh(_server_urls[version]))
            return stack.enter_context(opened(url, revision, tmp_path))

        yield open_station
