"""Sensors: thin wrappers around pure decisions."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import time
from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.storage.tags import SENSOR_NAME_TAG

from batch_pipelines.engine.feeds import is_key
from batch_pipelines.engine.ledger import pauses
from batch_pipelines.engine.places.place import anything
from batch_pipelines.engine.reconciliation.loaded_batches import check_loaded, loaded_batches
from batch_pipelines.engine.sources import place
from batch_pipelines.engine.timetable import Sieve
from batch_pipelines.engine.watching import look, read_position, told, written
from batch_pipelines.launching import asked_for, room
from batch_pipelines.partitions import register_request
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
        A sensor named `landing_<feed>`. The ledger knows what has been tried, Dagster's run keys what
        has been asked for; the cursor says which of many known partitions are looked at next.
    """
    name = f"landing_{feed.feed}"

    @dg.sensor(
        name=name,
        job_name=feed.feed,
        minimum_interval_seconds=_INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Watches {place(feed)} for new and corrected deliveries.",
    )
    def _landing(
        context: dg.SensorEvaluationContext, batches: dg.ResourceParam[Batches]
    ) -> dg.SensorResult | dg.SkipReason:
        instance = context.instance
        with batches.connect(f"landing {feed.feed}") as connection:
            if pause := pauses.pause_of(connection, feed.feed):
                return dg.SkipReason(str(pause))
            sieve = Sieve.of(feed, dt.datetime.now(dt.UTC))
            found = look(
                connection,
                feed,
                batches.settings.root,
                read_position(context.cursor),
                clock=time.time,
                room=lambda: room(instance, feed),
                asked=lambda run_keys: asked_for(instance, run_keys, SENSOR_NAME_TAG, name),
                wanted=anything if sieve is None else sieve.lets_through,
            )
        position, passed_over = written(found.position), told(feed, found)
        passed_over += [] if sieve is None else sieve.told()
        if not found.decision.launch:
            context.update_cursor(position)
            return dg.SkipReason(" ".join([f"Nothing new in {place(feed)}.", *passed_over]))
        for sentence in passed_over:
            context.log.info(sentence)
        keys = [arrival.key for arrival in found.decision.launch]
        return dg.SensorResult(
            dynamic_partitions_requests=register_request(instance, feed, keys),
            run_requests=[
                dg.RunRequest(
                    run_key=arrival.run_key,
                    partition_key=arrival.key,
                    tags={REQUESTED_BY_TAG: f"sensor {name}"},
                )
                for arrival in found.decision.launch
            ],
            cursor=position,
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
            dynamic_partitions_requests=register_request(context.instance, feed, fresh),
            run_requests=[
                dg.RunRequest(run_key=key, partition_key=key, tags=tags) for key in fresh
            ],
        )

    return _reconcile
