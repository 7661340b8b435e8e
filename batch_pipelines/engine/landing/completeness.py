"""Whether a delivery is complete, by its feed's word: settled, a kept manifest, or a marker file.

Reading manifests is apart from judging, which is a pure function.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from batch_pipelines.engine.delivered_bag import read_bag
from batch_pipelines.engine.errors import DeliveryError
from batch_pipelines.engine.landing.deliveries import MANIFESTS
from batch_pipelines.engine.statements import read_manifest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batch_pipelines.engine.feed_parts.source import Source
    from batch_pipelines.engine.landing.deliveries import Delivery
    from batch_pipelines.engine.places.place import LandedFile

_NAMED = 3  # of files that are told


@dataclass(frozen=True)
class Listed:
    """What the manifests of a delivery list.

    Attributes:
        sizes: Size in bytes of each file, or None where they do not tell it.
        problem: Why they cannot be read, or None.
        whole: Whether a bag has been found to be whole.
    """

    sizes: Mapping[str, int | None] = field(default_factory=dict)
    problem: str | None = None
    whole: bool = False


def needs_listed(delivery: Delivery, source: Source) -> bool:
    """Say whether manifests have to be read to judge a delivery."""
    return source.complete == "manifest" and bool(delivery.tags or _manifests(delivery))


def read_listed(delivery: Delivery) -> Listed:
    """Read what a delivery's manifests list.

    Args:
        delivery: A delivery with manifests, or a bag.

    Returns:
        The files they list; or why they cannot be read, which may be that they are being written.
    """
    try:
        if delivery.tags:
            read_bag(delivery)
            return Listed(whole=True)
        statements = [each for file in _manifests(delivery) for each in read_manifest(file)]
    except DeliveryError as error:
        return Listed(problem=str(error))
    sizes: dict[str, int | None] = {}
    for each in statements:
        sizes[each.file_name] = sizes.get(each.file_name) if each.size is None else each.size
    return Listed(sizes)


def awaited(
    delivery: Delivery, source: Source, *, now: float, listed: Listed | None = None
) -> str | None:
    """Say what a delivery waits for.

    Args:
        delivery: The delivery.
        source: What makes it complete.
        now: Seconds since 1970.
        listed: What its manifests list, where they had to be read.

    Returns:
        What is missing, for people; None where it is complete.
    """
    unsettled = _unsettled(delivery, source.settle_seconds, now)
    if source.complete == "settled":
        return unsettled
    if source.complete == "manifest":
        return _awaited_of_manifest(delivery, listed, unsettled)
    marker = delivery.marker
    if marker is None:
        return f"its marker {source.marker} is not there"
    newest = max(delivery.data, key=lambda file: file.changed)
    # An earlier delivery under this name had the same marker; or all of it was copied in any order.
    if unsettled is not None and newest.changed > marker.changed:
        return f"{newest.name} is newer than its marker {marker.name}, and {unsettled}"
    return None


def _awaited_of_manifest(
    delivery: Delivery, listed: Listed | None, unsettled: str | None
) -> str | None:
    if listed is None:
        return f"its manifest is not there ({' or '.join(MANIFESTS)})"
    if listed.whole:
        return None
    present = {file.name: file.size for file in delivery.data}
    missing = [name for name in listed.sizes if name not in present]
    other = [
        name
        for name, size in listed.sizes.items()
        if size is not None and present.get(name, size) != size
    ]
    why = None
    if missing:
        why = f"{_names(missing)} of its manifest is not there"
    elif other:
        why = f"{_names(other)} does not have the size that its manifest says"
    elif unsettled is None:
        # What is wrong now stays so: the batch shall fail and say it.
        pass
    elif listed.problem is not None:
        why = f"its manifest cannot be read yet: {listed.problem}"
    elif None in listed.sizes.values():
        why = f"its manifest does not tell all sizes, and {unsettled}"
    elif present.keys() - listed.sizes.keys():
        why = f"it has files that its manifest does not list, and {unsettled}"
    return why


def _unsettled(delivery: Delivery, settle_seconds: float, now: float) -> str | None:
    age = now - delivery.newest_change
    if age >= settle_seconds:
        return None
    if age < -settle_seconds:
        return f"it was changed {-age:,.0f} seconds from now: set the clocks right"
    return f"it has not been unchanged for {settle_seconds:g} seconds"


def _manifests(delivery: Delivery) -> list[LandedFile]:
    return [file for file in delivery.control if file.name in MANIFESTS]


def _names(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(map(repr, names[:_NAMED])) + more
