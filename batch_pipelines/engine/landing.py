"""What lies in landing: the files of deliveries, and which of them are new. Nothing is copied here."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batch_pipelines.engine.feeds import check_key

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from batch_pipelines.engine.feeds import Feed

MANIFEST = "manifest.csv"
SIDECAR_SUFFIX = ".crc32c"


@dataclass(frozen=True)
class Delivery:
    """The files of a delivery as they lie in landing.

    Attributes:
        data: Files to load, by name.
        control: The sender's manifest and sidecars.
        fingerprint: SHA-256 over names, sizes and times of all of them.
        newest_mtime: Latest change of any of them, seconds since 1970.
    """

    data: tuple[Path, ...]
    control: tuple[Path, ...]
    fingerprint: str
    newest_mtime: float


def find_delivery(feed: Feed, key: str, root: Path) -> Delivery | None:
    """Look for a partition's delivery in landing.

    Args:
        feed: The feed.
        key: Partition key.
        root: Folder where relative paths start.

    Returns:
        Its files, or None where there is none.

    Raises:
        DeliveryError: The key is not a valid one.
    """
    pattern = feed.pattern(check_key(key), root)
    folder = pattern.parent
    found = sorted(p for p in folder.glob(pattern.name) if p.is_file()) if folder.is_dir() else []
    data = tuple(p for p in found if not _is_control(p.name))
    if not data:
        return None
    sidecars = (p.with_name(p.name + SIDECAR_SUFFIX) for p in data)
    control = tuple(p for p in (*sidecars, folder / MANIFEST) if p.is_file())
    stats = [(p.name, p.stat()) for p in (*data, *control)]
    seen = json.dumps([(name, s.st_size, s.st_mtime_ns) for name, s in stats])
    newest = max(s.st_mtime for _, s in stats)
    return Delivery(data, control, hashlib.sha256(seen.encode()).hexdigest(), newest)


def find_keys(feed: Feed, root: Path) -> list[str]:
    """List the partition keys that have something in landing.

    Args:
        feed: The feed.
        root: Folder where relative paths start.

    Returns:
        The valid keys, sorted; a name that is no valid key is passed over.
    """
    anchor = feed.pattern("*", root)
    base, *rest = _split_at_wildcard(anchor)
    found = base.glob("/".join(rest)) if base.is_dir() else iter(())
    keys = {feed.key_of(path, root) for path in found if not _is_control(path.name)}
    return sorted(key for key in keys if key is not None)


def scan(feed: Feed, root: Path) -> dict[str, Delivery]:
    """List the deliveries that lie in landing.

    Args:
        feed: The feed.
        root: Folder where relative paths start.

    Returns:
        The deliveries by partition key.
    """
    found = {key: find_delivery(feed, key, root) for key in find_keys(feed, root)}
    return {key: delivery for key, delivery in found.items() if delivery is not None}


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


def _is_control(name: str) -> bool:
    return name == MANIFEST or name.endswith(SIDECAR_SUFFIX)


def _split_at_wildcard(pattern: Path) -> tuple[Path, *tuple[str, ...]]:
    parts = pattern.parts
    first = next(i for i, part in enumerate(parts) if "*" in part)
    return (type(pattern)(*parts[:first]), *parts[first:])
