"""The sensor that finds batches of another system, thin."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import dagster as dg

from batch_pipelines.engine.feeds import is_key
from batch_pipelines.engine.reconciliation.loaded_batches import check_loaded, loaded_batches
from batch_pipelines.partitions import register_request
from resources.batches import REQUESTED_BY_TAG, Batches

if TYPE_CHECKING:
    from batch_pipelines.engine.feeds import Feed

_INTERVAL_SECONDS = 60
# Runs of one tick; the next ones come with the next.
_MOST_RUNS = 100


def reconcile_sensor(feed: Feed) -> dg.SensorDefinition:
    """Make the sensor that finds batches that another system has loaded, and has them compared.

    Args:
        feed: A feed that is reconciled.

    Returns:
        A sensor named `reconcile_<feed>`. It launches a batch once; one that could not be verified is
        tried again by hand.
    """

    @dg.sensor(
        name=f"reconcile_{feed.feed}",
        job_name=feed.feed,
        minimum_interval_seconds=_INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Watches {', '.join(t.table for t in feed.tables)} for batches of another system.",
    )
    def _reconcile(
        context: dg.SensorEvaluationContext, batches: dg.ResourceParam[Batches]
    ) -> dg.SensorResult | dg.SkipReason:
        with batches.connect(f"reconcile {feed.feed}") as connection:
            check_loaded(connection, feed)
            waiting = loaded_batches(connection, feed)
        tags = {REQUESTED_BY_TAG: f"sensor reconcile_{feed.feed}"}
        if feed.validation == "together" and waiting:
            window = hashlib.sha256(json.dumps(waiting).encode()).hexdigest()
            return dg.SensorResult(run_requests=[dg.RunRequest(run_key=window, tags=tags)])
        known = set(context.instance.get_dynamic_partitions(feed.feed))
        fresh = [key for key in waiting if is_key(key) and key not in known][:_MOST_RUNS]
        if odd := [key for key in waiting if not is_key(key)]:
            context.log.warning(
                "%d batches have ids that are no partition keys: batch-pipelines reconcile %s",
                len(odd), feed.feed,
            )  # fmt: skip
        if not fresh:
            return dg.SkipReason("No batch is new.")
        return dg.SensorResult(
            dynamic_partitions_requests=register_request(context.instance, feed, fresh),
            run_requests=[
                dg.RunRequest(run_key=key, partition_key=key, tags=tags) for key in fresh
            ],
        )

    return _reconcile
