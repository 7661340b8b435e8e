"""What sensors and schedules ask Dagster before they launch runs of a feed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import dagster as dg
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_NAME_TAG,
    RUN_KEY_TAG,
)

from batch_pipelines.run_tags import FEED_TAG

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batch_pipelines.engine.feeds import Feed

# Runs of a feed that have not ended: so many keep every core busy until the next tick, and the runs of
# other feeds do not stand behind a hundred thousand of them.
_MOST_RUNS: Final = 100
# The first of a run's own, the second of one that a backfill makes: its range is one partition.
_PARTITION_TAGS = (PARTITION_NAME_TAG, ASSET_PARTITION_RANGE_START_TAG)


def room(instance: dg.DagsterInstance, feed: Feed) -> tuple[int, set[str]]:
    """Say how many runs of a feed there is room for, and which partitions have one that has not ended.

    Args:
        instance: The instance.
        feed: The feed.

    Returns:
        How many more may be launched; and the partitions, whoever launched their runs, backfills and the
        pages of assets included.
    """
    wanted = dg.RunsFilter(tags={FEED_TAG: feed.feed}, statuses=[*NOT_FINISHED_STATUSES])
    found = instance.get_runs(wanted, limit=_MOST_RUNS)
    keys = {run.tags[tag] for run in found for tag in _PARTITION_TAGS if tag in run.tags}
    return _MOST_RUNS - len(found), keys


def asked_for(
    instance: dg.DagsterInstance, run_keys: Sequence[str], tag: str, name: str
) -> set[str]:
    """Say for which run keys a sensor or schedule has asked for runs.

    Args:
        instance: The instance.
        run_keys: The run keys.
        tag: Dagster's tag with the name of a sensor, or that with the name of a schedule.
        name: Whose.

    Returns:
        Those of the run keys.
    """
    found = instance.get_runs(dg.RunsFilter(tags={RUN_KEY_TAG: list(run_keys)}))
    return {run.tags[RUN_KEY_TAG] for run in found if run.tags.get(tag) == name}
