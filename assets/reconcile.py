"""The asset `reconcile`: batches that another system has loaded, compared with their files, and checks.

The only asset of a feed that writes nothing. Its partitions are the other system's batch ids; where
the feed has all new batches compared together, or a table as a whole, it has none.
"""

from collections.abc import Iterator

import dagster as dg
import pydantic

from assets.common import stage_asset
from assets.validate import check_results, check_specs, check_table
from batch_pipelines.engine.feeds import Feed
from batch_pipelines.engine.reconciliation.reconcile import Reconciler, overall, require_reconciled
from resources.batches import Batches, requester

_CHECKS = {
    "record_count": "As many rows in the table as records in the source.",
    "schema": "Every column of the source is in the table.",
    "key_uniqueness": "No key stands twice.",
    "aggregates": "Count, exact sum and bounds of every column, against a second reading.",
    "rows": "The digest of all rows; where it differs or does not cover a column, rows one by one.",
}
_TOGETHER = "all that were new"
_SHOWN = 100


class ReconcileConfig(dg.Config):
    """How to compare."""

    force: bool = pydantic.Field(
        default=False, description="Compare again what has been compared before."
    )


def reconcile_asset(feed: Feed) -> dg.AssetsDefinition:
    """Make the asset for a feed.

    Args:
        feed: A feed that is reconciled.

    Returns:
        The asset with its checks; it fails where a batch is no success.
    """
    key = dg.AssetKey([feed.feed, "reconcile"])

    @stage_asset(
        feed,
        "reconcile",
        after=None,
        kinds={"postgres"},
        description="Rows that another system has loaded, against the files they are from.",
        check_specs=check_specs(key, [each.table for each in feed.tables], _CHECKS),
        partitioned=feed.validation == "each" and not feed.is_compared_whole,
    )
    def _reconcile(
        context: dg.AssetExecutionContext,
        config: ReconcileConfig,
        batches: dg.ResourceParam[Batches],
    ) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult[None]]:
        batch = context.partition_key if context.has_partition_key else None
        by = requester(context.run)
        reconciler = Reconciler(
            batches.acting_for(context.run), batches.settings, feed, by, context.run.run_id
        )
        with batches.connect("reconcile") as connection:
            results = [*reconciler.run(connection, batch, force=config.force)]
        tables = [table for result in results for table in result.tables]
        found = {each.log.target_table: each.found for each in tables}
        for each in feed.tables:
            yield from check_results(batch or _TOGETHER, each.table, found.get(each.table), _CHECKS)
        # Before the materialization: what differs must not turn green.
        for result in results:
            require_reconciled(result)
        yield dg.MaterializeResult(
            metadata={
                "batches": ", ".join(
                    name for result in results for name in result.batches[:_SHOWN]
                ),
                "status": overall(results),
                "outcome": "done" if any(r.worked for r in results) else "nothing to do",
                "checks": check_table([each for each in found.values() if each is not None]),
            }
        )

    return _reconcile
