"""The sensors that watch the ledger and tell people, thin."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from typing import TYPE_CHECKING

import dagster as dg

from assets.rollback import THRESHOLD_EVENT_TAG
from assets.thresholds import evaluation
from batch_pipelines.engine.alerts.channels import VARIABLE, read_channels
from batch_pipelines.engine.alerts.send import send_waiting
from batch_pipelines.engine.ledger import pauses, thresholds
from batch_pipelines.engine.monitoring import read_overall, watch_all
from resources.batches import REQUESTED_BY_TAG, Batches

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.ledger.thresholds import ToRollBack

_INTERVAL_SECONDS = 15
# A rollback that has not been done by then is somebody's decision.
_ASKED_FOR = dt.timedelta(days=1)
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


def thresholds_sensor(feeds: Iterable[Feed], rollback: str) -> dg.SensorDefinition:
    """Make the sensor that watches the last batches, of each feed and of all together.

    Args:
        feeds: The feeds.
        rollback: Name of the job that takes batches back.

    Returns:
        A sensor named `thresholds`. The ledger keeps what it has seen; Dagster is shown what has
        changed, and asked for the rollbacks that feeds want at a breach. Its cursor keeps what Dagster
        has been shown, and nothing is lost with it.
    """
    watched = {feed.feed: feed for feed in feeds if not feed.is_reconciled}

    @dg.sensor(
        name="thresholds",
        job_name=rollback,
        minimum_interval_seconds=_INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Watches the last batches: tells of failures and breaches, and pauses feeds.",
    )
    def _thresholds(
        context: dg.SensorEvaluationContext, batches: dg.ResourceParam[Batches]
    ) -> dg.SensorResult | dg.SkipReason:
        now, overall = _now(), read_overall(batches.settings.monitor)
        with batches.connect("thresholds") as connection:
            changes = watch_all(connection, watched.values(), overall, now)
            paused = pauses.paused(connection)
            standing = {
                name: (thresholds.states(connection, name), paused.get(name)) for name in watched
            }
            asked = thresholds.to_roll_back(connection, now - _ASKED_FOR)
        seen = {name: _digest(stands) for name, stands in standing.items()}
        before = json.loads(context.cursor or "{}")
        shown = [
            evaluation(watched[name], *standing[name])
            for name in watched
            if seen[name] != before.get(name)
        ]
        for change in changes:
            context.log.info(change.subject)
        if not shown and not asked:
            return dg.SkipReason(
                "; ".join(c.subject for c in changes) or "No threshold has changed."
            )
        return dg.SensorResult(
            asset_events=shown, run_requests=[*map(_rollback, asked)], cursor=json.dumps(seen)
        )

    return _thresholds


def _digest(standing: object) -> str:
    """Tell one standing of a feed's thresholds and pause from another."""
    return hashlib.sha256(repr(standing).encode()).hexdigest()[:16]


def _rollback(asked: ToRollBack) -> dg.RunRequest:
    return dg.RunRequest(
        # Asked for again until it is done or refused; Dagster launches it once.
        run_key=f"threshold/{asked.event_id}",
        run_config={
            "batches": [asked.batch_id],
            "reason": f"{asked.scope} breached its threshold {asked.measure}",
            "dry_run": False,
        },
        tags={
            REQUESTED_BY_TAG: "sensor thresholds",
            THRESHOLD_EVENT_TAG: str(asked.event_id),
        },
    )


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
