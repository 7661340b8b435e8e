"""`cancel`: end a batch that is in progress, so that it can never be published."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from batch_pipelines.cli.imports import user
from batch_pipelines.cli.show import Json, print_json, say
from batch_pipelines.engine.postgres.migrate import require_current
from batch_pipelines.engine.settings import load_settings
from batch_pipelines.instance import open_instance, prepared

if TYPE_CHECKING:
    from batch_pipelines.engine.processes import Ending

_TOLD: dict[Ending | None, str] = {
    None: "No process worked on it.",
    "gone": "Its process was gone.",
    "ended": "Its process has ended.",
    "killed": "Its process did not end when asked, and was killed.",
    "elsewhere": "Its process is on another machine, or cannot be told from others: it ends by "
    "itself with the next thing that it writes, which is refused.",
    "own": "Its process is this one.",
    "not permitted": "Its process is another user's: it ends by itself with the next thing that it "
    "writes, which is refused.",
    "stays": "Its process was killed, but the system has not let it go yet.",
}


def cancel(
    batch: Annotated[str, typer.Argument(help="Batch id, a unique prefix of one, or FEED/KEY.")],
    *,
    json: Json = False,
) -> None:
    """Cancel a batch that is in progress: nothing of it becomes visible."""
    # A second and a half, which a wrong word need not wait for.
    from resources.batches import Batches  # noqa: PLC0415
    from resources.cancelling import cancel_batch  # noqa: PLC0415

    settings = load_settings()
    with prepared(settings) as database:
        with database.connect("cancel") as connection:
            require_current(connection)
        by = f"{user()} (command line)"
        with open_instance() as instance:
            done, ending = cancel_batch(instance, Batches(settings, database), batch, by)
    following = f"batch-pipelines import {done.batch.feed} --batch {done.batch.partition_key}"
    if json:
        print_json({"batch": done.batch, "process": ending or "none", "next": following})
        return
    where = "" if done.process is None else f" ({done.process.name})"
    say(f"Batch {done.batch.batch_id}  {done.batch.name} is cancelled: {done.batch.status}.")
    say(f"{_TOLD[ending]}{where}")
    say(f"Next: {following}")
