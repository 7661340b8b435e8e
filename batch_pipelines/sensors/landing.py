"""The sensor that finds deliveries in landing, thin."""

from __future__ import annotations

import datetime as dt
import time
from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.storage.tags import SENSOR_NAME_TAG

from batch_pipelines.engine.landing.watching import look, read_position, told, written
from batch_pipelines.engine.ledger import pauses
from batch_pipelines.engine.places.place import anything
from batch_pipelines.engine.sources import place
from batch_pipelines.engine.windowing.timetable import Sieve
from batch_pipelines.launching import asked_for, room
from batch_pipelines.partitions import register_request
from resources.batches import REQUESTED_BY_TAG, Batches

if TYPE_CHECKING:
    from batch_pipelines.engine.feeds import Feed

_INTERVAL_SECONDS = 15


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
