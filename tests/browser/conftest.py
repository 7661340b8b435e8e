"""`batch-pipelines dev` on a small feed, and a browser that looks at it."""

from __future__ import annotations

import json
import os
import shutil
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from playwright.sync_api import expect, sync_playwright

from batch_pipelines.engine.postgres.database import DATA_DATABASE
from batch_pipelines.engine.postgres.server import EmbeddedServer
from tests.support_channels import Service, running_service
from tests.support_dev import running_dev
from tests.support_process import command
from tests.support_shop import FEED, deliver, environment, open_shop, orders

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psutil
    from playwright.sync_api import Page

PROJECT = Path(__file__).parents[2]
EARLIER = "2024-04-30"
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# No sandbox, since that needs a user who is not root; and none of a browser's own network traffic.
BROWSER_FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip
_PATIENCE_MS = 60_000  # a busy machine of two cores takes seconds to show a page
_REGISTER = """
mutation ($key: String!) {
  addDynamicPartition(
    partitionsDefName: "orders"
    partitionKey: $key
    repositorySelector: {
      repositoryLocationName: "batch_pipelines", repositoryName: "__repository__"
    }
  ) { __typename }
}
"""
_BATCH = """
SELECT batch_id::text, status, requested_by FROM batch_audit.import_history
WHERE feed = 'orders' AND partition_key = %s
"""


@dataclass(frozen=True)
class Dev:
    """A running `batch-pipelines dev`.

    Attributes:
        url: Where the UI is.
        folder: The shop's.
        server: The embedded server under it.
        process: The command itself.
        surroundings: The environment of commands typed beside it; it finds `batch-pipelines`.
        service: The channel of alerts.
    """

    url: str
    folder: Path
    server: EmbeddedServer
    process: psutil.Popen
    surroundings: dict[str, str]
    service: Service

    def register(self, key: str) -> None:
        """Add a partition to the feed, as the landing sensor or the UI's own form would."""
        asked = {"query": _REGISTER, "variables": {"key": key}}
        request = urllib.request.Request(  # noqa: S310  # our own, on loopback
            f"{self.url}/graphql",
            json.dumps(asked).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            found = json.load(answer)
        assert found["data"]["addDynamicPartition"]["__typename"] == (
            "AddDynamicPartitionSuccess"
        ), found

    def batch(self, key: str) -> tuple[str, str, str] | None:
        """What the ledger says of a partition's one batch: its id, state and who asked for it."""
        with psycopg.connect(self.server.url(DATA_DATABASE)) as connection:
            rows = connection.execute(_BATCH, (key,)).fetchall()
        assert len(rows) <= 1
        return rows[0] if rows else None


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser's program."""
    found = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if found is None:
        why = f"no browser: none of {', '.join(_BROWSERS)} is on the PATH (scripts/browser.sh)"
        if os.environ.get("BATCH_PIPELINES_BROWSER_REQUIRED") == "1":
            pytest.fail(why)
        pytest.skip(why)
    return found


@pytest.fixture
def service() -> Iterator[Service]:
    """A local web server, which is told of alerts."""
    with running_service() as service:
        yield service


@pytest.fixture
def dev(chromium: str, tmp_path: Path, service: Service) -> Iterator[Dev]:
    """The UI of the shop, where one partition has been imported from the command line.

    With it runs the feed `inventory` that ships, whose example deliveries are at hand.
    """
    # The landing sensor takes nothing by itself, but what has its marker.
    open_shop(tmp_path, marker="_SUCCESS")
    add_inventory(tmp_path)
    surroundings = environment(tmp_path, tmp_path / "home")
    surroundings["BATCH_PIPELINES_ALERTS"] = service.url
    surroundings["PATH"] = os.pathsep.join([str(own_command(tmp_path)), surroundings["PATH"]])
    server = EmbeddedServer(home=tmp_path / "home")
    deliver(tmp_path, EARLIER, orders(5))
    imported = command("import", FEED, "--batch", EARLIER, environment=surroundings)
    assert imported.returncode == 0, imported.stderr
    with running_dev(tmp_path, surroundings) as (url, process):
        yield Dev(url, tmp_path, server, process, surroundings, service)


@pytest.fixture
def page(chromium: str, dev: Dev, tmp_path: Path) -> Iterator[Page]:
    """A browser's page, 1400 by 900 pixels."""
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=chromium, args=BROWSER_FLAGS) as browser,
    ):
        page = browser.new_page(viewport={"width": 1400, "height": 900}, base_url=dev.url)
        page.set_default_timeout(_PATIENCE_MS)
        expect.set_options(timeout=_PATIENCE_MS)
        try:
            yield page
        finally:
            # What was seen last: it tells more of a failure than its trace.
            page.screenshot(path=tmp_path / "last.png")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """The folder where screenshots are kept: BATCH_PIPELINES_SCREENSHOTS, or the test's own."""
    folder = Path(os.environ.get("BATCH_PIPELINES_SCREENSHOTS") or tmp_path / "pictures")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def add_inventory(folder: Path) -> None:
    """Add the feed `inventory`, as it ships but for the pause before a rerun, and its deliveries."""
    feeds = PROJECT / "feeds"
    (folder / "feeds" / "sql").mkdir()
    shutil.copy(feeds / "sql" / "inventory.sql", folder / "feeds" / "sql")
    text = (feeds / "inventory.yaml").read_text(encoding="utf-8")
    assert "first_pause: 1m" in text
    text = text.replace("first_pause: 1m", "first_pause: 5s")
    (folder / "feeds" / "inventory.yaml").write_text(text, encoding="utf-8")
    shutil.copytree(PROJECT / "examples", folder / "examples")


def own_command(folder: Path) -> Path:
    """Make a folder with `batch-pipelines` of this very checkout."""
    programs = folder / "bin"
    programs.mkdir()
    program = programs / "batch-pipelines"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m batch_pipelines "$@"\n')
    program.chmod(0o755)
    return programs
