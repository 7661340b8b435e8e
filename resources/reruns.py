"""Failed partitions, as the ledger and Dagster have them together, and which are run again now."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_START_TAG

from batch_pipelines.engine.alerts import Alert, raise_alert
from batch_pipelines.engine.errors import BatchError
from batch_pipelines.engine.landing.deliveries import find_delivery
from batch_pipelines.engine.ledger import pauses
from batch_pipelines.engine.rerun.deciding import Asked, Decision, decide, decide_asked, heals
from batch_pipelines.engine.rerun.failed import (
    Failed,
    begun_at,
    failed_partitions,
    without_batch,
)
from batch_pipelines.engine.rerun.requests import asked_by
from resources.runs import PARTITION_TAG, ROLLED_BACK_TAG

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.postgres.database import Connection
    from resources.batches import Batches

# Runs that failed before they had a batch are looked for so far back.
_WINDOW = dt.timedelta(days=1)
_MOST_RUNS = 1000
_ALERT = "rerun_given_up"
_GONE = ""
_PAUSED = Decision(run=False, why="its feed is paused")


@dataclass(frozen=True)
class Chosen:
    """A failed partition, and what is done about it.

    Attributes:
        failed: The partition.
        decision: What is done.
        requested_by: Who asked for it; None where it is done without anybody asking.
        reprocess: The batch whose source, out of its bag, it is to load, as what failed was to; None
            where that is what lies in landing.
    """

    failed: Failed
    decision: Decision
    requested_by: str | None = None
    reprocess: str | None = None

    @property
    def run_config(self) -> dict[str, Any]:
        """What the run of the feed's job is told; nothing, as a rule."""
        if self.reprocess is None:
            return {}
        return {"ops": {f"{self.failed.feed}__ingest": {"config": {"reprocess": self.reprocess}}}}


def stand_failed(
    instance: dg.DagsterInstance, batches: Batches, feeds: Mapping[str, Feed]
) -> list[Failed]:
    """List the partitions that stand failed, and for which no run waits or works.

    Args:
        instance: The Dagster instance.
        batches: Database and settings.
        feeds: The feeds whose partitions are looked at, by name.

    Returns:
        Them, the longest failed first; also those whose run failed before it had a batch.
    """
    waiting = {
        (feed, run.tags[tag])
        for run in instance.get_runs(dg.RunsFilter(statuses=[*NOT_FINISHED_STATUSES]))
        # A run of assets, as the UI launches them, has none of our jobs; one of a backfill has a range.
        for feed in {run.job_name, *(key.path[0] for key in run.asset_selection or ())}
        for tag in (PARTITION_TAG, ASSET_PARTITION_RANGE_START_TAG)
        if tag in run.tags
    }
    with batches.connect("failed partitions") as connection:
        found = {(f.feed, f.partition_key): f for f in failed_partitions(connection)}
        lost = _without_batch(instance, feeds)
        unknown = without_batch(connection, [each.batch_id for each in lost])
        for each in lost:
            place = (each.feed, each.partition_key)
            begun = begun_at(connection, *place)
            if each.batch_id not in unknown or (begun is not None and begun > each.failed_at):
                continue
            known = found.get(place)
            # One that stands failed already was being tried again: its tries go on counting.
            found[place] = (
                replace(known, tries=known.tries + each.tries, failed_at=each.failed_at)
                if known is not None
                else each
            )
    return sorted(
        (each for place, each in found.items() if each.feed in feeds and place not in waiting),
        key=lambda each: each.failed_at,
    )


def _without_batch(instance: dg.DagsterInstance, feeds: Collection[str]) -> list[Failed]:
    """List, for each partition, runs that failed lately; those in a row count as tries of one."""
    after = dt.datetime.now(dt.UTC) - _WINDOW
    wanted = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=after)
    found: dict[tuple[str, str], Failed] = {}
    for record in instance.get_run_records(wanted, limit=_MOST_RUNS):
        run = record.dagster_run
        key = run.tags.get(PARTITION_TAG)
        if run.job_name not in feeds or key is None or ROLLED_BACK_TAG in run.tags:
            continue
        place = (run.job_name, key)
        if place not in found:
            failed_at = dt.datetime.fromtimestamp(record.end_time or 0, dt.UTC)
            found[place] = Failed(
                *place, run.run_id, "FAILED", "no_batch", failed_at, fingerprint=None, tries=1
            )
        else:
            found[place] = replace(found[place], tries=found[place].tries + 1)
    return [*found.values()]


def choose_due(
    instance: dg.DagsterInstance, batches: Batches, feeds: Mapping[str, Feed], now: dt.datetime
) -> list[Chosen]:
    """Decide about each failed partition: what is due, or was asked for, is run again.

    Args:
        instance: The Dagster instance.
        batches: Database and settings.
        feeds: The feeds by name.
        now: The time, with time zone.

    Returns:
        Each of them. Of paused feeds nothing is run again.
    """
    failed = stand_failed(instance, batches, feeds)
    chosen = []
    with batches.connect("rerun") as connection:
        paused, asked = pauses.paused(connection), asked_by(connection)
        for each in failed:
            by = asked.get((each.feed, each.partition_key, each.occasion))
            bag = _bag_of(instance, each)
            decision = Decision(run=True, why=f"{by} asked for it")
            if by is None:
                decision = decide(each, feeds[each.feed].rerun, now)
            if each.feed in paused:
                decision = _PAUSED
            elif decision.run and _is_gone(feeds[each.feed], each, batches, bag):
                decision = Decision(run=False, why="its delivery is not in landing any more")
            elif not decision.run and decision.at is None and heals(each):
                _tell(connection, each, decision)
            chosen.append(Chosen(each, decision, by, bag))
    return chosen


def choose_asked(
    instance: dg.DagsterInstance,
    batches: Batches,
    feeds: Mapping[str, Feed],
    asked: Asked,
    names: Collection[str],
) -> list[Chosen]:
    """Decide about each failed partition where somebody asks.

    Args:
        instance: The Dagster instance.
        batches: Database and settings.
        feeds: The feeds by name.
        asked: What he asks for.
        names: Partitions that he named (FEED/KEY); none stands for all.

    Returns:
        Each of them, without those that he did not name.
    """
    chosen = []
    for each in stand_failed(instance, batches, feeds):
        if names and each.name not in names:
            continue
        bag = _bag_of(instance, each)
        # Whatever lies in landing, it is not what failed.
        delivery = None if bag else delivery_of(feeds[each.feed], each, batches) or None
        chosen.append(Chosen(each, decide_asked(each, asked, delivery), reprocess=bag))
    return chosen


def delivery_of(feed: Feed, failed: Failed, batches: Batches) -> str | None:
    """Give the fingerprint of what lies in landing for a partition.

    Args:
        feed: Its feed.
        failed: The partition.
        batches: Settings.

    Returns:
        The fingerprint; empty where nothing lies there; None where that cannot be told now.
    """
    if feed.source.query is not None or not feed.source.path:
        return None
    try:
        delivery = find_delivery(feed, failed.partition_key, batches.settings.root)
    except BatchError:
        return None
    return _GONE if delivery is None else delivery.fingerprint


def _is_gone(feed: Feed, failed: Failed, batches: Batches, bag: str | None) -> bool:
    return bag is None and delivery_of(feed, failed, batches) == _GONE


def _bag_of(instance: dg.DagsterInstance, failed: Failed) -> str | None:
    """Say out of which batch's bag a failed run was to load; None where it was out of landing."""
    # The batch's id is that of the run that began it; before there is one, the run itself is named.
    run = instance.get_run_by_id(failed.batch_id)
    told: dict[str, Any] = {} if run is None else dict(run.run_config)
    ops = told.get("ops", {})
    config = ops.get(f"{failed.feed}__ingest", {}).get("config", {})
    return config.get("reprocess") or None


def _tell(connection: Connection, failed: Failed, decision: Decision) -> None:
    raise_alert(
        connection,
        Alert(
            kind=_ALERT,
            severity="warning",
            subject=f"{failed.name} is not run again by itself any more",
            deduplication_key=f"{_ALERT}/{failed.name}/{failed.occasion}",
            feed=failed.feed,
            details={
                "cause": failed.cause,
                "why": decision.why,
                "next": f"batch-pipelines rerun-failed {failed.name}",
            },
        ),
    )
