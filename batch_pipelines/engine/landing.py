"""What lies in landing: the files of deliveries, and which of them are new. Nothing is copied here."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batch_pipelines.engine.feed_parts.source import PLACEHOLDER
from batch_pipelines.engine.feeds import check_key
from batch_pipelines.engine.places.choosing import place_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.places.place import LandedFile

MANIFEST = "manifest.csv"
JSON_MANIFEST = "manifest.json"
MANIFESTS = (MANIFEST, JSON_MANIFEST)
SIDECAR_SUFFIXES = (".crc32c", ".sha256")
# A bag's payload stands in its folder `data`, its tag files beside that.
# In a sensor's cursor, beside partition keys: it cannot be one of them.
_PAUSES = "*"
_PAYLOAD, _TAGS = "data", ("bagit.txt", "*manifest-*.txt", "bag-info.txt", "fetch.txt")


@dataclass(frozen=True)
class Delivery:
    """The files of a delivery as they lie in landing.

    Attributes:
        data: Files to load, by name.
        control: The sender's manifests and sidecars.
        fingerprint: SHA-256 over names, sizes and states (time or ETag) of all of them.
        newest_mtime: Latest change of any of them, seconds since 1970.
        tags: Tag files of the bag that it was delivered as; none where it is no bag.
        payload: Paths of all files of that bag's payload, from its folder.
    """

    data: tuple[LandedFile, ...]
    control: tuple[LandedFile, ...]
    fingerprint: str
    newest_mtime: float
    tags: tuple[LandedFile, ...] = ()
    payload: tuple[str, ...] = ()


def find_delivery(feed: Feed, key: str, root: Path) -> Delivery | None:
    """Look for a partition's delivery in landing.

    Args:
        feed: The feed.
        key: Partition key.
        root: Folder where relative paths start.

    Returns:
        Its files, or None where there is none.

    Raises:
        DeliveryError: The key is not a valid one, or landing cannot be reached.
    """
    return _landed(feed, check_key(key), root).get(key)


def find_keys(feed: Feed, root: Path) -> list[str]:
    """List the partition keys that have something in landing.

    Args:
        feed: The feed.
        root: Folder where relative paths start.

    Returns:
        The valid keys, sorted; a name that is no valid key is passed over.

    Raises:
        DeliveryError: Landing cannot be reached.
    """
    return list(scan(feed, root))


def scan(feed: Feed, root: Path) -> dict[str, Delivery]:
    """List the deliveries that lie in landing.

    Args:
        feed: The feed.
        root: Folder where relative paths start.

    Returns:
        The deliveries by partition key, sorted.

    Raises:
        DeliveryError: Landing cannot be reached.
    """
    landed = _landed(feed, "*", root)
    return {key: landed[key] for key in sorted(landed)}


def asked_since(cursor: Mapping[str, str], pauses: int) -> dict[str, str]:
    """Say what was asked for since the feed was paused last.

    Runs that were queued when it was paused have been refused; they are asked for again.

    Args:
        cursor: The sensor's cursor, as `cursor_of` made it.
        pauses: How often the feed was paused.

    Returns:
        Fingerprint for which a run was asked last, by partition key.
    """
    if cursor.get(_PAUSES, "0") != str(pauses):
        return {}
    return {key: fingerprint for key, fingerprint in cursor.items() if key != _PAUSES}


def cursor_of(asked: Mapping[str, str], pauses: int) -> dict[str, str]:
    """Make the cursor that `asked_since` reads.

    Args:
        asked: Fingerprint for which a run was asked last, by partition key.
        pauses: How often the feed was paused.

    Returns:
        The cursor; of a feed that never was, `asked` alone.
    """
    return {**asked, **({_PAUSES: str(pauses)} if pauses else {})}


def new_deliveries(
    landed: Mapping[str, Delivery],
    tried: Mapping[str, str | None],
    asked: Mapping[str, str],
    *,
    now: float,
    settle_seconds: float,
) -> dict[str, str]:
    """Say which deliveries want a run.

    Args:
        landed: What lies in landing, by partition key.
        tried: Fingerprint of each partition's newest batch, from the ledger.
        asked: Fingerprint for which a run was asked last, from the sensor's cursor.
        now: Seconds since 1970.
        settle_seconds: How long a delivery must be unchanged to count as complete.

    Returns:
        The fingerprint of each complete delivery that was neither tried nor asked for.
    """
    return {
        key: delivery.fingerprint
        for key, delivery in landed.items()
        if delivery.fingerprint not in {tried.get(key), asked.get(key)}
        and now - delivery.newest_mtime >= settle_seconds
    }


def _landed(feed: Feed, wanted: str, root: Path) -> dict[str, Delivery]:
    """List the deliveries of a partition, or of all where `*` is wanted, in one look at the place."""
    *folders, name = (part.replace(PLACEHOLDER, wanted) for part in feed.source.parts)
    place = place_of(feed.source, root)
    bags: dict[str, list[LandedFile]] = defaultdict(list)
    if folders[-1:] == [_PAYLOAD]:
        for tag in place.files("/".join(folders[:-1]), _TAGS):
            bags[f"{_folder_of(tag)}{_PAYLOAD}/"].append(tag)
    names = (name, *(name + suffix for suffix in SIDECAR_SUFFIXES), *MANIFESTS)
    by_folder: dict[str, dict[str, LandedFile]] = defaultdict(dict)
    for file in place.files("/".join(folders), ("*",) if bags else names):
        by_folder[_folder_of(file)][file.name] = file
    landed: dict[str, Delivery] = {}
    for folder, files in by_folder.items():
        data: dict[str, list[LandedFile]] = defaultdict(list)
        for file in files.values():
            key = None if _is_control(file.name) else feed.key_of(file.path)
            if key is not None:
                data[key].append(file)
        landed |= {key: _delivery(own, files, bags[folder]) for key, own in data.items()}
    return landed


def _delivery(
    own: Iterable[LandedFile], beside: Mapping[str, LandedFile], tags: Iterable[LandedFile]
) -> Delivery:
    data = sorted(own, key=lambda file: file.name)
    sidecars = (file.name + suffix for file in data for suffix in SIDECAR_SUFFIXES)
    control = [beside[word] for word in (*sidecars, *MANIFESTS) if word in beside]
    tags = sorted(tags, key=lambda file: file.name)
    is_bag = any(tag.name == "bagit.txt" for tag in tags)
    payload = tuple(f"{_PAYLOAD}/{name}" for name in sorted(beside)) if is_bag else ()
    files = [*data, *control, *(tags if is_bag else ())]
    seen = json.dumps([(file.name, file.size, *file.state) for file in files])
    newest = max(file.changed for file in files)
    fingerprint = hashlib.sha256(seen.encode()).hexdigest()
    return Delivery(
        tuple(data), tuple(control), fingerprint, newest, tuple(tags) if is_bag else (), payload
    )


def _folder_of(file: LandedFile) -> str:
    return file.path.removesuffix(file.name)


def _is_control(name: str) -> bool:
    return name in MANIFESTS or name.endswith(SIDECAR_SUFFIXES)
