"""Jobs: for each feed one that imports and one that replays; and for all, taking back and verifying."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

from assets import feed_checks
from assets.compliance_report import NAME as COMPLIANCE_REPORT
from assets.erasure import resume_erasures_op
from assets.rerun import rerun_op
from assets.restore import restore_op
from assets.retention import (
    archive_and_delete_op,
    plan_retention_op,
    report_retention_op,
    retention_config,
)
from assets.rollback import plan_op, rollback_config, rollback_op, verify_rollback_op
from assets.verify import verify_op
from assets.verify_archive import verify_archive_op
from assets.verify_audit import verify_audit_op
from batch_pipelines.run_tags import priority_tags

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dagster import UnresolvedAssetJobDefinition

    from batch_pipelines.engine.feeds import Feed


def feed_job(feed: Feed, tags: Mapping[str, str]) -> UnresolvedAssetJobDefinition:
    """Make the job that imports a feed's partition, or reconciles it.

    Args:
        feed: The feed.
        tags: Of every run of it.

    Returns:
        A job under the feed's name. It runs in one process: a process a stage would cost two
        seconds each, and parallel work comes from parallel runs.
    """
    return dg.define_asset_job(
        name=feed.feed,
        # What is watched over many batches is none of a batch's run.
        selection=dg.AssetSelection.groups(feed.feed)
        - dg.AssetSelection.checks(*[check.check_key for check in feed_checks(feed)]),
        description=feed.description
        or f"{'Reconciles' if feed.is_reconciled else 'Imports'} {feed.feed}.",
        executor_def=dg.in_process_executor,
        tags=tags,
    )


def replay_job(feed: Feed, tags: Mapping[str, str]) -> UnresolvedAssetJobDefinition:
    """Make the job that loads what was set aside of a feed's partition.

    Args:
        feed: The feed.
        tags: Of every run of it.

    Returns:
        A job `FEED_replay`: the stages from bulk-write on.
    """
    stages = [dg.AssetKey([feed.feed, stage]) for stage in ("bulk_write", "validate", "archive")]
    return dg.define_asset_job(
        name=f"{feed.feed}_replay",
        selection=dg.AssetSelection.assets(*stages),
        description=f"Loads records of {feed.feed} that were set aside, once the cause is mended.",
        executor_def=dg.in_process_executor,
        config={"ops": {f"{feed.feed}__bulk_write": {"config": {"replay": True}}}},
        tags=tags,
    )


def rollback_job() -> dg.JobDefinition:
    """Make the job that takes batches back, of any feed.

    Returns:
        A job `rollback` with the ops plan, rollback and verify; without more said, a dry run.
    """

    @dg.job(
        name="rollback",
        description="Takes published batches back, exactly. The default is a dry run: only the plan.",
        config=rollback_config,
        # Somebody waits for it, and what it takes away is wrong.
        tags=priority_tags("critical"),
        executor_def=dg.in_process_executor,
    )
    def _rollback() -> None:
        verify_rollback_op.alias("verify")(rollback_op.alias("rollback")(plan_op()))

    return _rollback


def erasure_job() -> dg.JobDefinition:
    """Make the job that ends erasures, of any feed.

    Returns:
        A job `erasure`; it takes no configuration, for nothing of a person may stand in one.
    """

    @dg.job(
        name="erasure",
        description="Ends erasures that were begun by `batch-pipelines erase` and left the tables.",
        executor_def=dg.in_process_executor,
    )
    def _erasure() -> None:
        resume_erasures_op()

    return _erasure


def restore_job() -> dg.JobDefinition:
    """Make the job that brings rows of archived batches back, of any feed.

    Returns:
        A job `restore`; without more said, a dry run.
    """

    @dg.job(
        name="restore",
        description="Brings the rows of an archived batch back. The default is a dry run: the plan.",
        executor_def=dg.in_process_executor,
    )
    def _restore() -> None:
        restore_op()

    return _restore


def retention_job() -> dg.JobDefinition:
    """Make the job that archives and deletes what is due, of all feeds.

    Returns:
        A job `retention` with the ops plan, archive_and_delete and report; without more said, a dry run.
    """

    @dg.job(
        name="retention",
        description="Archives what is due by the feeds' rules, reads it back, and only then deletes it. "
        "The default is a dry run: only the plan.",
        config=retention_config,
        executor_def=dg.in_process_executor,
        tags={
            # No delivery waits for it.
            **priority_tags("low"),
            # What failed is tried again the next night.
            "dagster/retry_on_asset_or_op_failure": "false",
        },
    )
    def _retention() -> None:
        due = plan_retention_op.alias("plan")()
        report_retention_op.alias("report")(archive_and_delete_op(due))

    return _retention


def verify_job(feeds: Mapping[str, Feed]) -> dg.JobDefinition:
    """Make the job that proves batches again.

    Args:
        feeds: The feeds by name.

    Returns:
        A job `verify_batches`; it fails where rows differ.
    """
    verify = verify_op(feeds)

    @dg.job(
        name="verify_batches",
        description="Proves batches again, against the tables of today.",
        executor_def=dg.in_process_executor,
        tags={
            # No delivery waits for it.
            **priority_tags("low"),
            # What differs differs the next time, too.
            "dagster/retry_on_asset_or_op_failure": "false",
        },
    )
    def _verify_batches() -> None:
        verify()

    return _verify_batches


def rerun_job(feeds: Mapping[str, Feed]) -> dg.JobDefinition:
    """Make the job that asks for failed partitions to be run again.

    Args:
        feeds: The feeds that import, by name.

    Returns:
        A job `rerun_failed`; the sensor of the same name launches what it asks for.
    """
    ask = rerun_op(feeds)

    @dg.job(
        name="rerun_failed",
        description="Runs failed partitions again, as a whole: launched at the sensor's next tick.",
        executor_def=dg.in_process_executor,
    )
    def _rerun_failed() -> None:
        ask()

    return _rerun_failed


def compliance_report_job() -> UnresolvedAssetJobDefinition:
    """Make the job that reports a month to auditors.

    Returns:
        A job `compliance_report_month`, of the asset's partitions.
    """
    return dg.define_asset_job(
        name=f"{COMPLIANCE_REPORT}_month",
        selection=dg.AssetSelection.assets(COMPLIANCE_REPORT),
        description="Reports a month of all feeds, for auditors.",
        executor_def=dg.in_process_executor,
        tags=priority_tags("low"),
    )


def verify_archive_job(feeds: Mapping[str, Feed]) -> dg.JobDefinition:
    """Make the job that reads bags again.

    Args:
        feeds: The feeds by name.

    Returns:
        A job `verify_archive`; it fails where bags are damaged, missing or unknown.
    """
    verify = verify_archive_op(feeds)

    @dg.job(
        name="verify_archive",
        description="Reads bags again, and holds archive and ledger against each other.",
        executor_def=dg.in_process_executor,
        # What is damaged is so the next time, too.
        tags={
            "dagster/retry_on_asset_or_op_failure": "false",
            **priority_tags("low"),
        },
    )
    def _verify_archive() -> None:
        verify()

    return _verify_archive


def verify_audit_job() -> dg.JobDefinition:
    """Make the job that verifies the audit trail.

    Returns:
        A job `verify_audit`; it fails where the trail does not hold.
    """

    @dg.job(
        name="verify_audit",
        description="Verifies the audit trail, against its hashes, its anchors and the ledger.",
        tags=priority_tags("low"),
        executor_def=dg.in_process_executor,
    )
    def _verify_audit() -> None:
        verify_audit_op()

    return _verify_audit
