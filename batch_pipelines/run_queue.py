"""The run queue of the instance: sees to it that every run of a feed has the tags it goes by.

Not here: its limits (`instance`), and the tags (`run_tags`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.workspace.context import (
    WorkspaceRequestContext,
)  # not exported; tells a request from what the daemon does

from batch_pipelines.engine.settings import load_settings
from batch_pipelines.requesters import requested_by
from batch_pipelines.run_tags import FEED_TAG, PRIORITY_TAG, WRITES_TAG
from resources.batches import REQUESTED_BY_TAG

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dagster._core.run_coordinator.base import (
        SubmitRunContext,
    )  # not exported; what every coordinator is handed


class FeedRunCoordinator(dg.QueuedRunCoordinator[dg.DagsterInstance]):
    """The run queue: sees to it that a run of a feed has the feed's tags, and any who asked for it.

    A run of a feed's job has them from the job. One that is launched from the page of an asset, or by a
    backfill, is a run of a job without a name, and has none.
    """

    def submit_run(self, context: SubmitRunContext) -> dg.DagsterRun:
        """Put a run into the queue.

        Args:
            context: The run, and the code locations.

        Returns:
            The run.
        """
        run = context.dagster_run
        feeds = {key.path[0] for key in run.asset_selection or ()}
        added = missing_tags(run.tags, [_job_tags(context, name) for name in sorted(feeds)])
        by = _requester(context)
        if run.tags.get(REQUESTED_BY_TAG) != by:
            added[REQUESTED_BY_TAG] = by
        if added:
            self._instance.add_run_tags(run.run_id, added)
        return super().submit_run(context)


def missing_tags(tags: Mapping[str, str], of_feeds: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Say which tags a run lacks.

    Args:
        tags: Those it has; a priority that somebody chose for a run stays.
        of_feeds: Those of the feeds it has to do with. A run has to do with one, as a rule: partitions
            of two feeds are not the same.

    Returns:
        The tags to add.
    """
    wanted: dict[str, str] = {}
    for own in of_feeds:
        wanted |= own
    return {name: value for name, value in wanted.items() if name not in tags}


def _requester(context: SubmitRunContext) -> str:
    workspace = context.workspace
    is_web = isinstance(workspace, WorkspaceRequestContext) and workspace.source is not None
    name = load_settings().user_header
    return requested_by(
        context.dagster_run.tags,
        context.dagster_run.tags.get(REQUESTED_BY_TAG),
        is_web=is_web,
        header=context.get_request_header(name) if name else None,
    )


def _job_tags(context: SubmitRunContext, feed: str) -> dict[str, str]:
    """Read a feed's tags off its job, in the code location that the run is of."""
    origin = context.dagster_run.remote_job_origin
    if origin is None:
        return {}
    location = context.workspace.get_code_location(origin.location_name)
    repository = location.get_repository(origin.repository_origin.repository_name)
    if not repository.has_job(feed):
        return {}
    tags = repository.get_full_job(feed).run_tags
    return {name: tags[name] for name in (FEED_TAG, PRIORITY_TAG, WRITES_TAG) if name in tags}
