"""The asset `archive`: the batch in a verified bag, and staging cleared."""

import dagster as dg
from dagster._core.definitions.metadata import RawMetadataValue

from assets.common import batch_metadata, filed_feed_report, filed_report, stage_asset
from batch_pipelines.engine.archive import archive
from batch_pipelines.engine.feeds import Feed
from resources.batches import Batches


def archive_asset(feed: Feed) -> dg.AssetsDefinition:
    """Make the asset for a feed.

    Args:
        feed: The feed.

    Returns:
        The asset.
    """

    @stage_asset(
        feed,
        "archive",
        after="validate",
        kinds={"file"},
        description="A BagIt bag of source, rejects, digests and ledger extract, read back, compared.",
    )
    def _archive(
        context: dg.AssetExecutionContext, batches: dg.ResourceParam[Batches]
    ) -> dg.MaterializeResult[None]:
        with batches.work(context, feed, "archive") as (connection, work):
            result = archive(connection, work)
            filed = batches.file_report(connection, work)
            of_feed = batches.file_feed_report(connection, work)
        bag = result.archive
        stored: dict[str, RawMetadataValue] = (
            {}
            if bag is None
            else {
                "bag": dg.MetadataValue.path(bag.place),
                "bytes": bag.payload_bytes,
                "tagmanifest_sha256": bag.tagmanifest_sha256,
                "verified_at": bag.verified_at.isoformat(),
            }
        )
        return dg.MaterializeResult(
            metadata={
                **batch_metadata(result.batch, worked=result.worked),
                **stored,
                **filed_report(filed),
                **filed_feed_report(of_feed),
            }
        )

    return _archive
