"""The tags by which Dagster's run queue knows a run's feed, its urgency and what it writes.

Not here: Dagster, which takes a second and a half to import; and how urgent a feed is and which feeds
share tables (`engine/queueing`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from batch_pipelines.engine.queueing import RANKS, writer_groups

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.queueing import Priority

FEED_TAG: Final = "batch-pipelines/feed"
PRIORITY_TAG: Final = "dagster/priority"
WRITES_TAG: Final = "batch-pipelines/writes"
"""The tables of which a run is to be the only writer; of runs with the same value one is in progress."""


def priority_tags(priority: Priority) -> dict[str, str]:
    """Give the tags of a run that is no feed's own, such as a rollback.

    Args:
        priority: How urgent it is.
    """
    return {PRIORITY_TAG: str(RANKS[priority])}


def feed_tags(feeds: Iterable[Feed]) -> dict[str, dict[str, str]]:
    """Give the tags that every run of a feed has, whoever launches it.

    Args:
        feeds: All feeds: which of them share tables shows only in all of them.

    Returns:
        The tags by the feed's name.
    """
    every = [*feeds]
    groups = writer_groups(every)
    return {
        feed.feed: {
            FEED_TAG: feed.feed,
            **priority_tags(feed.priority),
            **({WRITES_TAG: ", ".join(groups[feed.feed])} if feed.feed in groups else {}),
        }
        for feed in every
    }
