"""Dagster assets: for each feed the same five, one file a stage, in the order of the data.

Of a feed that writes nothing there is one: `reconcile`.

Each takes its parameters, calls one function of the engine, turns the typed result into metadata and
returns. What a row or a file means is decided in `batch_pipelines.engine`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from assets.archive import archive_asset
from assets.bulk_write import bulk_write_asset
from assets.checksum import checksum_asset
from assets.ingest import ingest_asset
from assets.reconcile import reconcile_asset
from assets.thresholds import thresholds_check
from assets.validate import validate_asset

if TYPE_CHECKING:
    import dagster as dg

    from batch_pipelines.engine.feeds import Feed


def feed_checks(feed: Feed) -> list[dg.AssetChecksDefinition]:
    """Make the checks of a feed that stand beside its assets.

    Args:
        feed: The feed.

    Returns:
        `thresholds`; none for a feed that writes nothing.
    """
    return [] if feed.is_reconciled else [thresholds_check(feed)]


def feed_assets(feed: Feed) -> list[dg.AssetsDefinition]:
    """Make the assets of a feed.

    Args:
        feed: The feed.

    Returns:
        Its five stages, keyed `[feed, stage]`, all with the feed's partitions; or `reconcile` alone.
    """
    if feed.is_reconciled:
        return [reconcile_asset(feed)]
    return [
        ingest_asset(feed),
        checksum_asset(feed),
        bulk_write_asset(feed),
        validate_asset(feed),
        archive_asset(feed),
    ]
