"""Runs of this code location, and the processes that execute them.

Dagster's default launcher keeps neither host nor process of a run. So each run writes its own down, as
a tag, as the first thing that it does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.events import (
    JobFailureData,
    RunFailureReason,
)  # not exported; what a launcher that notices says

from batch_pipelines.engine.processes import Process

if TYPE_CHECKING:
    from collections.abc import Iterator

PROCESS_TAG = "batch-pipelines/process"
FEED_TAG = "batch-pipelines/feed"
REPOSITORY_TAG = ".dagster/repository"
PARTITION_TAG = "dagster/partition"
ROLLED_BACK_TAG = "batch-pipelines/rolled_back"
# As workspace.yaml names it: without this tag the UI's pages of jobs and its timeline show no run
# that was not launched from there.
LOCATION = "__repository__@batch_pipelines"
_MAX_RETRIES_TAG = "dagster/max_retries"
_UNFINISHED = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def record_process(instance: dg.DagsterInstance, run_id: str) -> None:
    """Write down that this process executes a run.

    Args:
        instance: The Dagster instance.
        run_id: The run.
    """
    # A retry takes over the tags of the run before: hence the run's id.
    instance.add_run_tags(run_id, {PROCESS_TAG: f"{run_id} {Process.current()}"})


def process_of(run: dg.DagsterRun) -> Process | None:
    """Say which process executes a run.

    Args:
        run: The run.

    Returns:
        Its process; None as long as it has not been written down.
    """
    run_id, _, process = run.tags.get(PROCESS_TAG, "").partition(" ")
    return Process.read(process) if run_id == run.run_id else None


def unfinished(instance: dg.DagsterInstance) -> Iterator[dg.RunRecord]:
    """List the runs of this code location that have been launched and are not finished.

    Args:
        instance: The Dagster instance.

    Yields:
        Their records. Runs of others in the same instance are none of our business.
    """
    for record in instance.get_run_records(dg.RunsFilter(statuses=_UNFINISHED)):
        tags = record.dagster_run.tags
        if tags.get(REPOSITORY_TAG) == LOCATION or {FEED_TAG, PROCESS_TAG} & {*tags}:
            yield record


def report_dead(instance: dg.DagsterInstance, run_id: str, why: str) -> None:
    """Tell Dagster of a run found dead: its launcher does not notice, and it counts in the queue.

    Args:
        instance: The Dagster instance.
        run_id: The run; one that is finished, or not Dagster's, is left alone.
        why: What people shall read.
    """
    run = instance.get_run_by_id(run_id)
    if run is not None and not run.is_finished:
        reason: Any = JobFailureData(None, RunFailureReason.UNEXPECTED_TERMINATION)
        instance.report_run_failed(run, why, reason)
        instance.event_log_storage.free_concurrency_slots_for_run(run_id)


def forbid_retry(instance: dg.DagsterInstance, run_id: str) -> None:
    """See to it that the daemon does not retry a run that is about to be cancelled, and so to fail.

    Args:
        instance: The Dagster instance.
        run_id: The run.
    """
    if instance.has_run(run_id):
        instance.add_run_tags(run_id, {_MAX_RETRIES_TAG: "0"})


def report_cancelled(instance: dg.DagsterInstance, run_id: str, why: str) -> None:
    """Tell Dagster that a run was cancelled, where its process has not come to that itself.

    Args:
        instance: The Dagster instance.
        run_id: The run.
        why: What people shall read.
    """
    run = instance.get_run_by_id(run_id)
    if run is not None and not run.is_finished:
        instance.report_run_canceled(run, why)
        instance.event_log_storage.free_concurrency_slots_for_run(run_id)
