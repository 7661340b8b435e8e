"""The asset `checksum`: the staged copy proven equal to what was delivered."""

import dagster as dg

from assets.common import MEGABYTE, batch_metadata, hexadecimal, stage_asset, table
from assets.plot import RECENT, throughput
from batch_pipelines.engine.checksum import checksum
from batch_pipelines.engine.feeds import Feed
from batch_pipelines.engine.ledger.speeds import recent_speeds
from resources.batches import Batches


def checksum_asset(feed: Feed) -> dg.AssetsDefinition:
    """Make the asset for a feed.

    Args:
        feed: The feed.

    Returns:
        The asset.
    """

    @stage_asset(
        feed,
        "checksum",
        after="ingest",
        kinds={"file"},
        description="CRC32C of the staged copy, against ingest and against the sender's promise.",
    )
    def _checksum(
        context: dg.AssetExecutionContext, batches: dg.ResourceParam[Batches]
    ) -> dg.MaterializeResult[None]:
        with batches.work(context, feed, "checksum") as (connection, work):
            result = checksum(connection, work)
            speeds = recent_speeds(connection, feed.feed, "checksum", RECENT)
        files = [
            {
                "file": file.file_name,
                "crc32c": hexadecimal(file.crc32c),
                "promised": hexadecimal(file.expected_crc32c),
                "promised by": file.expected_source,
                "records": file.records,
                "set aside": file.problem if file.set_aside else None,
            }
            for file in result.files
        ]
        rate = result.bytes_processed / MEGABYTE / result.seconds
        # A duplicate's files were not read again, so there is no count of their records.
        counted = [file.records for file in result.files if file.records is not None]
        return dg.MaterializeResult(
            metadata={
                **batch_metadata(result.batch, worked=result.worked),
                **({"records": sum(counted)} if counted else {}),
                "files": table(files),
                "files_set_aside": sum(file.set_aside for file in result.files),
                "throughput": throughput(speeds, of_records=False),
                **({"throughput_mbps": round(rate, 1)} if result.worked else {}),
            }
        )

    return _checksum
