"""The one place where everything is wired together. Nothing imports it but the command line."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets import feed_assets, feed_checks
from assets.compliance_report import compliance_report_asset
from batch_pipelines.engine.feed_files import load_feeds
from batch_pipelines.engine.settings import load_settings
from batch_pipelines.engine.work import no_progress
from batch_pipelines.jobs import (
    compliance_report_job,
    erasure_job,
    feed_job,
    replay_job,
    rerun_job,
    restore_job,
    retention_job,
    rollback_job,
    verify_archive_job,
    verify_audit_job,
    verify_job,
)
from batch_pipelines.run_tags import feed_tags
from batch_pipelines.schedules import (
    compliance_report_schedule,
    retention_schedule,
    verify_archive_schedule,
    verify_audit_schedule,
    verify_schedule,
    window_schedule,
)
from batch_pipelines.sensors.alerting import alerts_sensor, thresholds_sensor
from batch_pipelines.sensors.healing import dead_runs_sensor, rerun_sensor
from batch_pipelines.sensors.landing import landing_sensor
from batch_pipelines.sensors.lateness import late_sensor
from batch_pipelines.sensors.lineage import lineage_sensor
from batch_pipelines.sensors.reconciling import reconcile_sensor
from resources.batches import batches_resource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.settings import Settings
    from batch_pipelines.engine.work import Progress


def build_defs(
    *,
    feeds: Iterable[Feed] | None = None,
    load: Callable[[], Settings] = load_settings,
    progress: Progress = no_progress,
    resource_overrides: Mapping[str, Any] | None = None,
) -> dg.Definitions:
    """Make the definitions of the code location.

    Args:
        feeds: The feeds; None reads the feeds folder of the settings.
        load: Reads the settings.
        progress: Told how far a stage has come.
        resource_overrides: Resources to use in place of the usual ones, by name.

    Returns:
        Assets, jobs, schedules and sensors of all feeds, and their resources.

    Raises:
        FeedError: A feed file is wrong.
        SettingsError: The environment is wrong.
    """
    settings = load()
    chosen = [*(load_feeds(settings.feeds).values() if feeds is None else feeds)]
    with warnings.catch_warnings():
        # BackfillPolicy is beta in Dagster 1.13; that it may change is caught by its pinned version.
        warnings.simplefilter("ignore", dg.BetaWarning)
        assets = [asset for feed in chosen for asset in feed_assets(feed)]
        assets.append(compliance_report_asset(settings))
    imported = [feed for feed in chosen if not feed.is_reconciled]
    reconciled = [feed for feed in chosen if feed.is_reconciled and not feed.is_compared_whole]
    tags = feed_tags(chosen)
    rollback, retention = rollback_job(), retention_job()
    by_name = {feed.feed: feed for feed in imported}
    jobs = {feed.feed: feed_job(feed, tags[feed.feed]) for feed in chosen}
    every = {feed.feed: feed for feed in chosen}
    verify, verify_archive = verify_job(every), verify_archive_job(every)
    verify_audit = verify_audit_job()
    return dg.Definitions(
        assets=assets,
        asset_checks=[check for feed in chosen for check in feed_checks(feed)],
        jobs=[
            *jobs.values(),
            *[replay_job(feed, tags[feed.feed]) for feed in imported],
            rollback,
            erasure_job(),
            restore_job(),
            retention,
            verify,
            rerun_job(by_name),
            verify_archive,
            verify_audit,
            compliance_report_job(),
        ],
        schedules=[
            *[window_schedule(feed) for feed in imported if feed.partitions is not None],
            retention_schedule(retention),
            verify_schedule(verify),
            verify_archive_schedule(verify_archive),
            verify_audit_schedule(verify_audit),
            compliance_report_schedule(settings),
        ],
        sensors=[
            *map(landing_sensor, imported),
            *map(reconcile_sensor, reconciled),
            *[late_sensor(f) for f in imported if f.partitions and f.partitions.late_after],
            thresholds_sensor(chosen, rollback.name),
            alerts_sensor(),
            lineage_sensor(every),
            dead_runs_sensor(),
            rerun_sensor(by_name, [jobs[name] for name in by_name]),
        ],
        resources={"batches": batches_resource(load, progress), **(resource_overrides or {})},
        executor=dg.in_process_executor,
    )


@dg.definitions
def defs() -> dg.Definitions:
    """Load the code location; Dagster calls it by way of workspace.yaml."""
    return build_defs()
