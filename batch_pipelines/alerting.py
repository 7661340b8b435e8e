"""The sensors that watch the ledger and tell people, thin."""

from __future__ import annotations

import datetime as dt

import dagster as dg

from batch_pipelines.engine.alerts.channels import VARIABLE, read_channels
from batch_pipelines.engine.alerts.send import send_waiting
from resources.batches import Batches  # noqa: TC001  # Dagster reads the annotation

_INTERVAL_SECONDS = 15
# Dagster gives a tick a minute; a message that is begun at the end of this may take ten seconds more.
_BUDGET = dt.timedelta(seconds=20)


def alerts_sensor() -> dg.SensorDefinition:
    """Make the sensor that sends what the ledger has to tell.

    Returns:
        A sensor named `alerts`. It launches nothing, and keeps nothing in its cursor.
    """

    @dg.sensor(
        name="alerts",
        minimum_interval_seconds=_INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Sends alerts of the ledger to the channels of {VARIABLE}.",
    )
    def _alerts(
        context: dg.SensorEvaluationContext, batches: dg.ResourceParam[Batches]
    ) -> dg.SkipReason:
        channels = read_channels(batches.settings.alerts)
        if not channels.urls:
            return dg.SkipReason(f"No channel is set: {VARIABLE}.")
        with batches.connect("alerts") as connection:
            done = send_waiting(connection, channels, _now, budget=_BUDGET)
        for channel, error in done.failed.items():
            context.log.warning("channel %s: %s", channel, error)
        return dg.SkipReason(f"{done.sent} sent, {done.waiting} still to be sent.")

    return _alerts


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
