"""Order and load: how urgent a feed is, and which feeds write the same tables.

Not here: the queue, which is Dagster's (`run_queue`), and the locks under which batches are published
(`postgres/database`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batch_pipelines.engine.feeds import Feed

Priority = Literal["critical", "high", "normal", "low"]

RANKS: Final[dict[Priority, int]] = {"critical": 20, "high": 10, "normal": 0, "low": -10}
"""The higher of two leaves the queue first; between them there is room for a rank set by hand."""


def writer_groups(feeds: Iterable[Feed]) -> dict[str, tuple[str, ...]]:
    """Say which feeds must not write at the same time.

    Two feeds with `one_writer` that fill a table in common stand in one group, and so does a third one
    that shares another table with either: a run waits for one thing, not for several, of which it could
    hold one while it waits for the next.

    Args:
        feeds: All feeds.

    Returns:
        For each feed with `one_writer`, the tables of its group, sorted; the same for all of a group.
    """
    groups: list[tuple[set[str], set[str]]] = []
    for feed in feeds:
        if not feed.one_writer:
            continue
        names, tables = {feed.feed}, {each.table for each in feed.tables}
        apart = []
        for group in groups:
            if group[1] & tables:
                names |= group[0]
                tables |= group[1]
            else:
                apart.append(group)
        groups = [*apart, (names, tables)]
    return {name: tuple(sorted(tables)) for names, tables in groups for name in names}
