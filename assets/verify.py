"""The op `verify`: batches proven again, each shown as an observation of its partition.

No asset: it makes nothing, and it is about batches of all feeds.
"""

from collections.abc import Iterable, Mapping

import dagster as dg
import pydantic

from assets.common import Cell, differing_rows, table
from batch_pipelines.engine.feeds import Feed
from batch_pipelines.engine.verification.choose import choose
from batch_pipelines.engine.verification.verify import Verification, Verifier, require_proven
from resources.batches import Batches, requester

_NIGHTLY = 10


class VerifyConfig(dg.Config):
    """What to verify; without `batch` or `every`, a sample."""

    batch: str | None = pydantic.Field(
        default=None, description="Batch id, a unique prefix of one, or FEED/KEY."
    )
    every: bool = pydantic.Field(
        default=False, description="Every batch that was ever published, not only a sample."
    )
    sample: int = pydantic.Field(
        default=_NIGHTLY,
        ge=1,
        description="How many batches in force, those longest not verified first.",
    )
    feed: str | None = pydantic.Field(default=None, description="Only batches of this feed.")


def verify_op(feeds: Mapping[str, Feed]) -> dg.OpDefinition:
    """Make the op.

    Args:
        feeds: The feeds by name.

    Returns:
        An op that fails where rows differ.
    """

    @dg.op(name="verify", description="Proves batches again, against the tables of today.")
    def _verify(
        context: dg.OpExecutionContext, config: VerifyConfig, batches: dg.ResourceParam[Batches]
    ) -> None:
        found = []
        by = requester(context.run)
        verifier = Verifier(batches.settings, feeds, by, context.run.run_id)
        with batches.connect("verify") as connection:
            sample = None if config.every else config.sample
            for batch in choose(connection, config.batch, sample, config.feed):
                found.append(verifier.verify(connection, batch))
                # One by one: what was found stays visible where the run ends early.
                context.log_event(_observation(found[-1]))
        context.add_output_metadata({"batches": len(found), "verified": table(_rows(found))})
        require_proven(found)

    return _verify


def _observation(found: Verification) -> dg.AssetObservation:
    batch = found.batch
    return dg.AssetObservation(
        asset_key=[batch.feed, "bulk_write"],
        partition=batch.partition_key,
        description=f"Verified: {found.status}",
        metadata={
            "batch_id": dg.MetadataValue.text(batch.batch_id),
            "verified": dg.MetadataValue.text(found.status),
            "tables": table(_rows([found])),
            "rows that differ": differing_rows(
                row for each in found.tables for row in each.details
            ),
        },
    )


def _rows(found: Iterable[Verification]) -> Iterable[dict[str, Cell]]:
    for verification in found:
        for each in verification.tables:
            yield {
                "batch": verification.batch.name,
                "table": each.target_table,
                "status": each.status,
                "rows": each.actual_rows,
                "expected": each.expected_rows,
                "changed": each.changed,
                "missing": each.missing,
                "added": each.added,
                "duplicated": each.duplicated,
                "replaced since": each.replaced,
                "not covered": ", ".join(each.not_covered),
                "why": each.exception,
            }
