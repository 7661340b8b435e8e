"""The asset `ingest`: the delivery copied into staging, with its checksums."""

import dagster as dg
import pydantic

from assets.common import batch_metadata, hexadecimal, stage_asset, table
from batch_pipelines.engine.feeds import Feed
from batch_pipelines.engine.ingest import ingest
from batch_pipelines.engine.sources import place
from resources.batches import TAKEN_OVER, Batches
from resources.runs import report_dead


class IngestConfig(dg.Config):
    """What can be set in the launchpad."""

    force: bool = pydantic.Field(
        default=False,
        description="Load the delivery even though the same one is in force; it is superseded.",
    )
    reprocess: str | None = pydantic.Field(
        default=None,
        description="Id of an earlier batch: import its source, out of its bag, not what is landing.",
    )


def ingest_asset(feed: Feed) -> dg.AssetsDefinition:
    """Make the asset for a feed.

    Args:
        feed: The feed.

    Returns:
        The asset.
    """

    @stage_asset(
        feed,
        "ingest",
        after=None,
        kinds={"file"},
        description=f"Deliveries of {place(feed)}, taken into staging. {feed.description}",
    )
    def _ingest(
        context: dg.AssetExecutionContext,
        config: IngestConfig,
        batches: dg.ResourceParam[Batches],
    ) -> dg.MaterializeResult[None]:
        with batches.work(context, feed, "ingest") as (connection, work):
            result = ingest(connection, work, force=config.force, reprocess=config.reprocess)
        for run_id in result.dead_runs:
            report_dead(context.instance, run_id, TAKEN_OVER)
        files = [
            {
                "file": file.file_name,
                "table": file.target_table,
                "bytes": file.size,
                "crc32c": hexadecimal(file.crc32c),
                "promised": hexadecimal(file.expected_crc32c),
                # As much as tells files apart; the ledger has all of it.
                "sha256": file.sha256[:12],
            }
            for file in result.files
        ]
        return dg.MaterializeResult(
            metadata={
                **batch_metadata(result.batch, worked=result.duplicate_of is None),
                **({} if result.duplicate_of is None else {"duplicate_of": result.duplicate_of}),
                "files": table(files),
                "bytes": sum(file.size for file in result.files),
            }
        )

    return _ingest
