"""What a feed may say of a query, and what is said of one that is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batch_pipelines.engine.errors import FeedError
from batch_pipelines.engine.feed_files import load_feed

if TYPE_CHECKING:
    from pathlib import Path

RIGHT = """\
feed: orders
source:
  query:
    url_variable: LEGACY_URL
    select: SELECT * FROM o WHERE month = {batch};
    key: [id]
    keys: SELECT month FROM o GROUP BY 1
tables:
  - table: public.orders
"""
SELECT = "    select: SELECT * FROM o WHERE month = {batch};\n"
KEYS = "    keys: SELECT month FROM o GROUP BY 1\n"


def test_a_right_one(tmp_path: Path) -> None:
    path = tmp_path / "orders.yaml"
    path.write_text(RIGHT)
    query = load_feed(path).source.query
    assert query is not None
    assert (query.select, query.key, query.rows) == (
        "SELECT * FROM o WHERE month = {batch}",
        ("id",),
        50_000,
    )
    assert query.is_partitioned


@pytest.mark.parametrize(
    ("was", "becomes", "problem"),
    [
        (
            "LEGACY_URL",
            "postgresql://me:hunter2@db/shop",
            ":4: `source.query.url_variable` must be the name",
        ),
        (
            "LEGACY_URL",
            "'hunter2'",
            ":4: `source.query.url_variable` must be the name of an environment",
        ),
        ("url_variable", "url_varable", "did you mean `url_variable`?"),
        (SELECT, "", "must have `table`, or a `select`"),
        (SELECT, SELECT + "    table: o\n", "must have `table`, or a `select`, and not both"),
        ("{batch}", "'{batch}'", "must stand outside of quotes"),
        ("{batch}", "'2024-{batch}'", "must stand outside of quotes"),
        ("{batch}", "'it''s' || {batch} || '{batch}'", "must stand outside of quotes"),
        ("{batch}", "'2024-01'", "`keys` needs a `select` with {batch}"),
        ("SELECT month FROM o", "SELECT month FROM o WHERE m = {batch}", "no {batch} in it yet"),
        ("[id]", "[]", "`source.query.key` needs at least one entry"),
        ("[id]", "[id, id]", "a column stands twice"),
        ("[id]", "id", "`source.query.key` must be a list"),
        (
            "  query:",
            "  path: landing/{batch}/*\n  query:",
            "must have one of `path`, the files' pattern, a `query`",
        ),
        ("  query:", "  settle_seconds: 3\n  query:", "`settle_seconds` is for files"),
        (
            "  - table: public.orders",
            "  - {table: a.b, files: x*}\n  - {table: a.c, files: y*}",
            "fills one table",
        ),
    ],
)
def test_a_wrong_one(tmp_path: Path, was: str, becomes: str, problem: str) -> None:
    assert was in RIGHT
    path = tmp_path / "orders.yaml"
    path.write_text(RIGHT.replace(was, becomes))
    with pytest.raises(FeedError) as error:
        load_feed(path)
    assert problem in str(error.value)
    assert "hunter2" not in str(error.value)


def test_quotes_that_end_before_the_key_are_no_quotes_around_it(tmp_path: Path) -> None:
    path = tmp_path / "orders.yaml"
    path.write_text(RIGHT.replace("{batch}", "'it''s' || {batch} || 'x' || {batch}"))
    assert load_feed(path).source.query is not None
