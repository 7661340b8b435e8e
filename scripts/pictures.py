"""Takes the two pictures of the README from the real UI: `make run` first, then this.

Usage: .venv/bin/python scripts/pictures.py
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from playwright.sync_api import Page

_ROOT = Path(__file__).resolve().parents[1]
_PICTURES = _ROOT / "docs" / "pictures"
_QUIET = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
_GRAPH = "asset-groups?expanded=global%40global%3Aflights%2Cglobal%40global%3Aflight_reference"
_BATCH = "assets/flights/validate?view=partitions&partition=2013-12"
_SETTLE_MS = 4_000  # the graph is laid out, the tables are loaded


def main() -> None:
    """Start the UI, take the pictures, end it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "batch_pipelines", "dev", "--port", str(port)]
    with subprocess.Popen(command, cwd=_ROOT) as ui:  # noqa: S603
        try:
            _wait(f"http://127.0.0.1:{port}/server_info")
            _take(f"http://127.0.0.1:{port}")
        finally:
            ui.terminate()


def _wait(url: str) -> None:
    for _ in range(120):
        try:
            urllib.request.urlopen(url, timeout=2).close()  # noqa: S310  # loopback
        except OSError:
            time.sleep(1)
        else:
            return
    raise TimeoutError(url)


def _take(base: str) -> None:
    with sync_playwright() as playwright:
        program = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=program, args=_QUIET)
        # So wide that Dagster draws five assets in a row with their details.
        page = browser.new_page(viewport={"width": 2100, "height": 900})
        page.set_default_timeout(60_000)
        _take_graph(page, f"{base}/{_GRAPH}")
        page.set_viewport_size({"width": 1400, "height": 900})
        page.goto(f"{base}/{_BATCH}")
        page.get_by_text("record_count").first.wait_for()
        page.wait_for_timeout(_SETTLE_MS)
        page.screenshot(path=_PICTURES / "batch.png")
        browser.close()


def _take_graph(page: Page, url: str) -> None:
    page.goto(url)
    page.get_by_text("Hide navigation").click()
    page.get_by_text("bulk_write", exact=True).first.wait_for()
    # The list of the assets is folded away by the button in its upper right corner.
    page.mouse.click(338, 80)
    page.wait_for_timeout(_SETTLE_MS)
    cut: dict[str, float] = {"x": 150, "y": 150, "width": 1570, "height": 610}
    page.screenshot(path=_PICTURES / "asset-graph.png", clip=cut)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
