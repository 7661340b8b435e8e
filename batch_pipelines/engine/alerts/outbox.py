"""What waits to be told, in the ledger: choosing channels, escalating, claiming, and what became of it.

Whoever sends claims a delivery first, for a time: two senders never have the same one, and one that
a dead sender had is sent again when its time is over. So a channel is told at least once, and twice
only where a sender died between the channel's answer and the ledger's.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batch_pipelines.engine.alerts.alert import Alert
from batch_pipelines.engine.alerts.record import raise_alert

if TYPE_CHECKING:
    from batch_pipelines.engine.alerts.channels import Channels
    from batch_pipelines.engine.postgres.database import Connection

# Twice as long as one message may take (see `send`), and some for a slow database.
CLAIM = dt.timedelta(seconds=60)
# Of an alert raised while no channel was set, nobody is told out of the blue much later.
STALE = dt.timedelta(days=1)
MOST_ATTEMPTS = 30
# Growing from the sensor's interval to what somebody waits for gladly after an outage.
_FIRST_PAUSE, _LONGEST_PAUSE = dt.timedelta(seconds=15), dt.timedelta(minutes=10)

_UNROUTED = """
SELECT alert_id, channels, raised_at < %(stale)s FROM batch_audit.alert
WHERE routed_at IS NULL AND (%(batch_id)s::uuid IS NULL OR batch_id = %(batch_id)s)
ORDER BY raised_at, alert_id LIMIT 1000 FOR UPDATE SKIP LOCKED
"""
_ROUTED = "UPDATE batch_audit.alert SET routed_at = %s WHERE alert_id = %s"
_OVERDUE = """
SELECT alert_id, CASE WHEN escalate_to = '{}' THEN channels ELSE escalate_to END
FROM batch_audit.alert
WHERE escalate_after IS NOT NULL AND escalated_at IS NULL AND acknowledged_at IS NULL
  AND resolved_at IS NULL AND raised_at + escalate_after <= %(now)s
  AND (%(batch_id)s::uuid IS NULL OR batch_id = %(batch_id)s)
ORDER BY raised_at, alert_id LIMIT 1000 FOR UPDATE SKIP LOCKED
"""
_ESCALATED = "UPDATE batch_audit.alert SET escalated_at = %s WHERE alert_id = %s"
_ADD = """
INSERT INTO batch_audit.alert_delivery (alert_id, channel, escalation, status, next_attempt_at)
VALUES (%s, %s, %s, 'WAITING', %s) ON CONFLICT DO NOTHING
"""
_ADD_UNKNOWN = """
INSERT INTO batch_audit.alert_delivery (alert_id, channel, escalation, status, error_details)
VALUES (%s, %s, %s, 'GAVE_UP', 'no channel or role of this name is set') ON CONFLICT DO NOTHING
"""
# Those not tried yet come first: an alert that a channel does not take holds no other one up.
_CLAIM = """
UPDATE batch_audit.alert_delivery AS d
SET attempts = d.attempts + 1, next_attempt_at = %(until)s
FROM (SELECT w.alert_id, w.channel, w.escalation
      FROM batch_audit.alert_delivery AS w JOIN batch_audit.alert AS a USING (alert_id)
      WHERE w.status = 'WAITING' AND w.next_attempt_at <= %(now)s AND w.channel = %(channel)s
        AND (%(batch_id)s::uuid IS NULL OR a.batch_id = %(batch_id)s)
      ORDER BY w.attempts, array_position(ARRAY['critical', 'warning', 'info'], a.severity), w.alert_id
      LIMIT 1 FOR UPDATE OF w SKIP LOCKED) AS next
WHERE (d.alert_id, d.channel, d.escalation) = (next.alert_id, next.channel, next.escalation)
RETURNING d.alert_id, d.channel, d.escalation, d.attempts
"""
_ATTEMPT = """
INSERT INTO batch_audit.alert_attempt (alert_id, channel, escalation, attempt, started_at)
VALUES (%s, %s, %s, %s, %s)
"""
_ATTEMPTED = """
UPDATE batch_audit.alert_attempt SET completed_at = %s, error_details = %s
WHERE (alert_id, channel, escalation, attempt) = (%s, %s, %s, %s)
"""
_SENT = """
UPDATE batch_audit.alert_delivery
SET status = 'SENT', sent_at = %s, next_attempt_at = NULL, error_details = NULL
WHERE (alert_id, channel, escalation) = (%s, %s, %s)
"""
# Only of an attempt that is still ours: another sender may have taken it over, and be done.
_FAILED = """
UPDATE batch_audit.alert_delivery AS d
SET status = CASE WHEN given.up THEN 'GAVE_UP' ELSE 'WAITING' END,
    next_attempt_at = CASE WHEN given.up THEN NULL ELSE %(next)s END, error_details = %(error)s
FROM batch_audit.alert AS a,
     (SELECT %(attempt)s >= %(most)s OR min(started_at) < %(stale)s AS up FROM batch_audit.alert_attempt
      WHERE (alert_id, channel, escalation) = (%(alert_id)s, %(channel)s, %(escalation)s)) AS given
WHERE (d.alert_id, d.channel, d.escalation) = (%(alert_id)s, %(channel)s, %(escalation)s)
  AND d.status = 'WAITING' AND d.attempts = %(attempt)s AND a.alert_id = d.alert_id
RETURNING given.up, a.kind
"""
# Whoever sends next may be set otherwise than who chose the channels, so it is left for a day.
_GONE = """
UPDATE batch_audit.alert_delivery
SET status = 'GAVE_UP', next_attempt_at = NULL, error_details = 'the channel is not set any more'
WHERE status = 'WAITING' AND channel <> ALL(%(channels)s) AND next_attempt_at < %(stale)s
"""
# Attempts of the channel that failed since one was taken.
_IN_A_ROW = """
SELECT count(*) FROM batch_audit.alert_attempt
WHERE channel = %(channel)s AND error_details IS NOT NULL AND completed_at > coalesce(
    (SELECT max(sent_at) FROM batch_audit.alert_delivery WHERE channel = %(channel)s), '-infinity')
"""
_HOLD = """
UPDATE batch_audit.alert_delivery SET next_attempt_at = greatest(next_attempt_at, %s)
WHERE channel = %s AND status = 'WAITING'
"""
_WAITING = """
SELECT count(*) FROM batch_audit.alert_delivery WHERE status = 'WAITING'
"""


@dataclass(frozen=True)
class Claim:
    """A delivery that is ours to attempt."""

    alert_id: int
    channel: str
    escalation: bool
    attempt: int


def pause_after(failures: int) -> dt.timedelta:
    """Say how long a channel is left alone.

    Args:
        failures: Attempts that failed in a row; at least 1.

    Returns:
        15 s, doubled with each failure, 10 minutes at most.
    """
    # No more doublings than reach the longest: 2 ** 1000 s are no time.
    doubled: int = 2 ** min(failures - 1, 10)
    return min(_FIRST_PAUSE * doubled, _LONGEST_PAUSE)


def route(
    connection: Connection, channels: Channels, now: dt.datetime, batch_id: str | None = None
) -> None:
    """Choose the channels of alerts that are new, and of those nobody acknowledged in time.

    Args:
        connection: A connection in autocommit mode.
        channels: The channels there are; at least one.
        now: The time.
        batch_id: Only of this batch.
    """
    with connection.transaction():
        stale = {"stale": now - STALE, "channels": list(channels.urls), "batch_id": batch_id}
        connection.execute(_GONE, stale)
        for alert_id, names, is_stale in connection.execute(_UNROUTED, stale).fetchall():
            connection.execute(_ROUTED, (now, alert_id))
            if not is_stale:
                _address(connection, channels, (alert_id, names), now, escalation=False)
        overdue = {"now": now, "batch_id": batch_id}
        for alert_id, names in connection.execute(_OVERDUE, overdue).fetchall():
            connection.execute(_ESCALATED, (now, alert_id))
            _address(connection, channels, (alert_id, names), now, escalation=True)


def _address(
    connection: Connection,
    channels: Channels,
    alert: tuple[int, list[str]],
    now: dt.datetime,
    *,
    escalation: bool,
) -> None:
    alert_id, names = alert
    known, unknown = channels.resolve(names)
    for channel in known:
        connection.execute(_ADD, (alert_id, channel, escalation, now))
    for name in unknown:
        connection.execute(_ADD_UNKNOWN, (alert_id, name, escalation))


def claim(
    connection: Connection, channel: str, now: dt.datetime, batch_id: str | None = None
) -> Claim | None:
    """Take the next delivery of a channel, for `CLAIM`.

    Args:
        connection: A connection in autocommit mode.
        channel: The channel.
        now: The time.
        batch_id: Only of this batch.

    Returns:
        The delivery; None where none is due that nobody else has.
    """
    wanted = {"channel": channel, "now": now, "until": now + CLAIM, "batch_id": batch_id}
    with connection.transaction():
        row = connection.execute(_CLAIM, wanted).fetchone()
        if row is None:
            return None
        connection.execute(_ATTEMPT, (*row, now))
    return Claim(*row)


def record_sent(connection: Connection, taken: Claim, now: dt.datetime) -> None:
    """Write down that a channel took an alert.

    Args:
        connection: A connection in autocommit mode.
        taken: The delivery.
        now: The time.
    """
    key = (taken.alert_id, taken.channel, taken.escalation)
    with connection.transaction():
        connection.execute(_ATTEMPTED, (now, None, *key, taken.attempt))
        connection.execute(_SENT, (now, *key))


def record_failed(connection: Connection, taken: Claim, error: str, now: dt.datetime) -> None:
    """Write down that a channel did not take an alert, and leave the channel alone for a while.

    After `MOST_ATTEMPTS`, or a day, the delivery is given up; the default channels are told of it.

    Args:
        connection: A connection in autocommit mode.
        taken: The delivery.
        error: Why, without a secret.
        now: The time.
    """
    key = (taken.alert_id, taken.channel, taken.escalation)
    with connection.transaction():
        connection.execute(_ATTEMPTED, (now, error, *key, taken.attempt))
        row = connection.execute(_IN_A_ROW, {"channel": taken.channel}).fetchone()
        following = now + pause_after(row[0] if row else 1)
        outcome = {
            "alert_id": taken.alert_id, "channel": taken.channel, "escalation": taken.escalation,
            "attempt": taken.attempt, "most": MOST_ATTEMPTS, "stale": now - STALE,
            "next": following, "error": error,
        }  # fmt: skip
        failed = connection.execute(_FAILED, outcome).fetchone()
        connection.execute(_HOLD, (following, taken.channel))
        # Of a channel that does not take even this one, there is nobody to be told.
        if failed is not None and failed[0] and failed[1] != "channel_failed":
            raise_alert(connection, _given_up(taken, error, now))


def waiting(connection: Connection) -> int:
    """Count the deliveries that are still to be made."""
    row = connection.execute(_WAITING).fetchone()
    return 0 if row is None else int(row[0])


def _given_up(taken: Claim, error: str, now: dt.datetime) -> Alert:
    return Alert(
        kind="channel_failed",
        severity="warning",
        subject=f"channel {taken.channel} does not take alerts: {error}",
        deduplication_key=f"channel_failed/{taken.channel}/{now:%Y-%m-%d}",
        details={
            "alert that was given up": taken.alert_id,
            "attempts": taken.attempt,
            "next": "batch-pipelines alerts test",
        },
        raised_at=now,
    )
