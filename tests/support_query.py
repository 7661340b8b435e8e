"""The shop's orders, migrated from the database of the application that kept them before."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg

from tests.support_databases import fresh

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VARIABLE, PASSWORD = "LEGACY_URL", "Hunter2-of-the-old-shop"
_SOURCE = """\
source:
  query:
    url_variable: LEGACY_URL
    select: >
      SELECT id, customer, placed, amount, note FROM sales.orders
      WHERE to_char(placed, 'YYYY-MM') = {batch}
    key: [id]
    rows: 7
    keys: SELECT to_char(placed, 'YYYY-MM'), count(*), max(changed) FROM sales.orders GROUP BY 1
"""
_FILES = """\
source:
  path: landing/orders/{batch}/*.csv
  settle_seconds: 0
"""
_OLD = """
CREATE SCHEMA sales;
CREATE TABLE sales.orders (id bigint PRIMARY KEY, customer integer NOT NULL, placed date NOT NULL,
    amount numeric NOT NULL, note text, changed timestamptz NOT NULL DEFAULT clock_timestamp());
INSERT INTO sales.orders SELECT n, n % 3 + 1, date '2024-01-01' + n, n / 4.0, 'old order ' || n
FROM generate_series(1, 50) n;
"""


@contextmanager
def old_shop(server: str) -> Iterator[str]:
    """Make the other database, with orders of January and February 2024, for the length of a block.

    Args:
        server: URL of another database of the server.

    Yields:
        Its URL, with a password in it.
    """
    with fresh(server) as url, psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_OLD)
        user = connection.info.user
        yield f"postgresql://{user}:{PASSWORD}@{url.partition('@')[2] or url.partition('//')[2]}"


def read_from_query(feeds: Path) -> None:
    """Have the shop's feed read the other database.

    Args:
        feeds: The feeds folder.
    """
    path = feeds / "orders.yaml"
    text = path.read_text()
    assert _FILES in text
    path.write_text(text.replace(_FILES, _SOURCE))
