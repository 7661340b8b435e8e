"""One look at landing: what lies there, what the ledger knows of it, what to do, and that in words."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from batch_pipelines.engine import sources
from batch_pipelines.engine.landing import gathering
from batch_pipelines.engine.landing.arrivals import Decision, Waiting, changed, decide, turn
from batch_pipelines.engine.landing.completeness import awaited, needs_listed, read_listed
from batch_pipelines.engine.landing.deliveries import MANIFESTS
from batch_pipelines.engine.ledger import arrivals as ledger
from batch_pipelines.engine.ledger import gathered
from batch_pipelines.engine.ledger.batches import UNFINISHED
from batch_pipelines.engine.ledger.pauses import times_paused
from batch_pipelines.engine.places.place import anything

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from pathlib import Path

    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.landing.deliveries import Delivery
    from batch_pipelines.engine.ledger.arrivals import Tried
    from batch_pipelines.engine.postgres.database import Connection

LOOKED_AT: Final = 5_000
"""Known partitions that are looked at again in one tick: a quarter of a second, with one file each."""
READ: Final = 500
"""Deliveries whose manifests are read in one tick: each is a request to a store, of 20 ms or so."""
_NAMED = 5  # of what is passed over


@dataclass(frozen=True)
class Position:
    """Where the turns stand, where there is more than one tick looks at.

    Attributes:
        looked: The last known partition that was looked at.
        read: The last partition whose manifests were read.
    """

    looked: str = ""
    read: str = ""


@dataclass(frozen=True)
class Look:
    """One look at landing.

    Attributes:
        decision: What to do.
        position: Where the next look begins.
        no_keys: Names in landing that cannot be partition keys.
        problems: Sentences about what could not be looked into.
        seen: How many deliveries were looked at.
    """

    decision: Decision
    position: Position
    no_keys: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    seen: int = 0


def look(
    connection: Connection,
    feed: Feed,
    root: Path,
    position: Position,
    *,
    clock: Callable[[], float],
    room: Callable[[], tuple[int, AbstractSet[str]]],
    asked: Callable[[Sequence[str]], AbstractSet[str]],
    wanted: Callable[[str], bool] = anything,
) -> Look:
    """Look at landing and decide.

    Args:
        connection: To the ledger.
        feed: The feed.
        root: Folder where relative paths start.
        position: Where the look before ended.
        clock: Seconds since 1970.
        room: Says how many runs there is room for, and the partitions with runs that have not ended.
        asked: Says for which of some run keys a run was asked.
        wanted: Which partitions to look at.

    Returns:
        What to do.

    Raises:
        DeliveryError: Landing cannot be reached.
        SettingsError: The URL of a query's database is not set, or cannot be used.
    """
    # In some order already, they are sorted in a tenth of the time that a set of them takes.
    all_known = ledger.known_keys(connection, feed.feed)
    again, looked = turn(all_known, position.looked, LOOKED_AT)
    known = set(all_known)
    if feed.source.gather is None:
        landed = sources.look(
            feed, root, lambda key: (key not in known or key in again) and wanted(key)
        )
    else:
        landed, looked = gathering.gather(connection, feed, root, clock), ""
    # Not before: a store's times have been set by our clock while it was listed.
    now = clock()
    mine = known & landed.deliveries.keys()
    tried = ledger.tried(connection, feed.feed, mine) if mine else {}
    fresh = changed(landed.deliveries, tried)
    waiting = _withdrawn(connection, feed, fresh, tried, now)
    if feed.source.gather is None:
        judged = {key: delivery for key, delivery in fresh.items() if key not in waiting}
        incomplete, read = _incomplete(feed, judged, position.read, now)
        waiting |= incomplete
    else:
        waiting |= _left(connection, feed, fresh, waiting, room, now)
        read = ""
    decision = Decision(waiting=tuple(waiting.values()))
    if ready := fresh.keys() - waiting.keys():
        most, unfinished = room()
        held = ledger.held(connection, feed.feed, ready)
        decision = decide(
            fresh, tried, waiting,
            in_work=unfinished | held, asked=asked, most=most, now=now,
            pauses=times_paused(connection, feed.feed),
        )  # fmt: skip
    return Look(
        decision, Position(looked, read), landed.no_keys, landed.problems, len(landed.deliveries)
    )


def told(feed: Feed, found: Look) -> list[str]:
    """Say what was passed over, for people.

    Args:
        feed: The feed.
        found: What was found.

    Returns:
        Sentences; none where nothing was.
    """
    decision, lines = found.decision, [*found.problems[:_NAMED]]
    if len(found.problems) > _NAMED:
        lines.append(f"{len(found.problems) - _NAMED} more could not be looked into.")
    if found.no_keys:
        named = _some([ascii(name) for name in found.no_keys])
        lines.append(
            f"{len(found.no_keys)} cannot be partition keys ({named}):"
            " expected 1 to 100 letters, digits, or _ . = + -, beginning with a letter or digit, without"
            " '..'. Rename them."
        )
    for kind, what in (
        ("incomplete", "not complete"),
        ("in work", "to be looked at when the runs of their partitions have ended"),
        (
            "withdrawn",
            f"less than was loaded. To load them so: batch-pipelines import {feed.feed} --batch KEY",
        ),
    ):
        own = [one for one in decision.waiting if one.kind == kind]
        if own:
            named = _some([f"{one.key}: {one.why}" for one in own], "; ")
            lines.append(f"{len(own)} are {what} ({named}).")
    if decision.without_word:
        lines.append(
            f"{decision.without_word} were asked for, but their runs ended before they reached the "
            f"ledger. See why among the runs of {feed.feed}, then: batch-pipelines import {feed.feed}"
        )
    if decision.later:
        lines.append(f"{decision.later} more are complete and come in later.")
    return lines


def read_position(text: str | None) -> Position:
    """Read a position as `written` wrote it; anything else starts from the beginning."""
    try:
        found = json.loads(text or "{}")
        return Position(str(found.get("looked", "")), str(found.get("read", "")))
    except (ValueError, AttributeError):
        return Position()


def written(position: Position) -> str:
    """Write a position: at most two partition keys."""
    return json.dumps({"looked": position.looked, "read": position.read})


def _incomplete(
    feed: Feed, judged: Mapping[str, Delivery], after: str, now: float
) -> tuple[dict[str, Waiting], str]:
    """Find deliveries that are not complete, and say where the turn of reading manifests stands."""
    to_read = {key for key, one in judged.items() if needs_listed(one, feed.source)}
    now_read, read = turn(to_read, after, READ)
    found: dict[str, Waiting] = {}
    for key, one in judged.items():
        why: str | None = "its manifest has not been read yet: too many wait"
        if key in now_read or key not in to_read:
            listed = read_listed(one) if key in now_read else None
            why = awaited(one, feed.source, now=now, listed=listed)
        if why is not None:
            found[key] = Waiting(key, "incomplete", why, now - one.newest_change)
    return found, read


def _left(
    connection: Connection,
    feed: Feed,
    fresh: Mapping[str, Delivery],
    waiting: Mapping[str, Waiting],
    room: Callable[[], tuple[int, AbstractSet[str]]],
    now: float,
) -> dict[str, Waiting]:
    """Find gathered batches that have lost files; the rest of those never loaded is gathered anew."""
    judged = {key: delivery for key, delivery in fresh.items() if key not in waiting}
    left = gathering.incomplete(connection, feed, judged)
    if not left:
        return {}
    _, unfinished = room()
    released = gathered.release(connection, feed.feed, left - unfinished)
    return {
        key: Waiting(
            key,
            "incomplete",
            "files of it have left landing"
            + ("; the others are gathered anew" if key in released else ": deliver them again"),
            now - fresh[key].newest_change,
        )
        for key in left
    }


def _withdrawn(
    connection: Connection,
    feed: Feed,
    fresh: Mapping[str, Delivery],
    tried: Mapping[str, Tried],
    now: float,
) -> dict[str, Waiting]:
    """Find deliveries that are only less than what was loaded of them: their landing is being cleared.

    A sender who means it takes the file out of a manifest.
    """
    keys = [
        key
        for key, delivery in fresh.items()
        if key in tried
        and tried[key].status not in UNFINISHED
        and not any(file.name in MANIFESTS for file in delivery.control)
    ]
    loaded = ledger.files_of(connection, feed.feed, keys) if keys else {}
    found: dict[str, Waiting] = {}
    for key in keys:
        sizes = {file.name: file.size for file in fresh[key].data}
        if sizes and sizes.items() < loaded.get(key, {}).items():
            gone = _some(sorted(loaded[key].keys() - sizes.keys()))
            age = now - fresh[key].newest_change
            found[key] = Waiting(key, "withdrawn", f"{gone} has left landing", age)
    return found


def _some(texts: Sequence[str], between: str = ", ") -> str:
    more = [f"{len(texts) - _NAMED:,} more"] if len(texts) > _NAMED else []
    return between.join([*texts[:_NAMED], *more])
