"""Sensors that mend what went wrong: dead runs are failed, failed partitions are run again."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import dagster as dg

from batch_pipelines.partitions import register_request
from resources.batches import REQUESTED_BY_TAG, Batches
from resources.dead_runs import end_dead_runs
from resources.reruns import choose_due

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dagster import UnresolvedAssetJobDefinition

    from batch_pipelines.engine.feeds import Feed

# A dead run is to be failed within a minute of its lease's end, of which half may go by waiting
# whether a hung one wakes up.
_DEAD_RUNS_SECONDS = 15
_RERUN_SECONDS = 30
# Runs of one tick; the next ones come with the next.
_MOST_RUNS = 100
# Failed partitions that a tick names which does nothing about them.
_MOST_TOLD = 10


def dead_runs_sensor() -> dg.SensorDefinition:
    """Make the sensor that fails batches and runs whose process is gone, or hangs.

    Returns:
        A sensor named `dead_runs`, for all feeds.
    """

    @dg.sensor(
        name="dead_runs",
        minimum_interval_seconds=_DEAD_RUNS_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Fails batches and runs whose process is gone: Dagster's launcher does not notice.",
    )
    def _dead_runs(
        context: dg.SensorEvaluationContext, batches: dg.ResourceParam[Batches]
    ) -> dg.SkipReason:
        told = end_dead_runs(context.instance, batches)
        for line in told:
            context.log.warning(line)
        return dg.SkipReason("; ".join(told) or "No run is dead.")

    return _dead_runs


def rerun_sensor(
    feeds: Mapping[str, Feed], jobs: Sequence[UnresolvedAssetJobDefinition]
) -> dg.SensorDefinition:
    """Make the sensor that runs failed partitions again: what may have healed, and what was asked for.

    Args:
        feeds: The feeds that import, by name.
        jobs: Their jobs.

    Returns:
        A sensor named `rerun_failed`. A schedule would launch one job alone, and forget run keys.
    """

    @dg.sensor(
        name="rerun_failed",
        jobs=jobs,
        minimum_interval_seconds=_RERUN_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Runs failed partitions again where the cause may be gone, after growing pauses.",
    )
    def _rerun_failed(
        context: dg.SensorEvaluationContext, batches: dg.ResourceParam[Batches]
    ) -> dg.SensorResult | dg.SkipReason:
        now = dt.datetime.now(dt.UTC)
        chosen = choose_due(context.instance, batches, feeds, now)
        due = [each for each in chosen if each.decision.run][:_MOST_RUNS]
        if not due:
            left = [f"{c.failed.name}: {c.decision.why}" for c in chosen[:_MOST_TOLD]]
            return dg.SkipReason("; ".join(left) or "No partition stands failed.")
        return dg.SensorResult(
            dynamic_partitions_requests=[
                request
                for name, feed in feeds.items()
                for request in register_request(
                    context.instance,
                    feed,
                    [each.failed.partition_key for each in due if each.failed.feed == name],
                )
            ],
            run_requests=[
                dg.RunRequest(
                    # The attempt is in the key: each failure is run again once.
                    run_key=f"{each.failed.name}:{each.failed.occasion}",
                    job_name=each.failed.feed,
                    partition_key=each.failed.partition_key,
                    run_config=each.run_config,
                    tags={REQUESTED_BY_TAG: each.requested_by or "sensor rerun_failed"},
                )
                for each in due
            ],
        )

    return _rerun_failed
