"""A step: one thing that is left to do, what it locks meanwhile, and how it is done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from batch_pipelines.engine.failpoints import failpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SHORT = "ACCESS EXCLUSIVE, waited for 0.1 s at a time"
SHORT_SHARE = "SHARE ROW EXCLUSIVE: others read; waited for 0.1 s at a time"
ONLINE = "SHARE UPDATE EXCLUSIVE: others read and write"
ROWS = "rows, a fifth of a second's worth at a time"
NOTHING = "nothing"


@dataclass(frozen=True)
class Step:
    """Something that is left to do.

    Attributes:
        what: In words: "add the column batch_id".
        locks: What nobody else can have meanwhile.
        do: Does it; done twice, it changes nothing.
        only_looks: Whether it changes nothing the first time, either.
    """

    what: str
    locks: str
    do: Callable[[], object]
    only_looks: bool = False


def take(steps: Sequence[Step], name: str, tell: Callable[[str], None]) -> None:
    """Take steps, one after the other.

    Args:
        steps: The steps.
        name: The table's name.
        tell: Told each step before it is taken.
    """
    for number, step in enumerate(steps):
        tell(f"{name}: {step.what} (locks: {step.locks})")
        step.do()
        failpoint("adoption.step", number)
