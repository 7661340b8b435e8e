"""The sensor that notices deliveries which are late, thin."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import dagster as dg

from batch_pipelines.engine.ledger.arrivals import known_keys
from batch_pipelines.engine.sources import look, place
from batch_pipelines.engine.windowing.lateness import tell_late
from resources.batches import Batches  # noqa: TC001  # Dagster reads the annotation

if TYPE_CHECKING:
    from batch_pipelines.engine.feeds import Feed

_INTERVAL_SECONDS = 60


def late_sensor(feed: Feed) -> dg.SensorDefinition:
    """Make the sensor that tells of a feed's deliveries that are late.

    Args:
        feed: A feed whose partitions have a `late_after`.

    Returns:
        A sensor named `late_<feed>`. It launches nothing, and keeps nothing in its cursor.
    """

    @dg.sensor(
        name=f"late_{feed.feed}",
        minimum_interval_seconds=_INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Tells when a delivery of {place(feed)} is late.",
    )
    def _late(_: dg.SensorEvaluationContext, batches: dg.ResourceParam[Batches]) -> dg.SkipReason:
        with batches.connect(f"late {feed.feed}") as connection:
            known = set(known_keys(connection, feed.feed))
            waiting = look(feed, batches.settings.root, lambda key: key not in known)
            arrived = known | waiting.deliveries.keys()
            now = dt.datetime.now(dt.UTC)
            found = tell_late(connection, feed, arrived, place=place(feed), now=now)
        keys = ", ".join(late.window.key for late in found)
        return dg.SkipReason(f"Late: {keys}." if found else "No delivery is late.")

    return _late
