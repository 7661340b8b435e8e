"""The sensor that tells a catalog of lineage what batches did, thin."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import dagster as dg

from batch_pipelines.engine.lineage.send import VARIABLE, send_due
from resources.batches import Batches  # noqa: TC001  # Dagster reads the annotations

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batch_pipelines.engine.feeds import Feed

_INTERVAL_SECONDS = 30
# Dagster gives a tick a minute; an event that is begun at the end of this may take five seconds more.
_BUDGET_SECONDS = 30.0


def lineage_sensor(feeds: Mapping[str, Feed]) -> dg.SensorDefinition:
    """Make the sensor that sends OpenLineage events.

    Args:
        feeds: The feeds, by name.

    Returns:
        A sensor named `lineage`. It launches nothing; the ledger keeps what was sent.
    """

    @dg.sensor(
        name="lineage",
        minimum_interval_seconds=_INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Sends OpenLineage events of batches to {VARIABLE}.",
    )
    def _lineage(
        context: dg.SensorEvaluationContext, batches: dg.ResourceParam[Batches]
    ) -> dg.SkipReason:
        if batches.settings.openlineage_url is None:
            return dg.SkipReason(f"No catalog is set: {VARIABLE}.")
        with batches.connect("lineage") as connection:
            done = send_due(connection, batches.settings, feeds, _now, budget=_BUDGET_SECONDS)
        if done.problem is not None:
            context.log.warning("lineage: %s", done.problem)
        return dg.SkipReason(f"{done.sent} sent{f'; {done.problem}' if done.problem else ''}.")

    return _lineage


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
