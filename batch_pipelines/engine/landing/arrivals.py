"""Which deliveries want a run now: a pure decision.

What was tried, the ledger knows; what was asked for and has not reached it, whoever launches runs. So
nothing has to be remembered here. Not here: finding all that out (`watching`).
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from batch_pipelines.engine.landing.deliveries import Delivery
    from batch_pipelines.engine.ledger.arrivals import Tried

ASKED: Final = 1_000
"""Most deliveries of which is asked in one tick whether a run was asked for."""
_ASKED_TOGETHER = 100

Why = Literal["incomplete", "in work", "withdrawn"]


@dataclass(frozen=True)
class Arrival:
    """A delivery that wants a run.

    Attributes:
        key: Its partition.
        run_key: The same for as long as nobody has tried this delivery, and never again afterwards.
        newest_change: Latest change of its files, seconds since 1970.
    """

    key: str
    run_key: str
    newest_change: float


@dataclass(frozen=True)
class Waiting:
    """A delivery that is left alone.

    Attributes:
        key: Its partition.
        kind: It is `incomplete`; a run is `in work` on its partition; or files of it were `withdrawn`
            since it was loaded.
        why: The same for people.
        unchanged_seconds: For how long nothing of it has changed.
    """

    key: str
    kind: Why
    why: str
    unchanged_seconds: float


@dataclass(frozen=True)
class Decision:
    """What to do about the deliveries in landing.

    Attributes:
        launch: To be launched now, the oldest first.
        later: How many more are complete.
        waiting: Left alone, by partition key.
        without_word: How many were asked for, and their runs have not reached the ledger.
    """

    launch: tuple[Arrival, ...] = ()
    later: int = 0
    waiting: tuple[Waiting, ...] = ()
    without_word: int = 0


def turn(keys: Collection[str], after: str, most: int) -> tuple[set[str], str]:
    """Choose some of many keys, so that each has its turn.

    Args:
        keys: The keys, in any order.
        after: The last one that was chosen before.
        most: How many.

    Returns:
        The next ones in their order, from the first again behind the last; and the last of them, empty
        where all are chosen.
    """
    if len(keys) <= most:
        return set(keys), ""
    ordered = sorted(keys)
    start = bisect_right(ordered, after)
    chosen = [*ordered[start : start + most], *ordered[: max(0, start + most - len(ordered))]]
    return set(chosen), chosen[-1]


def changed(landed: Mapping[str, Delivery], tried: Mapping[str, Tried]) -> dict[str, Delivery]:
    """Say which deliveries no batch has looked at.

    Args:
        landed: What lies in landing, by partition key.
        tried: What became of earlier deliveries, by partition key.

    Returns:
        New deliveries, and those that are others than the last one of their partition: however that
        ended, it is not tried again by itself.
    """
    return {
        key: delivery
        for key, delivery in landed.items()
        if key not in tried or tried[key].fingerprint != delivery.fingerprint
    }


def decide(
    fresh: Mapping[str, Delivery],
    tried: Mapping[str, Tried],
    waiting: Mapping[str, Waiting],
    *,
    in_work: AbstractSet[str],
    asked: Callable[[Sequence[str]], AbstractSet[str]],
    most: int,
    now: float,
    pauses: int = 0,
) -> Decision:
    """Decide what to launch.

    Args:
        fresh: Deliveries that no batch has looked at.
        tried: What became of earlier ones, by partition key.
        waiting: Those that are left alone already, by partition key.
        in_work: Partitions with a run that has not ended: it may take this delivery or the one before.
        asked: Says for which of some run keys a run was asked.
        most: How many to launch.
        now: Seconds since 1970.
        pauses: How often the feed was paused: runs that were queued then have been refused.

    Returns:
        What to do, the oldest delivery first.
    """
    left = dict(waiting)
    ready: list[Arrival] = []
    for key, delivery in fresh.items():
        if key in left:
            continue
        if key in in_work:
            age = now - delivery.newest_change
            left[key] = Waiting(key, "in work", "a run of its partition has not ended", age)
            continue
        before = tried[key].looked_at if key in tried else 0
        # Whoever launches remembers a run key for ever. The content is in it, so that a corrected
        # delivery is launched; how often one was tried, so that one put back as it was is too; and the
        # pauses, so that one is whose run was refused.
        run_key = f"{key}:{delivery.fingerprint}:{before + 1}{f':{pauses}' * bool(pauses)}"
        ready.append(Arrival(key, run_key, delivery.newest_change))
    ready.sort(key=lambda arrival: (arrival.newest_change, arrival.key))
    launch: list[Arrival] = []
    without_word = 0
    for start in range(0, min(len(ready), ASKED), _ASKED_TOGETHER):
        if len(launch) >= most:
            break
        some = ready[start : start + _ASKED_TOGETHER]
        gone = asked([arrival.run_key for arrival in some])
        launch += [arrival for arrival in some if arrival.run_key not in gone]
        without_word += len(some) - sum(arrival.run_key not in gone for arrival in some)
    launch = launch[: max(0, most)]
    later = len(ready) - len(launch) - without_word
    return Decision(tuple(launch), later, tuple(left[key] for key in sorted(left)), without_word)
