"""What lies in landing, and which of it is new: the landing sensor's decision, without Dagster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batch_pipelines.engine.ingest import find_delivery, find_keys

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.ingest import Delivery


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
