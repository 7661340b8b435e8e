"""What lies in landing: the files of deliveries. Nothing is copied here.

Not here: whether a delivery is complete (`completeness`), and which ones want a run (`arrivals`).
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batch_pipelines.engine.feed_parts.source import PLACEHOLDER
from batch_pipelines.engine.feeds import check_key, is_key
from batch_pipelines.engine.places.choosing import place_of
from batch_pipelines.engine.places.place import anything, nobody

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.places.place import LandedFile

MANIFEST = "manifest.csv"
JSON_MANIFEST = "manifest.json"
MANIFESTS = (MANIFEST, JSON_MANIFEST)
SIDECAR_SUFFIXES = (".crc32c", ".sha256")
# A bag's payload stands in its folder `data`, its tag files beside that.
_PAYLOAD, _TAGS = "data", ("bagit.txt", "*manifest-*.txt", "bag-info.txt", "fetch.txt")
_DRAFTS = (".", "_")


@dataclass(frozen=True)
class Delivery:
    """The files of a delivery as they lie in landing.

    Attributes:
        data: Files to load, by name.
        control: The sender's manifests and sidecars.
        fingerprint: SHA-256 over names, sizes and states (time or ETag) of all of them.
        newest_change: Latest change of any of them, seconds since 1970.
        tags: Tag files of the bag that it was delivered as; none where it is no bag.
        payload: Paths of all files of that bag's payload, from its folder.
        marker: The newest file by which the sender says that it is complete; the fingerprint does not
            tell of it.
    """

    data: tuple[LandedFile, ...]
    control: tuple[LandedFile, ...]
    fingerprint: str
    newest_change: float
    tags: tuple[LandedFile, ...] = ()
    payload: tuple[str, ...] = ()
    marker: LandedFile | None = None


@dataclass(frozen=True)
class Landed:
    """What was found in landing.

    Attributes:
        deliveries: The deliveries by partition key, sorted.
        no_keys: Names in the place of a partition key that cannot be one, sorted.
        problems: Sentences about what could not be looked into.
    """

    deliveries: Mapping[str, Delivery]
    no_keys: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


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
    return dict(look(feed, root).deliveries)


def look(feed: Feed, root: Path, wanted: Callable[[str], bool] = anything) -> Landed:
    """Look into landing, and say what was passed over.

    Args:
        feed: The feed.
        root: Folder where relative paths start.
        wanted: Which partition keys to look at.

    Returns:
        The deliveries; of those that are not wanted hardly anything has been read.

    Raises:
        DeliveryError: Landing cannot be reached.
    """
    no_keys: set[str] = set()
    problems: dict[str, None] = {}

    def chosen(text: str) -> bool:
        if is_key(text):
            return wanted(text)
        # What begins so is a sender's draft, or hidden.
        if text and not text.startswith(_DRAFTS):
            no_keys.add(text)
        return False

    found = _landed(feed, "*", root, chosen, problems.setdefault)
    return Landed(
        {key: found[key] for key in sorted(found)}, tuple(sorted(no_keys)), tuple(problems)
    )


def list_files(
    feed: Feed, root: Path, problem: Callable[[str], object] = nobody
) -> dict[str, LandedFile]:
    """List the files of a feed that gathers them, and their sidecars, by name.

    Args:
        feed: The feed.
        root: Folder where relative paths start.
        problem: Is told of a folder that is not there or may not be looked into.

    Returns:
        The files; `is_data` tells those to load.

    Raises:
        DeliveryError: Landing cannot be reached.
    """
    *folders, name = feed.source.parts
    names = (name, *(name + suffix for suffix in SIDECAR_SUFFIXES))
    listed = place_of(feed.source, root).files("/".join(folders), names, problem=problem)
    return {file.name: file for file in listed}


def is_data(name: str) -> bool:
    """Say whether a file is to be loaded, and no manifest or sidecar."""
    return name not in MANIFESTS and not name.endswith(SIDECAR_SUFFIXES)


def _landed(
    feed: Feed,
    key: str,
    root: Path,
    wanted: Callable[[str], bool] = anything,
    problem: Callable[[str], object] = nobody,
) -> dict[str, Delivery]:
    """List the deliveries of a partition, or of those wanted where its key is `*`."""
    *folders, name = (part.replace(PLACEHOLDER, key) for part in feed.source.parts)
    marker = None if feed.source.marker is None else feed.source.marker.replace(PLACEHOLDER, key)
    place = place_of(feed.source, root)
    bags: dict[str, list[LandedFile]] = defaultdict(list)
    if folders[-1:] == [_PAYLOAD]:
        for tag in place.files("/".join(folders[:-1]), _TAGS, wanted=wanted):
            bags[f"{_folder_of(tag)}{_PAYLOAD}/"].append(tag)
    names = [name, *(name + suffix for suffix in SIDECAR_SUFFIXES), *MANIFESTS]
    names += [] if marker is None else [marker]
    by_folder: dict[str, dict[str, LandedFile]] = defaultdict(dict)
    listed = ("*",) if bags else names
    for file in place.files("/".join(folders), listed, wanted=wanted, problem=problem):
        by_folder[_folder_of(file)][file.name] = file
    landed: dict[str, Delivery] = {}
    paths = feed.source.key_pattern()
    for folder, files in by_folder.items():
        data: dict[str, list[LandedFile]] = defaultdict(list)
        markers = {}
        for file in files.values():
            if marker is not None and fnmatch.fnmatchcase(file.name, marker):
                markers[file.name] = file
            elif is_data(file.name) and (match := paths.match(file.path)) and is_key(match[1]):
                data[match[1]].append(file)
        for own_key, own in data.items():
            of_key = _marker(feed, own_key, markers)
            landed[own_key] = delivery_of(own, files, bags[folder], of_key)
    return landed


def _marker(feed: Feed, key: str, markers: Mapping[str, LandedFile]) -> LandedFile | None:
    name = feed.source.marker or ""
    if PLACEHOLDER in name:
        return markers.get(name.replace(PLACEHOLDER, key))
    return max(markers.values(), key=lambda file: file.changed, default=None)


def delivery_of(
    own: Iterable[LandedFile],
    beside: Mapping[str, LandedFile],
    tags: Iterable[LandedFile] = (),
    marker: LandedFile | None = None,
) -> Delivery:
    """Make a delivery of its files.

    Args:
        own: Its data.
        beside: All files of its folder, by name.
        tags: Tag files of a bag.
        marker: Its marker.

    Returns:
        The delivery.
    """
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
        tuple(data),
        tuple(control),
        fingerprint,
        newest,
        tuple(tags) if is_bag else (),
        payload,
        marker,
    )


def _folder_of(file: LandedFile) -> str:
    return file.path.removesuffix(file.name)
