"""Telling Dagster that a batch was rolled back: its partition must not look healthy any more.

Open-source Dagster cannot wipe a partition. A partition reads as failed when a run that planned to
materialize it failed after it was last materialized. So a run of the feed's job is written down that
planned all of its stages and failed, with the reason: the UI then shows the partition as failed, and
reruns it with the other failed ones. Each stage also gets an observation of what happened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.events import (
    AssetMaterializationPlannedData,
    DagsterEvent,
)  # not exported; what every launched run begins with
from dagster._core.utils import make_new_run_id

from batch_pipelines.engine.ledger.stages import STAGES
from resources.runs import LOCATION, PARTITION_TAG, REPOSITORY_TAG, ROLLED_BACK_TAG

if TYPE_CHECKING:
    from batch_pipelines.engine.ledger.batches import Batch


def tell_rolled_back(instance: dg.DagsterInstance, batch: Batch) -> None:
    """Show a batch's partition as failed, because the batch was rolled back; told once.

    Args:
        instance: The Dagster instance.
        batch: The batch, rolled back.
    """
    known = dg.RunsFilter(tags={ROLLED_BACK_TAG: batch.batch_id})
    if instance.get_runs_count(known):
        return
    stages = [dg.AssetKey([batch.feed, stage]) for stage in STAGES]
    run = instance.add_run(
        dg.DagsterRun(
            job_name=batch.feed,
            run_id=make_new_run_id(),
            status=dg.DagsterRunStatus.STARTED,
            asset_selection=frozenset(stages),
            tags={
                PARTITION_TAG: batch.partition_key,
                REPOSITORY_TAG: LOCATION,
                ROLLED_BACK_TAG: batch.batch_id,
            },
        )
    )
    why = (
        f"Batch {batch.batch_id} was rolled back by {batch.rolled_back_by}: {batch.rollback_reason}"
    )
    for key in stages:
        planned = AssetMaterializationPlannedData(key, partition=batch.partition_key)
        event = DagsterEvent.build_asset_materialization_planned_event(
            batch.feed, key.to_python_identifier(), planned
        )
        instance.report_dagster_event(event, run.run_id)
        instance.report_runless_asset_event(
            dg.AssetObservation(
                asset_key=key,
                partition=batch.partition_key,
                description=why,
                metadata={
                    "batch_id": batch.batch_id,
                    "batch_status": batch.status,
                    "rolled_back_by": batch.rolled_back_by or "",
                    "reason": batch.rollback_reason or "",
                },
            )
        )
    instance.report_run_failed(run, why)
