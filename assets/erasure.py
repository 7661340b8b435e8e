"""The op of the job `erasure`: erasures that have left the tables are ended in the bags.

Whose records are meant is never in a run's configuration, which Dagster keeps and shows: an erasure is
begun on the command line, and what is left of it after a crash is known by numbers of records alone.
"""

from collections.abc import Iterable

import dagster as dg

from assets.common import Cell, table
from batch_pipelines.engine.erasure.course import Erased, Eraser
from batch_pipelines.engine.errors import BatchError
from batch_pipelines.engine.ledger.erasures import Place
from resources.batches import Batches


@dg.op(
    name="resume_erasures",
    description="Ends erasures that were begun on the command line and have left the tables.",
)
def resume_erasures_op(context: dg.OpExecutionContext, batches: dg.ResourceParam[Batches]) -> None:
    """Go on with what was begun."""

    def tell(place: Place) -> None:
        context.log.info("erased: %s records from %s %s", place.erased, place.kind, place.place)

    eraser = Eraser(
        batches.acting_for(context.run),
        batches.settings,
        batches.feeds(),
        context.run.run_id,
        tell,
    )
    try:
        done = eraser.resume()
    except BatchError as error:
        raise dg.Failure(str(error), allow_retries=False) from None
    context.add_output_metadata({"ended": len(done), "done": table(_places(done))})


def _places(done: Iterable[Erased]) -> Iterable[dict[str, Cell]]:
    for each in done:
        for place in each.places:
            yield {
                "erasure": "" if each.erasure is None else each.erasure.erasure_id,
                "what": place.kind,
                "batch": place.batch_id or "",
                "records": place.erased,
                "bag": place.new_place or "",
            }
