"""Schedules, thin."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

from resources.batches import REQUESTED_BY_TAG

if TYPE_CHECKING:
    from dagster import JobDefinition

_NAME = "verify_nightly"


def verify_schedule(job: JobDefinition) -> dg.ScheduleDefinition:
    """Make the schedule that proves a sample of batches again every night.

    Args:
        job: The job that verifies.

    Returns:
        A schedule at 02:30 UTC.
    """
    return dg.ScheduleDefinition(
        name=_NAME,
        job=job,
        cron_schedule="30 2 * * *",
        tags={REQUESTED_BY_TAG: f"schedule {_NAME}"},
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Proves a sample of batches again, those longest not verified first.",
    )
