"""A page as one HTML file that asks for nothing: no script, no request, no font of its own."""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from typing import TYPE_CHECKING

import jinja2
from markupsafe import Markup

from batch_pipelines.engine.reports import shown
from batch_pipelines.engine.reports.page import NUMERIC

if TYPE_CHECKING:
    from batch_pipelines.engine.reports.page import Page

# Names are divided at these signs, and what is longer than a column should be wide, anywhere.
_DIVIDED = re.compile(r"[^._/\s-]{0,16}[._/\s-]*")
_PACKAGE = "batch_pipelines.engine.reports"


@functools.cache
def templates() -> jinja2.Environment:
    """Give the templates: everything that comes into one is escaped, and nothing may be missing."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(_PACKAGE), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "shown": shown.shown,
        "visible": shown.visible,
        "level": shown.level,
        "breakable": breakable,
    }
    environment.globals |= {"MARKS": shown.MARKS, "NUMERIC": NUMERIC, "NOTHING": shown.NOTHING}
    return environment


def breakable(text: str) -> Markup:
    """Let a line end behind the signs that divide a name, and within what is long.

    Args:
        text: The text, which is escaped here.
    """
    return Markup("<wbr>").join(_DIVIDED.findall(text))  # join escapes them


def page_html(page: Page) -> str:
    """Write a page as HTML.

    Args:
        page: The page.

    Returns:
        A whole document. Its policy lets a browser load nothing and run nothing, and use the one style
        sheet that stands in it, by its digest.
    """
    style = _style()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return templates().get_template("page.html").render(page=page, style=style, digest=digest)


@functools.cache
def _style() -> str:
    found = [source("page.css"), source("chart.css")]
    return "\n" + "\n".join(found)


def source(name: str) -> str:
    """Read a template as it stands, a style sheet for example."""
    loader = templates().loader
    assert loader is not None  # noqa: S101  # it was given above
    return loader.get_source(templates(), name)[0]
