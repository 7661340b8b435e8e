"""One look at the batches of a feed, or of all: what has changed, in one transaction with its alerts.

A change of state, the alert that tells of it and the pause that it leads to are committed together: so
each change is told once, however often and by how many at once this is called. A batch that a breach
wants taken back is left to a run of its own: `ledger.thresholds.to_roll_back` lists it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from batch_pipelines.engine.alerts import Alert, raise_alert, resolve
from batch_pipelines.engine.ledger import pauses, thresholds
from batch_pipelines.engine.ledger.thresholds import ThresholdState
from batch_pipelines.engine.monitoring.facts import ALL_FEEDS, BatchFacts, read_facts
from batch_pipelines.engine.monitoring.failures import mended, tell_failures
from batch_pipelines.engine.monitoring.measures import measure
from batch_pipelines.engine.monitoring.states import next_state

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable

    from batch_pipelines.engine.alerts.alert import Detail, Severity
    from batch_pipelines.engine.feed_parts.monitor import Levels, Monitor
    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.monitoring.measures import Measured
    from batch_pipelines.engine.monitoring.states import State
    from batch_pipelines.engine.postgres.database import Connection

_SEVERITIES: dict[State, Severity] = {"ok": "info", "warn": "warning", "breach": "critical"}
WORDS = {
    "failed_in_a_row": "failed batches in a row",
    "invalid_checksums": "invalid checksums",
    "rejected_rows": "share of rejected rows",
    "throughput_drop": "drop of throughput below the median",
    "schema_variation": "batches with other columns than before",
    "late_deliveries": "late deliveries",
}


@dataclass(frozen=True)
class Change:
    """A threshold whose state has changed.

    Attributes:
        scope: The feed, or `*` for all together.
        before: What its state was.
        now: Where it stands.
        unit: What is written behind its value.
        batch: The newest batch that the value is made of.
        actions: What is done about it, beside telling.
        over: Which batches count.
    """

    scope: str
    before: State
    now: ThresholdState
    unit: str
    batch: BatchFacts | None
    actions: tuple[str, ...]
    over: str

    @property
    def subject(self) -> str:
        """One line that says it."""
        who = "all feeds together" if self.scope == ALL_FEEDS else self.scope
        return f"{who}: {WORDS[self.now.measure]}: {self.before} -> {self.now.state}, {self.actual}"

    @property
    def actual(self) -> str:
        """The value, with its unit."""
        return f"{self.now.value:.4g}{self.unit}"

    @property
    def expected(self) -> str:
        """The levels, with their unit."""
        return expected(self.now, self.unit)


def expected(now: ThresholdState, unit: str) -> str:
    """Write the levels of a threshold."""
    levels = (("warn", now.warn_at), ("breach", now.breach_at))
    return ", ".join(f"{word} at {at:g}{unit}" for word, at in levels if at is not None)


def watch_all(
    connection: Connection, feeds: Iterable[Feed], overall: Monitor, now: dt.datetime
) -> list[Change]:
    """Look at every feed, and at all of them together.

    Args:
        connection: A connection in autocommit mode.
        feeds: The feeds.
        overall: How all of them together are watched.
        now: The time.

    Returns:
        What has changed.
    """
    mended(connection)
    changes = []
    for feed in feeds:
        if not feed.is_reconciled:
            changes += watch(connection, feed.feed, feed.monitor, now)
    return changes + watch(connection, ALL_FEEDS, overall, now)


def watch(connection: Connection, scope: str, monitor: Monitor, now: dt.datetime) -> list[Change]:
    """Look at the batches of a scope, and do what a change of state asks for.

    Args:
        connection: A connection in autocommit mode.
        scope: A feed, or `*` for all together.
        monitor: How it is watched.
        now: The time.

    Returns:
        What has changed; nothing where somebody else is looking at the same time.
    """
    with connection.transaction():
        if not thresholds.try_lock(connection, scope):
            return []
        facts = read_facts(connection, scope, monitor, now)
        by_id = {batch.batch_id: batch for batch in facts.batches}
        measured, before = measure(facts), thresholds.states(connection, scope)
        levels = monitor.levels
        thresholds.forget_others(connection, scope, [*levels])
        found = [
            _judge(name, before.get(name), measured[name], levels[name], monitor.back_factor)
            for name in levels
        ]
        changes = []
        for state_before, state in found:
            name = state.measure
            if state_before == state.state:
                if name not in before:
                    thresholds.record_first(connection, scope, state)
                continue
            batch = by_id.get(measured[name].batch_id or "")
            actions = _actions(monitor, state.state, batch)
            change = Change(
                scope, state_before, state, levels[name].unit, batch, actions, monitor.over
            )
            changes.append(_done(connection, change, monitor, now))
        if scope != ALL_FEEDS and monitor.each_failure:
            breached = any(state.measure == "failed_in_a_row" and state.state == "breach"
                           for _, state in found)  # fmt: skip
            tell_failures(connection, scope, monitor, now, breached=breached)
    return changes


def _judge(
    name: str, before: ThresholdState | None, measured: Measured, levels: Levels, back: float
) -> tuple[State, ThresholdState]:
    was: State = "ok" if before is None else before.state
    state = next_state(was, measured.value, levels, back)
    event = None if before is None else before.event_id
    return was, ThresholdState(name, state, measured.value, levels.warn, levels.breach, event)


def _actions(monitor: Monitor, state: State, batch: BatchFacts | None) -> tuple[str, ...]:
    """Choose what is done; of a batch whose rows nobody sees there is nothing to take back."""
    if state != "breach":
        return ()
    possible = batch is not None and batch.in_force
    return tuple(
        action
        for action in monitor.on_breach
        if action == "pause" or (action == "roll_back" and possible)
    )


def _done(connection: Connection, change: Change, monitor: Monitor, now: dt.datetime) -> Change:
    """Write a change down, and do what it asks for."""
    event_id = thresholds.record_change(
        connection, change.scope, change.before, change.now,
        batch_id=change.batch.batch_id if change.batch else None, actions=change.actions, at=now,
    )  # fmt: skip
    if change.now.event_id is not None:
        resolve(connection, _key(change, change.now.event_id))
    if "pause" in change.actions:
        reason = f"{WORDS[change.now.measure]} is {change.actual} ({change.expected})"
        pauses.pause(connection, change.scope, by="the sensor thresholds", reason=reason)
    raise_alert(connection, _alert(change, event_id, monitor, now))
    return replace(change, now=replace(change.now, event_id=event_id))


def _key(change: Change, event_id: int) -> str:
    return f"threshold/{change.scope}/{change.now.measure}/{event_id}"


def _alert(change: Change, event_id: int, monitor: Monitor, now: dt.datetime) -> Alert:
    details: dict[str, Detail] = {
        "measure": WORDS[change.now.measure],
        "expected": change.expected,
        "actual": change.actual,
        "over": change.over,
    }
    following = f"batch-pipelines batches --feed {change.scope}"
    if change.scope == ALL_FEEDS:
        following = "batch-pipelines batches"
    if change.batch is not None and change.now.state != "ok":
        details["newest batch"] = change.batch.name
        if change.batch.failed:
            details["why it failed"] = change.batch.error_details
        following = f"batch-pipelines show {change.batch.batch_id[:8]}"
    if change.now.state == "breach" and "roll_back" in monitor.on_breach:
        asked = "roll_back" in change.actions
        details["rollback"] = (
            "the batch is taken back" if asked else "there is nothing to take back"
        )
    if "pause" in change.actions:
        details["paused"] = (
            f"the feed, until somebody types: batch-pipelines feeds resume {change.scope}"
        )
    details["next"] = following
    return Alert(
        kind="threshold",
        severity=_SEVERITIES[change.now.state],
        subject=change.subject,
        deduplication_key=_key(change, event_id),
        feed=None if change.scope == ALL_FEEDS else change.scope,
        batch_id=change.batch.batch_id if change.batch else None,
        details=details,
        channels=monitor.channels,
        escalate_after=monitor.escalates_after if change.now.state != "ok" else None,
        escalate_to=monitor.escalate_to,
        raised_at=now,
    )
