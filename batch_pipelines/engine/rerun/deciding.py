"""Whether a failed partition is run again: pure decisions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from batch_pipelines.engine.causes import HEALING

if TYPE_CHECKING:
    import datetime as dt

    from batch_pipelines.engine.feed_parts.rerun import Rerun
    from batch_pipelines.engine.rerun.failed import Failed

_NOT_BY_ITSELF = {
    "ROLLED_BACK": "it was rolled back, and its delivery would bring the same rows",
    "VALIDATION_FAILED": "its rows differ from their source, and would again",
}


@dataclass(frozen=True)
class Decision:
    """What is done about a failed partition.

    Attributes:
        run: Whether it is run again now.
        why: For people.
        at: When it will be, if not now and nothing happens until then.
    """

    run: bool
    why: str
    at: dt.datetime | None = None


@dataclass(frozen=True)
class Asked:
    """What somebody asks for.

    Attributes:
        named: Whether he named the partition.
        any_cause: Also what cannot have healed by itself.
        rolled_back: Also what was rolled back.
    """

    named: bool = False
    any_cause: bool = False
    rolled_back: bool = False


def heals(failed: Failed) -> bool:
    """Say whether the cause of a failure may be gone though nobody has done anything.

    Args:
        failed: The partition.
    """
    return failed.status not in _NOT_BY_ITSELF and failed.cause in HEALING


def decide(failed: Failed, rerun: Rerun, now: dt.datetime) -> Decision:
    """Decide without anybody asking.

    Args:
        failed: The partition.
        rerun: What its feed allows.
        now: The time, with time zone.

    Returns:
        The decision.
    """
    if not heals(failed):
        return Decision(run=False, why=_why_not(failed))
    if failed.tries > rerun.attempts:
        why = f"it was run again {failed.tries - 1} times, and the feed allows {rerun.attempts}"
        return Decision(run=False, why=why)
    due = failed.failed_at + rerun.pause(failed.tries)
    if now < due:
        return Decision(run=False, why=f"its pause lasts until {due:%Y-%m-%d %H:%M:%S %Z}", at=due)
    return Decision(run=True, why=f"its cause, {failed.cause}, may be gone: try {failed.tries + 1}")


def decide_asked(failed: Failed, asked: Asked, delivery: str | None) -> Decision:
    """Decide where somebody asks: neither pauses nor limits count.

    Args:
        failed: The partition.
        asked: What he asks for.
        delivery: Fingerprint of what lies in landing; None where that is not known.

    Returns:
        The decision.
    """
    if asked.named:
        return Decision(run=True, why="it was named")
    if failed.status == "ROLLED_BACK":
        why = _NOT_BY_ITSELF["ROLLED_BACK"]
        return Decision(run=asked.rolled_back, why="it was asked for" if asked.rolled_back else why)
    if heals(failed):
        return Decision(run=True, why=f"its cause, {failed.cause}, may be gone")
    if asked.any_cause:
        return Decision(run=True, why="whatever its cause is, it was asked for")
    if None not in {delivery, failed.fingerprint} and delivery != failed.fingerprint:
        return Decision(run=True, why="there is a new delivery")
    return Decision(run=False, why=_why_not(failed))


def _why_not(failed: Failed) -> str:
    known = _NOT_BY_ITSELF.get(failed.status)
    return known or f"its cause, {failed.cause or 'not classified'}, does not go away by itself"
