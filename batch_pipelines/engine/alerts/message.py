"""What people read: an alert as title and text, alike on every channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from batch_pipelines.engine.alerts.alert import Recorded

# Apprise's own words, by which channels choose a colour or a sign.
_TYPES = {"info": "info", "warning": "warning", "critical": "failure"}
# A subject of mail, and the first line of a chat.
_LONGEST_TITLE = 200
# Every service has a limit somewhere; an alert says where to read on, and not everything.
_LONGEST_VALUE = 1000


@dataclass(frozen=True)
class Message:
    """What is sent.

    Attributes:
        title: One line.
        body: Text of several lines; the deduplication key is among them.
        type: Apprise's type of notification.
    """

    title: str
    body: str
    type: str


def write_message(recorded: Recorded, *, escalation: bool = False) -> Message:
    """Write what is sent of an alert.

    Args:
        recorded: The alert, with its number.
        escalation: Whether it is told because nobody acknowledged it in time.

    Returns:
        The message.
    """
    alert = recorded.alert
    mark = f"{alert.severity}, not acknowledged" if escalation else alert.severity
    title = " ".join(f"[{mark}] {alert.subject}".split())
    details = dict(alert.details)
    following = details.pop("next", None)
    lines = [f"{name}: {_short(value)}" for name, value in details.items()]
    if alert.batch_id is not None:
        gone = f", {recorded.batch_gone}" if recorded.batch_gone else ""
        lines.append(f"batch: {alert.batch_id}{gone}")
    lines.append(f"raised: {alert.raised_at:%Y-%m-%d %H:%M:%S %Z}")
    if following is not None:
        lines.append(f"next: {following}")
    if recorded.is_open:
        lines.append(f"acknowledge: batch-pipelines alerts ack {recorded.alert_id}")
    lines.append(f"key: {alert.deduplication_key}")
    return Message(_cut(title, _LONGEST_TITLE), "\n".join(lines), _TYPES[alert.severity])


def _short(value: object) -> str:
    if value is None:
        return "unknown"
    return _cut(str(value), _LONGEST_VALUE)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 3]}..."
