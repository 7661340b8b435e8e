"""Columns that the server changes, as the feed declares: no row is held against what is sent there.

A trigger may write them, so what the delivery brings is neither proven nor judged: PostgreSQL has the
last word on each row. What lives here: which declarations make sense, and what of a table's catalog does
not hold for rows as they are sent.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from batch_pipelines.engine.errors import FeedError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from batch_pipelines.engine.catalog import TableInfo
    from batch_pipelines.engine.feeds import Feed


def require_known(feed: Feed, tables: Iterable[TableInfo]) -> None:
    """Refuse declarations that cannot be meant.

    Args:
        feed: The feed.
        tables: Its tables.

    Raises:
        FeedError: A declared column is not there, PostgreSQL computes it, or rows are told apart by it.
    """
    for table in tables:
        own = feed.table_named(table.full_name)
        known = {column.name: column for column in table.columns}
        key = own.key or table.primary_key
        where = f"Feed {feed.feed}: `server_changed` of {table.full_name} names"
        for name in own.server_changed:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f" Is it {near[0]!r}?" if near else ""
                raise FeedError(f"{where} {name!r}, which is no column of it.{hint}")
            if known[name].computed:
                message = f"{where} {name!r}, which PostgreSQL computes anyway. Take it out."
                raise FeedError(message)
            if name in {*key, *table.primary_key}:
                message = (
                    f"{where} {name!r}, but rows are told apart by it. Have the server leave the key "
                    "as it is sent, or leave the column out of the delivery."
                )
                raise FeedError(message)


def as_sent(table: TableInfo, names: Collection[str]) -> TableInfo:
    """Describe a table to readers of a delivery: a trigger may yet give a value where none is.

    Args:
        table: The table.
        names: Columns that the server changes.

    Returns:
        The table; a missing value in one of these columns is PostgreSQL's to refuse.
    """
    if not names:
        return table
    columns = (replace(c, not_null=c.not_null and c.name not in names) for c in table.columns)
    return replace(table, columns=tuple(columns))


def mentions(expression: str, names: Iterable[str]) -> bool:
    """Say whether an SQL expression may look at one of some columns.

    Args:
        expression: The expression, as PostgreSQL writes it.
        names: The columns.
    """
    return any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", expression) for name in names)
