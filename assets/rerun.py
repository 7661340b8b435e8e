"""The op of the job `rerun_failed`: it asks for reruns, which the sensor of that name launches."""

from collections.abc import Mapping

import dagster as dg
import pydantic

from assets.common import table
from batch_pipelines.engine.feeds import Feed
from batch_pipelines.engine.rerun.deciding import Asked
from batch_pipelines.engine.rerun.requests import ask
from resources.batches import Batches, requester
from resources.reruns import choose_asked


class RerunConfig(dg.Config):
    """Which failed partitions; as it stands, all whose cause may be gone."""

    partitions: list[str] = pydantic.Field(
        default=[], description="FEED/KEY of those to run again, whatever their cause is."
    )
    feed: str | None = pydantic.Field(default=None, description="Only partitions of this feed.")
    any_cause: bool = pydantic.Field(
        default=False, description="Also those whose cause does not go away by itself."
    )
    rolled_back: bool = pydantic.Field(
        default=False, description="Also those that were rolled back: the same rows come again."
    )
    dry_run: bool = pydantic.Field(default=False, description="Only say which it would be.")


def rerun_op(feeds: Mapping[str, Feed]) -> dg.OpDefinition:
    """Make the op.

    Args:
        feeds: The feeds that import, by name.

    Returns:
        The op.
    """

    @dg.op(name="ask", description="Asks for failed partitions to be run again, as a whole.")
    def _ask(
        context: dg.OpExecutionContext, config: RerunConfig, batches: dg.ResourceParam[Batches]
    ) -> None:
        asked = Asked(
            named=bool(config.partitions),
            any_cause=config.any_cause,
            rolled_back=config.rolled_back,
        )
        wanted = {n: f for n, f in feeds.items() if config.feed in {None, n}}
        chosen = choose_asked(context.instance, batches, wanted, asked, config.partitions)
        if not config.dry_run:
            by = requester(context.run)
            with batches.connect("rerun") as connection:
                ask(connection, [c.failed for c in chosen if c.decision.run], by)
        rows = (
            {
                "partition": each.failed.name,
                "state": each.failed.status,
                "cause": each.failed.cause,
                "run again": each.decision.run,
                "why": each.decision.why,
            }
            for each in chosen
        )
        context.add_output_metadata({"failed partitions": table(rows)})

    return _ask
