"""Schedules, thin."""

from __future__ import annotations

import datetime as dt
import time
from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.storage.tags import SCHEDULE_NAME_TAG

from assets.compliance_report import NAME as COMPLIANCE_REPORT
from batch_pipelines.engine.compliance.scope import last_month
from batch_pipelines.engine.landing.watching import Position, look
from batch_pipelines.engine.ledger import pauses
from batch_pipelines.engine.ledger.arrivals import known_keys
from batch_pipelines.engine.sources import is_always_there, place
from batch_pipelines.engine.windowing.timetable import due
from batch_pipelines.launching import asked_for, room
from batch_pipelines.partitions import CRON
from resources.batches import REQUESTED_BY_TAG, Batches

if TYPE_CHECKING:
    from dagster import JobDefinition

    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.settings import Settings


def verify_schedule(job: JobDefinition) -> dg.ScheduleDefinition:
    """Make the schedule that proves a sample of batches again every night.

    Args:
        job: The job that verifies.

    Returns:
        A schedule at 02:30 UTC.
    """
    what = "Proves a sample of batches again, those longest not verified first."
    return _nightly("verify_nightly", job, "30 2 * * *", what)


def verify_archive_schedule(job: JobDefinition) -> dg.ScheduleDefinition:
    """Make the schedule that reads a sample of bags again every night.

    Args:
        job: The job that verifies bags.

    Returns:
        A schedule at 03:30 UTC.
    """
    what = "Reads a sample of bags again, those longest not looked at first."
    return _nightly("verify_archive_nightly", job, "30 3 * * *", what)


def verify_audit_schedule(job: JobDefinition) -> dg.ScheduleDefinition:
    """Make the schedule that verifies the audit trail every night.

    Args:
        job: The job that verifies it.

    Returns:
        A schedule at 04:30 UTC.
    """
    what = "Verifies the audit trail, against its hashes, its anchors and the ledger."
    return _nightly("verify_audit_nightly", job, "30 4 * * *", what)


def compliance_report_schedule(settings: Settings) -> dg.ScheduleDefinition:
    """Make the schedule that reports each month to auditors when it is over.

    Args:
        settings: Say in which time zone months are, and which is the first.

    Returns:
        A schedule at five o'clock on the first of each month.
    """
    name = "compliance_report_monthly"

    @dg.schedule(
        name=name,
        job_name=f"{COMPLIANCE_REPORT}_month",
        cron_schedule="0 5 1 * *",
        execution_timezone=settings.report_timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Reports each month of all feeds, for auditors, when it is over.",
    )
    def _compliance_report(
        context: dg.ScheduleEvaluationContext,
    ) -> dg.RunRequest | dg.SkipReason:
        over = last_month(context.scheduled_execution_time, settings.report_timezone)
        if over is None or over.name < settings.report_start:
            return dg.SkipReason(f"Months are reported from {settings.report_start} on.")
        tags = {REQUESTED_BY_TAG: f"schedule {name}"}
        return dg.RunRequest(run_key=over.name, partition_key=over.name, tags=tags)

    return _compliance_report


def retention_schedule(job: JobDefinition) -> dg.ScheduleDefinition:
    """Make the schedule that archives and deletes every night what is due.

    Args:
        job: The job `retention`.

    Returns:
        A schedule at 01:30 UTC; what it does is no dry run.
    """
    what = "Archives what is due by the feeds' rules, reads it back, and only then deletes it."
    return _nightly("retention_nightly", job, "30 1 * * *", what, run_config={"dry_run": False})


def _nightly(
    name: str,
    job: JobDefinition,
    cron_schedule: str,
    description: str,
    *,
    run_config: dict[str, object] | None = None,
) -> dg.ScheduleDefinition:
    return dg.ScheduleDefinition(
        name=name,
        job=job,
        cron_schedule=cron_schedule,
        tags={REQUESTED_BY_TAG: f"schedule {name}"},
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=description,
        run_config=run_config,
    )


def window_schedule(feed: Feed) -> dg.ScheduleDefinition:
    """Make the schedule that launches each window of a feed when it is over.

    Args:
        feed: A feed whose partitions are windows of time.

    Returns:
        A schedule named `windows_<feed>`. What is not there yet, the landing sensor launches when it is.
    """
    said, windows = feed.partitions, feed.windows
    if said is None or windows is None:
        message = f"the partitions of feed {feed.feed} are no windows of time"
        raise ValueError(message)
    name = f"windows_{feed.feed}"

    @dg.schedule(
        name=name,
        job_name=feed.feed,
        cron_schedule=CRON[said.every],
        execution_timezone=said.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Launches each {said.every} of {place(feed)} when it is over.",
    )
    def _windows(
        context: dg.ScheduleEvaluationContext, batches: dg.ResourceParam[Batches]
    ) -> list[dg.RunRequest] | dg.SkipReason:
        instance = context.instance
        with batches.connect(name) as connection:
            if pause := pauses.pause_of(connection, feed.feed):
                return dg.SkipReason(str(pause))
            now = context.scheduled_execution_time.astimezone(dt.UTC)
            keys = due(windows, set(known_keys(connection, feed.feed)), now=now)
            paused = pauses.times_paused(connection, feed.feed)
            if is_always_there(feed):
                _, busy = room(instance, feed)
                launch = {key: f"{key}:{paused}" for key in keys if key not in busy}
            else:
                found = look(
                    connection,
                    feed,
                    batches.settings.root,
                    Position(),
                    clock=time.time,
                    room=lambda: room(instance, feed),
                    asked=lambda run_keys: asked_for(instance, run_keys, SCHEDULE_NAME_TAG, name),
                    wanted=lambda key: key in keys,
                )
                launch = {arrival.key: arrival.run_key for arrival in found.decision.launch}
        if not launch:
            return dg.SkipReason(f"Nothing is there yet in {place(feed)}, or it is loaded already.")
        tags = {REQUESTED_BY_TAG: f"schedule {name}"}
        return [
            dg.RunRequest(run_key=run_key, partition_key=key, tags=tags)
            for key, run_key in launch.items()
        ]

    return _windows
