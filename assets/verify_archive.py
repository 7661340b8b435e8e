"""The op `verify_bags`: bags read again, each shown as an observation of its partition.

No asset: it makes nothing, and it is about bags of all feeds.
"""

import datetime as dt
from collections.abc import Iterable, Mapping

import dagster as dg
import pydantic

from assets.common import Cell, table
from batch_pipelines.engine.archiving.verify import ArchiveVerifier, Finding, require_valid
from batch_pipelines.engine.feeds import Feed
from batch_pipelines.engine.ledger.batches import find
from resources.batches import Batches

_NIGHTLY = 100


class VerifyArchiveConfig(dg.Config):
    """What to verify; without `batch` or `every`, a sample."""

    batch: str | None = pydantic.Field(
        default=None, description="Batch id, a unique prefix of one, or FEED/KEY."
    )
    every: bool = pydantic.Field(default=False, description="Every bag, not only a sample.")
    sample: int = pydantic.Field(
        default=_NIGHTLY, ge=1, description="How many bags, those longest not looked at first."
    )
    feed: str | None = pydantic.Field(default=None, description="Only bags of this feed.")


def verify_archive_op(feeds: Mapping[str, Feed]) -> dg.OpDefinition:
    """Make the op.

    Args:
        feeds: The feeds by name.

    Returns:
        An op that fails where bags are damaged, missing or unknown.
    """

    @dg.op(
        name="verify_bags",
        description="Reads bags again, and holds archive and ledger against each other.",
    )
    def _verify_archive(
        context: dg.OpExecutionContext,
        config: VerifyArchiveConfig,
        batches: dg.ResourceParam[Batches],
    ) -> None:
        verifier = ArchiveVerifier(batches.settings, feeds, lambda: dt.datetime.now(dt.UTC))
        found = []
        with batches.connect("verify_archive") as connection:
            if config.batch is not None:
                findings = verifier.of_batch(connection, find(connection, config.batch))
            else:
                sample = None if config.every else config.sample
                findings = verifier.of_many(connection, sample, config.feed)
            for finding in findings:
                found.append(finding)
                # One by one: what was found stays visible where the run ends early.
                if finding.feed in feeds:
                    context.log_event(_observation(finding))
        context.add_output_metadata({"bags": len(found), "verified": table(_rows(found))})
        require_valid(found)

    return _verify_archive


def _observation(found: Finding) -> dg.AssetObservation:
    return dg.AssetObservation(
        asset_key=[str(found.feed), "archive"],
        partition=found.partition_key,
        description=f"Bag verified: {found.status}",
        metadata={
            "bag": dg.MetadataValue.path(found.place),
            "fixity": dg.MetadataValue.text(found.status),
            "bytes": found.size,
            "problems": dg.MetadataValue.text("; ".join(found.problems)),
            "what to do": dg.MetadataValue.text(found.remedy),
        },
    )


def _rows(found: Iterable[Finding]) -> Iterable[dict[str, Cell]]:
    for each in found:
        yield {
            "bag": each.place,
            "status": each.status,
            "files": each.files,
            "bytes": each.size,
            "problems": "; ".join(each.problems),
            "what to do": each.remedy,
        }
