"""Jobs: one for each feed, running its five stages in one process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

if TYPE_CHECKING:
    from dagster import UnresolvedAssetJobDefinition

    from batch_pipelines.engine.feeds import Feed


def feed_job(feed: Feed) -> UnresolvedAssetJobDefinition:
    """Make the job that imports a feed's partition.

    Args:
        feed: The feed.

    Returns:
        A job under the feed's name. It runs in one process: a process a stage would cost two
        seconds each, and parallel work comes from parallel runs.
    """
    return dg.define_asset_job(
        name=feed.feed,
        selection=dg.AssetSelection.groups(feed.feed),
        description=feed.description or f"Imports {feed.feed}.",
        executor_def=dg.in_process_executor,
        tags={"batch-pipelines/feed": feed.feed},
    )
