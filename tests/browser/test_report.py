"""The report of a batch in a real browser: on a desk, on a phone, in the dark and on paper."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import sync_playwright

from tests.browser.conftest import BROWSER_FLAGS
from tests.support_shop import DAY, FEED, orders

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

    from tests.support_shop import Shop

pytestmark = pytest.mark.browser
HOSTILE = "=cmd|'<img src=x onerror=alert(1)>\u202efdp" + "x" * 120 + ".csv"
# Words whose contrast to what is behind them is less than WCAG's AA asks of text.
_FAINT = """
() => {
  const light = (c) => {
    const [r, g, b] = c.match(/[\\d.]+/g).slice(0, 3).map((v) => {
      v /= 255;
      return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const c = getComputedStyle(e).backgroundColor;
      if (c !== 'rgba(0, 0, 0, 0)') return c;
    }
    return 'rgb(255, 255, 255)';
  };
  const found = new Set();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || e.closest('title')) continue;
    const style = getComputedStyle(e);
    const colour = e.closest('svg') ? style.fill : style.color;
    const [a, b] = [light(colour), light(behind(e))];
    if ((Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) < 4.5) {
      found.add(`${e.tagName} ${e.className} ${colour} on ${behind(e)}`);
    }
  }
  return [...found];
}
"""
_OVERFLOW = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
_OUTSIDE = """
() => [...document.querySelectorAll('body *')]
  .filter((e) => !e.closest('.skip, thead, svg') && e.getBoundingClientRect().right > innerWidth + 0.5)
  .map((e) => `${e.tagName} ${e.textContent.slice(0, 60)}`)
"""


@pytest.fixture
def report(shop: Shop) -> Path:
    """The report of a batch with rejects and a name that means harm."""
    shop.deliver(DAY, orders(5, first=900) + "7,9,2024-05-01,1.00,no customer\nx\n")
    landed = shop.folder / "landing" / FEED / DAY
    (landed / "orders.csv").rename(landed / HOSTILE)
    result = shop.run(DAY)
    assert shop.batch(result.run_id).status == "PARTIAL_SUCCESS"
    return shop.settings.home / "reports" / "batches" / f"{result.run_id}.html"


@pytest.fixture
def browser(chromium: str) -> Iterator[Browser]:
    """A browser."""
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=chromium, args=BROWSER_FLAGS) as browser,
    ):
        yield browser


def watched(page: Page) -> tuple[list[str], list[str]]:
    """Collect what a page says where nobody looks, and what it asks for."""
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.on("request", lambda request: asked.append(request.url))
    return said, asked


VIEWS = (
    ("desk", 1280, "light", "screen"),
    ("desk-dark", 1280, "dark", "screen"),
    ("phone", 390, "light", "screen"),
    ("phone-dark", 390, "dark", "screen"),
    ("narrow", 320, "light", "screen"),
    ("tablet", 820, "light", "screen"),
    # A4 less its margins, at 96 dots an inch; on paper the dark is left aside.
    ("paper", 688, "dark", "print"),
)


def look_everywhere(browser: Browser, path: Path, pictures: Path, drawn: int) -> None:
    """Look at a page in each view: nothing is cut off, faint, or loaded from elsewhere."""
    address = path.as_uri()
    for name, width, scheme, media in VIEWS:
        context = browser.new_context(viewport={"width": width, "height": 900})
        page = context.new_page()
        page.emulate_media(color_scheme=scheme, media=media)  # type: ignore[arg-type]
        said, asked = watched(page)
        page.goto(address)
        page.screenshot(path=pictures / f"{path.parent.name}-{name}.png", full_page=True)
        assert said == [], name
        assert asked == [address], name
        assert page.evaluate(_OVERFLOW) <= 0, (name, page.evaluate(_OUTSIDE))
        assert page.evaluate(_FAINT) == [], name
        back = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
        dark = scheme == "dark" and media == "screen"
        assert (back == "rgb(255, 255, 255)") != dark, name
        assert page.locator("img, script").count() == 0
        assert page.locator("svg.chart").count() == drawn
        context.close()


def test_a_report_can_be_read_everywhere(report: Path, browser: Browser, pictures: Path) -> None:
    look_everywhere(browser, report, pictures, drawn=4)
    look_everywhere(browser, report.parents[1] / "feeds" / f"{FEED}.html", pictures, drawn=3)

    page = browser.new_page()
    page.goto(report.as_uri())
    # Walked by keyboard, and by who listens: landmarks, and names of pictures and tables.
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.className") == "skip"
    assert page.get_by_role("main").count() == page.get_by_role("navigation").count() == 1
    for picture in page.get_by_role("img").all():
        assert picture.get_attribute("aria-labelledby")
    assert page.get_by_role("table", name="Files as they were received").count() == 1
    assert page.get_by_role("rowheader").filter(has_text="⟨U+202E⟩").count()
    pdf = page.pdf(format="A4")
    assert pdf.startswith(b"%PDF")
