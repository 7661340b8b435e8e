"""README's story of five minutes, typed as it stands there, and what happens besides."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from playwright.sync_api import expect

from batch_pipelines.engine.postgres.database import DATA_DATABASE
from batch_pipelines.engine.processes import Process
from tests.support_process import command

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Page

    from tests.browser.conftest import Dev

GOOD, BROKEN, BROKEN_TOO, LATER = (f"2026-01-0{day}" for day in (5, 6, 7, 8))
_PROJECT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
# Two intervals of the sensors, and what their ticks take on a busy machine of two cores.
_TOLD_WITHIN_SECONDS = 30 + 15
_PATIENCE_SECONDS = 180
_HOLDER = """
SELECT holder FROM batch_audit.batch_lease
WHERE feed = 'inventory' AND partition_key = %s AND released_at IS NULL
"""
_ATTEMPTS = """
SELECT status, failure_cause, requested_by FROM batch_audit.import_history
WHERE feed = 'inventory' AND partition_key = %s ORDER BY attempt
"""
_PAUSED = "SELECT feed FROM batch_audit.feed_pause WHERE resumed_at IS NULL"
_USERS = "SELECT username FROM inventory.users WHERE import_batch_id IS NOT NULL ORDER BY id"


class Story:
    """The story, step by step.

    Attributes:
        dev: What runs meanwhile.
    """

    def __init__(self, dev: Dev) -> None:
        """Read it; the first block starts `dev`, which runs already."""
        self.dev = dev
        told = (_PROJECT / "README.md").read_text(encoding="utf-8")
        section = told.partition("## Five minutes\n")[2].partition("\n## ")[0]
        start, self._drop, self._break, self._mend, self._take_back = _BLOCK.findall(section)
        assert start.startswith("make dev")

    def drop(self) -> None:
        """Drop a delivery."""
        self._type(self._drop)

    def goes_on(self, page: Page, pictures: Path) -> None:
        """See it loaded; then the rest."""
        self._until(lambda: self._states(GOOD) == ["SUCCESS"])
        self._is_broken_and_paused(page, pictures)
        self._is_resumed_and_killed()
        self._heals()
        self._is_mended()
        self._is_taken_back(page, pictures)
        assert [row[0] for row in self._ask(_USERS)] == ["amal", "bela", "chidi", "u507", "u508"]

    def _is_broken_and_paused(self, page: Page, pictures: Path) -> None:
        self._type(self._break)
        self._until(lambda: self._states(BROKEN) == ["FAILED"])
        self._until_told(f"[warning] inventory/{BROKEN} is FAILED")
        self._deliver(BROKEN_TOO, 507)
        self._until(lambda: self._states(BROKEN_TOO) == ["FAILED"])
        self._until_told("[critical] inventory: failed batches in a row: warn -> breach, 2")
        assert self._ask(_PAUSED) == [("inventory",)]
        self._deliver(LATER, 508, complete=True)
        page.goto("/assets/inventory/ingest?view=checks")
        expect(page.get_by_text("thresholds", exact=True).first).to_be_visible()
        expect(page.get_by_text("Failed", exact=True).first).to_be_visible()
        page.screenshot(path=pictures / "thresholds.png")

    def _is_resumed_and_killed(self) -> None:
        assert self._states(LATER) == [], "the feed is paused"
        with self._connect() as connection:
            # The run that comes by itself gets as far as its rows, and waits there.
            connection.execute("LOCK TABLE inventory.users IN SHARE MODE")
            resumed = command("feeds", "resume", "inventory", environment=self.dev.surroundings)
            assert resumed.returncode == 0, resumed.stderr
            self._until(lambda: self._ask(_HOLDER, LATER) != [])
            process = Process.read(self._ask(_HOLDER, LATER)[0][0])
            assert process is not None
            os.kill(process.pid, signal.SIGKILL)

    def _heals(self) -> None:
        self._until(lambda: self._states(LATER) == ["FAILED", "SUCCESS"])
        killed, healed = self._attempts(LATER)
        assert killed[1:] == ("dead_run", "sensor landing_inventory")
        assert healed[2].startswith("sensor rerun_failed")

    def _is_mended(self) -> None:
        self._department(BROKEN_TOO, 507)
        self._type(self._mend)
        for key in (BROKEN, BROKEN_TOO):
            assert self._states(key) == ["FAILED", "SUCCESS"]

    def _is_taken_back(self, page: Page, pictures: Path) -> None:
        self._type(self._take_back)
        assert self._states(BROKEN) == ["FAILED", "ROLLED_BACK"]
        page.goto(f"/assets/inventory/bulk_write?view=partitions&partition={BROKEN}")
        expect(page.get_by_text("failed, and did not materialize this asset")).to_be_visible()
        expect(page.get_by_text("ROLLED_BACK", exact=True).first).to_be_visible()
        page.screenshot(path=pictures / "rolled_back.png")

    def _until_told(self, title: str) -> None:
        self._until(lambda: title in self.dev.service.titles, _TOLD_WITHIN_SECONDS)

    def _deliver(self, key: str, user: int, *, complete: bool = False) -> None:
        folder = self.dev.folder / "landing" / "inventory" / key
        folder.mkdir()
        (folder / "users.csv").write_text(
            f"id,username,email\n{user},u{user},u{user}@example.org\n"
        )
        (folder / "user_departments.csv").write_text(
            f"user_id,department,role\n{user},D{user},member\n"
        )
        if complete:
            self._department(key, user)

    def _department(self, key: str, user: int) -> None:
        folder = self.dev.folder / "landing" / "inventory" / key
        (folder / "departments.csv").write_text(f"code,name,active\nD{user},Dept {user},true\n")

    def _type(self, block: str) -> None:
        subprocess.run(  # README's own words
            ["/bin/sh", "-e", "-c", block],
            cwd=self.dev.folder, env=self.dev.surroundings, check=True,
        )  # fmt: skip

    def _states(self, key: str) -> list[str]:
        return [row[0] for row in self._attempts(key)]

    def _attempts(self, key: str) -> list[tuple[str, ...]]:
        return self._ask(_ATTEMPTS, key)

    def _ask(self, sql: str, *parameters: object) -> list[tuple[str, ...]]:
        with self._connect() as connection:
            return connection.execute(sql.encode(), parameters).fetchall()

    def _connect(self) -> psycopg.Connection[tuple[str, ...]]:
        return psycopg.connect(self.dev.server.url(DATA_DATABASE))

    def _until(self, come: Callable[[], bool], seconds: float = _PATIENCE_SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while not come():
            keys = (GOOD, BROKEN, BROKEN_TOO, LATER)
            seen = {key: self._attempts(key) for key in keys}
            assert time.monotonic() < deadline, (seen, self.dev.service.titles)
            time.sleep(0.2)
