"""Places where a test may make the world go wrong: a bit flips, a connection drops, a process dies.

Production never arms one; an unarmed failpoint is one dictionary look-up.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")
_armed: dict[str, Callable[[Any], Any]] = {}


def failpoint(name: str, value: T) -> T:
    """Pass a value through, unless a test has armed this point.

    Args:
        name: `stage.step` of the place.
        value: What is about to be used there.

    Returns:
        The value, or what the armed action makes of it.
    """
    action = _armed.get(name)
    return value if action is None else action(value)


@contextmanager
def armed(name: str, action: Callable[[Any], Any]) -> Iterator[None]:
    """Arm a failpoint for the length of a block.

    Args:
        name: The failpoint.
        action: Gets the value; returns another, raises, or ends the process.

    Yields:
        Nothing.
    """
    _armed[name] = action
    try:
        yield
    finally:
        del _armed[name]
