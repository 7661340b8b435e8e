"""Partitions of feeds: which definition a feed's assets, job and sensor share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

if TYPE_CHECKING:
    from batch_pipelines.engine.feeds import Feed


def feed_partitions(feed: Feed) -> dg.DynamicPartitionsDefinition:
    """Give the partitions definition of a feed: one partition an import batch.

    Args:
        feed: The feed.

    Returns:
        Dynamic partitions under the feed's name; the same name means the same set of keys, so all
        stages of a feed are partitioned alike.
    """
    return dg.DynamicPartitionsDefinition(name=feed.feed)
