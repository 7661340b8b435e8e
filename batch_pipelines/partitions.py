"""Partitions of feeds: which definition a feed's assets, job, sensor and schedule share."""

from __future__ import annotations

import datetime as dt
import zlib
from typing import TYPE_CHECKING, Final

import dagster as dg

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batch_pipelines.engine.feed_parts.partitions import Every
    from batch_pipelines.engine.feeds import Feed

CRON: Final[dict[Every, str]] = {
    "hour": "0 * * * *",
    "day": "0 0 * * *",
    "week": "0 0 * * 1",
    "month": "0 0 1 * *",
}
"""When a window ends and the next one begins."""


def feed_partitions(
    feed: Feed,
) -> dg.DynamicPartitionsDefinition | dg.TimeWindowPartitionsDefinition:
    """Give the partitions definition of a feed: one partition an import batch.

    Args:
        feed: The feed.

    Returns:
        The windows of time that the feed says, those that are over; otherwise dynamic partitions under
        the feed's name. All stages of a feed are partitioned alike, and no two feeds are.
    """
    said = feed.partitions
    if said is None:
        return dg.DynamicPartitionsDefinition(name=feed.feed)
    # Definitions that are equal would let one run, and one backfill, materialize partitions of two
    # feeds; but a run is the batch of one. So each ends at a moment of its own, in seven thousand years.
    end = dt.datetime(9000, 1, 1) + dt.timedelta(seconds=zlib.crc32(feed.feed.encode()))  # noqa: DTZ001
    return dg.TimeWindowPartitionsDefinition(
        start=dt.datetime(said.start.year, said.start.month, said.start.day),  # noqa: DTZ001
        end=end,
        timezone=said.timezone,
        cron_schedule=CRON[said.every],
        fmt=said.key_format,
    )


def register_request(
    instance: dg.DagsterInstance, feed: Feed, keys: Iterable[str]
) -> list[dg.AddDynamicPartitionsRequest]:
    """Ask for partitions to be known to Dagster.

    Args:
        instance: The instance.
        feed: The feed.
        keys: Their keys.

    Returns:
        A request; none where a feed's partitions are windows of time, which are there by themselves.
    """
    partitions = feed_partitions(feed)
    if not isinstance(partitions, dg.DynamicPartitionsDefinition):
        return []
    fresh = [key for key in keys if not instance.has_dynamic_partition(feed.feed, key)]
    return [partitions.build_add_request(fresh)]


def register(instance: dg.DagsterInstance, feed: Feed, keys: Iterable[str]) -> None:
    """Make partitions known to Dagster; see `register_request`."""
    for request in register_request(instance, feed, keys):
        if request.partition_keys:
            instance.add_dynamic_partitions(feed.feed, [*request.partition_keys])
