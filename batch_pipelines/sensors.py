"""Sensors: thin wrappers around pure decisions."""

from __future__ import annotations

import hashlib
import json
import time
from typing import TYPE_CHECKING

import dagster as dg

from batch_pipelines.engine.feeds import is_key
from batch_pipelines.engine.landing import asked_since, cursor_of, new_deliveries
from batch_pipelines.engine.ledger import pauses
from batch_pipelines.engine.ledger.batches import attempts, fingerprints
from batch_pipelines.engine.reconciliation.loaded_batches import check_loaded, loaded_batches
from batch_pipelines.engine.sources import place, scan
from batch_pipelines.partitions import feed_partitions
from resources.batches import REQUESTED_BY_TAG, Batches

if TYPE_CHECKING:
    from batch_pipelines.engine.feeds import Feed

_INTERVAL_SECONDS = 15
_RECONCILE_SECONDS = 60
# Runs of one tick; the next ones come with the next.
_MOST_RUNS = 100


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
            if pause := pauses.pause_of(connection, feed.feed):
                return dg.SkipReason(str(pause))
            paused = pauses.times_paused(connection, feed.feed)
            tried = fingerprints(connection, feed.feed)
            tries = attempts(connection, feed.feed)
        asked = asked_since(json.loads(context.cursor or "{}"), paused)
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
                    # delivery is launched; the attempt, so that one put back as it was is too; and the
                    # pauses, so that one is whose run was refused.
                    run_key=f"{key}:{fingerprint}:{tries.get(key, 0) + 1}{f':{paused}' * bool(paused)}",
                    partition_key=key,
                    tags={REQUESTED_BY_TAG: f"sensor landing_{feed.feed}"},
                )
                for key, fingerprint in fresh.items()
            ],
            # What has left landing is forgotten, so that the cursor does not grow for ever.
            cursor=json.dumps(
                cursor_of({k: v for k, v in asked.items() if k in landed} | fresh, paused)
            ),
        )

    return _landing


def reconcile_sensor(feed: Feed) -> dg.SensorDefinition:
    """Make the sensor that finds batches that another system has loaded, and has them compared.

    Args:
        feed: A feed that is reconciled.

    Returns:
        A sensor named `reconcile_<feed>`. It launches a batch once; one that could not be verified is
        tried again by hand.
    """
    partitions = feed_partitions(feed)

    @dg.sensor(
        name=f"reconcile_{feed.feed}",
        job_name=feed.feed,
        minimum_interval_seconds=_RECONCILE_SECONDS,
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
            dynamic_partitions_requests=[partitions.build_add_request(fresh)],
            run_requests=[
                dg.RunRequest(run_key=key, partition_key=key, tags=tags) for key in fresh
            ],
        )

    return _reconcile
