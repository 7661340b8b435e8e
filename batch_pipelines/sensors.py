"""Sensors: thin wrappers around pure decisions."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import dagster as dg

from batch_pipelines.engine.landing import new_deliveries
from batch_pipelines.engine.ledger.batches import attempts, fingerprints
from batch_pipelines.engine.sources import place, scan
from batch_pipelines.partitions import feed_partitions
from resources.batches import REQUESTED_BY_TAG, Batches

if TYPE_CHECKING:
    from batch_pipelines.engine.feeds import Feed

_INTERVAL_SECONDS = 15


def landing_sensor(feed: Feed) -> dg.SensorDefinition:
    """Make the sensor that finds a feed's deliveries, registers their partitions and launches them.

    Args:
        feed: The feed.

    Returns:
        A sensor named `landing_<feed>`; its cursor keeps what it has asked for, the ledger what has
        been tried.
    """
    partitions = feed_partitions(feed)

    @dg.sensor(
        name=f"landing_{feed.feed}",
        job_name=feed.feed,
        minimum_interval_seconds=_INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Watches {place(feed)} for new and corrected deliveries.",
    )
    def _landing(
        context: dg.SensorEvaluationContext, batches: dg.ResourceParam[Batches]
    ) -> dg.SensorResult | dg.SkipReason:
        with batches.connect(f"landing {feed.feed}") as connection:
            tried = fingerprints(connection, feed.feed)
            tries = attempts(connection, feed.feed)
        asked = json.loads(context.cursor or "{}")
        landed = scan(feed, batches.settings.root)
        fresh = new_deliveries(
            landed, tried, asked, now=time.time(), settle_seconds=feed.source.settle_seconds
        )
        if not fresh:
            return dg.SkipReason(f"Nothing new in {place(feed)}.")
        known = context.instance.get_dynamic_partitions(feed.feed)
        return dg.SensorResult(
            dynamic_partitions_requests=[
                partitions.build_add_request([k for k in fresh if k not in known])
            ],
            run_requests=[
                dg.RunRequest(
                    # Dagster remembers a run key for ever. The content is in it, so that a corrected
                    # delivery is launched; and the attempt, so that one put back as it was is too.
                    run_key=f"{key}:{fingerprint}:{tries.get(key, 0) + 1}",
                    partition_key=key,
                    tags={REQUESTED_BY_TAG: f"sensor landing_{feed.feed}"},
                )
                for key, fingerprint in fresh.items()
            ],
            # What has left landing is forgotten, so that the cursor does not grow for ever.
            cursor=json.dumps({k: v for k, v in asked.items() if k in landed} | fresh),
        )

    return _landing
