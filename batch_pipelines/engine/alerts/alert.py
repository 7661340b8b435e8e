"""What an alert is, and what the ledger knows of one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping

Severity = Literal["info", "warning", "critical"]
# Rows of these are gone from their tables, or have been delivered anew.
_GONE = {
    "ROLLED_BACK": "rolled back", "SUPERSEDED": "superseded by a corrected delivery",
    "ARCHIVED": "archived when its time was over",
}  # fmt: skip
Detail = str | int | float | None


@dataclass(frozen=True)
class Alert:
    """Something that people are to be told.

    Attributes:
        kind: What sort of thing it is, as in `late_delivery`: lower case and underscores.
        severity: `info` needs nobody to do anything; `warning` and `critical` stay open until they
            are acknowledged or resolved.
        subject: One line that says what happened, and where.
        deduplication_key: Names the occasion, as in `late_delivery/orders/2026-11-22`. Raised again
            under the same key it is the same alert. Every message has it.
        feed: The feed; None for what is about the whole.
        batch_id: The batch, if one is meant; the ledger has to know it.
        details: Facts by name, in the order in which they are told: counts, names, places, and under
            `next` the command to type. Never a secret, never a value of a row but the key of a critical
            one.
        channels: Names of channels or roles to tell; none stands for the default.
        escalate_after: How long it may stay open; None for ever.
        escalate_to: Names of channels or roles that are told then.
        occurred_at: When it happened; None stands for when it was raised.
        raised_at: When it was found; None stands for now, by the database's clock.
    """

    kind: str
    severity: Severity
    subject: str
    deduplication_key: str
    feed: str | None = None
    batch_id: str | None = None
    details: Mapping[str, Detail] = field(default_factory=dict)
    channels: tuple[str, ...] = ()
    escalate_after: dt.timedelta | None = None
    escalate_to: tuple[str, ...] = ()
    occurred_at: dt.datetime | None = None
    raised_at: dt.datetime | None = None


@dataclass(frozen=True)
class Delivery:
    """An alert on its way to one channel.

    Attributes:
        channel: The channel's name.
        escalation: Whether it is told there because nobody acknowledged it in time.
        status: `WAITING`, `SENT` or `GAVE_UP`.
        attempts: How often sending was tried.
        sent_at: When the channel took it.
        error_details: Why the last attempt failed.
    """

    channel: str
    escalation: bool
    status: str
    attempts: int
    sent_at: dt.datetime | None
    error_details: str | None


@dataclass(frozen=True)
class Recorded:
    """An alert as the ledger has it; times with time zone.

    Attributes:
        alert_id: Its number.
        alert: What was raised.
        escalated_at: When it was escalated.
        acknowledged_at: When somebody acknowledged it.
        acknowledged_by: Who.
        acknowledgement_note: What he had to say.
        resolved_at: When its cause was gone.
        deliveries: Where it was told, or is to be.
        batch_status: State of its batch now, if it is about one.
    """

    alert_id: int
    alert: Alert
    escalated_at: dt.datetime | None
    acknowledged_at: dt.datetime | None
    acknowledged_by: str | None
    acknowledgement_note: str | None
    resolved_at: dt.datetime | None
    deliveries: tuple[Delivery, ...]
    batch_status: str | None = None

    @property
    def batch_gone(self) -> str | None:
        """What became of its batch, where its rows are not in force any more."""
        return _GONE.get(self.batch_status or "")

    @property
    def is_open(self) -> bool:
        """Whether somebody still has to look at it."""
        return (
            self.alert.severity != "info"
            and self.acknowledged_at is None
            and self.resolved_at is None
        )
