"""The state of a threshold, with hysteresis: one level to go up, a lower one to come back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from batch_pipelines.engine.feed_parts.monitor import Levels

State = Literal["ok", "warn", "breach"]
STATES: tuple[State, ...] = ("ok", "warn", "breach")


def next_state(state: State, value: float, levels: Levels, back: float) -> State:
    """Say what state a threshold is in now.

    It goes up when the value reaches a level, and comes back only when the value falls below `back`
    times that level; in between it stays, so that a value that wavers at a level is told once.

    Args:
        state: What it was.
        value: What was measured.
        levels: From where on it is what.
        back: Share of a level, above 0 and at most 1.

    Returns:
        The state.
    """
    up, down = _reached(value, levels, 1.0), _reached(value, levels, back)
    if STATES.index(up) > STATES.index(state):
        return up
    if STATES.index(down) < STATES.index(state):
        return down
    return state


def _reached(value: float, levels: Levels, factor: float) -> State:
    if levels.breach is not None and value >= levels.breach * factor:
        return "breach"
    if levels.warn is not None and value >= levels.warn * factor:
        return "warn"
    return "ok"
