"""The asset check `thresholds` of a feed: where its thresholds stand, for people to see."""

from collections.abc import Mapping

import dagster as dg

from assets.common import table
from batch_pipelines.engine.feeds import Feed
from batch_pipelines.engine.ledger import pauses, thresholds
from batch_pipelines.engine.ledger.pauses import Pause
from batch_pipelines.engine.ledger.thresholds import ThresholdState
from batch_pipelines.engine.monitoring.watch import WORDS, expected
from resources.batches import Batches

NAME = "thresholds"


def check_key(feed: str) -> dg.AssetCheckKey:
    """Give the key of a feed's check."""
    return dg.AssetCheckKey(dg.AssetKey([feed, "ingest"]), NAME)


def thresholds_check(feed: Feed) -> dg.AssetChecksDefinition:
    """Make the check for a feed. The sensor `thresholds` reports it, too, when something changes.

    Args:
        feed: The feed.

    Returns:
        The check; a run of the feed's job leaves it out.
    """

    @dg.asset_check(
        name=NAME,
        asset=dg.AssetKey([feed.feed, "ingest"]),
        description=f"What the feed watches over its last batches ({feed.monitor.over}).",
    )
    def _thresholds(batches: dg.ResourceParam[Batches]) -> dg.AssetCheckResult:
        with batches.connect(NAME) as connection:
            states = thresholds.states(connection, feed.feed)
            pause = pauses.pause_of(connection, feed.feed)
        shown = evaluation(feed, states, pause)
        return dg.AssetCheckResult(
            passed=shown.passed, severity=shown.severity, metadata=shown.metadata
        )

    return _thresholds


def evaluation(
    feed: Feed, states: Mapping[str, ThresholdState], pause: Pause | None
) -> dg.AssetCheckEvaluation:
    """Say how a feed's check came out.

    Args:
        feed: The feed.
        states: Where its thresholds stand, by measure.
        pause: Why it is paused, if it is.

    Returns:
        The evaluation: failed where a threshold is not ok or the feed is paused.
    """
    units = {name: levels.unit for name, levels in feed.monitor.levels.items()}
    found = [state for name, state in states.items() if name in units]
    worst = {state.state for state in found}
    return dg.AssetCheckEvaluation(
        asset_key=check_key(feed.feed).asset_key,
        check_name=NAME,
        passed=worst <= {"ok"} and pause is None,
        severity=dg.AssetCheckSeverity.WARN
        if worst <= {"ok", "warn"} and pause is None
        else dg.AssetCheckSeverity.ERROR,
        metadata={
            "thresholds": table(
                {
                    "measure": WORDS[state.measure],
                    "state": state.state,
                    "expected": expected(state, units[state.measure]),
                    "actual": f"{state.value:.4g}{units[state.measure]}",
                }
                for state in found
            ),
            "over": dg.MetadataValue.text(feed.monitor.over),
            "paused": dg.MetadataValue.text("no" if pause is None else str(pause)),
        },
    )
