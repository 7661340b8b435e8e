"""The asset `bulk_write`: the batch's rows, published in one transaction."""

import dagster as dg

from assets.common import Cell, batch_metadata, stage_asset, table
from batch_pipelines.engine.bulk_write import bulk_write
from batch_pipelines.engine.feeds import Feed
from resources.batches import Batches


def bulk_write_asset(feed: Feed) -> dg.AssetsDefinition:
    """Make the asset for a feed.

    Args:
        feed: The feed.

    Returns:
        The asset.
    """
    names = ", ".join(each.table for each in feed.tables)

    @stage_asset(
        feed,
        "bulk_write",
        after="checksum",
        kinds={"postgres", "table"},
        description=f"Rows of {names}, published in one transaction, each with its batch id.",
    )
    def _bulk_write(
        context: dg.AssetExecutionContext, batches: dg.ResourceParam[Batches]
    ) -> dg.MaterializeResult[None]:
        with batches.work(context, feed, "bulk_write") as (connection, work):
            result = bulk_write(connection, work)
        balance: list[dict[str, Cell]] = [
            {
                "table": each.target_table,
                "records": each.source_records,
                "inserted": each.inserted,
                "updated": each.updated,
                "unchanged": each.unchanged,
                "removed": each.removed,
            }
            for each in result.tables
        ]
        digests: list[dict[str, Cell]] = [
            {
                "table": each.target_table,
                "sum": f"{each.digest_sum:x}",
                "second moment": f"{each.digest_moment:x}",
            }
            for each in result.tables
        ]
        rows = sum(each.source_records for each in result.tables)
        several = len(result.columns) > 1
        columns = [
            dg.TableColumn(f"{name}.{column.name}" if several else column.name, column.type_name)
            for name, columns in result.columns.items()
            for column in columns
        ]
        return dg.MaterializeResult(
            metadata={
                **batch_metadata(result.batch, worked=result.worked),
                **({"dagster/partition_row_count": rows} if result.tables else {}),
                "dagster/table_name": names,
                "dagster/column_schema": dg.TableSchema(columns),
                "balance": table(balance),
                "row_digests": table(digests),
                **({"rows_per_second": round(rows / result.seconds)} if result.worked else {}),
                **({"superseded": result.superseded} if result.superseded else {}),
            }
        )

    return _bulk_write
