"""Telling at once what a batch has raised, by the run that raised it.

The alerts are committed already, and the sensor sends whatever is left: nothing here may fail a batch.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import psycopg

from batch_pipelines.engine.alerts.channels import read_channels
from batch_pipelines.engine.alerts.send import send_waiting
from batch_pipelines.engine.errors import BatchError

if TYPE_CHECKING:
    from batch_pipelines.engine.work import Work

# A batch is held up no longer than this and one message that a channel does not take.
_BUDGET = dt.timedelta(seconds=10)


def tell_at_once(work: Work, batch_id: str) -> None:
    """Send the alerts of critical rows that wait, as far as that can be done now.

    What goes wrong is given to the work's `notice`; the sensor `alerts` tries again.

    Args:
        work: The run's work; with a connection of its own, the run's is left alone.
        batch_id: The batch.
    """
    if not work.feed.has_critical:
        return
    try:
        channels = read_channels(work.settings.alerts)
        if not channels.urls:
            return
        with work.database.connect("alerts") as connection:
            done = send_waiting(connection, channels, work.clock, budget=_BUDGET, batch_id=batch_id)
    except (BatchError, psycopg.Error, OSError) as error:
        # Of a driver's error only the kind: its text may hold what stands in no log.
        why = str(error) if isinstance(error, BatchError) else type(error).__name__
        work.notice(f"Alerts of the batch wait for the sensor: {why}")
        return
    for name, why in done.failed.items():
        work.notice(f"Channel {name}: {why}; the sensor tries again.")
