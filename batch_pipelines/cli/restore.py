"""`restore`: bring the rows of an archived batch back, or say what that would do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from batch_pipelines.cli.imports import user
from batch_pipelines.cli.known_feeds import known_feeds
from batch_pipelines.cli.show import Json, print_json, say
from batch_pipelines.engine.ledger import batches as ledger
from batch_pipelines.engine.postgres.migrate import require_current
from batch_pipelines.engine.restoring.plan import RefusedRestoreError
from batch_pipelines.engine.restoring.report import told
from batch_pipelines.engine.restoring.restore import KEPT_DAYS, RestoreRequest
from batch_pipelines.engine.restoring.restore import restore as bring_back
from batch_pipelines.engine.settings import load_settings
from batch_pipelines.instance import open_instance, prepared

if TYPE_CHECKING:
    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.settings import Settings

_FAILED = 1


def restore(
    batch: Annotated[str, typer.Argument(help="Batch id, a unique prefix of one, or FEED/KEY.")],
    *,
    reason: Annotated[str, typer.Option(help="Why; kept in the audit trail.")] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Do it all, print the plan, and take it back.")
    ] = False,
    days: Annotated[
        int, typer.Option(help="Days for which retention leaves them alone.", min=0)
    ] = KEPT_DAYS,
    json: Json = False,
) -> None:
    """Bring the rows of an archived batch back into their tables, all of them or none."""
    settings = load_settings()
    with prepared(settings) as database:
        with database.connect("restore") as connection:
            require_current(connection)
            found = ledger.find(connection, batch)
        request = RestoreRequest(
            found.batch_id, f"{user()} (command line)", reason.strip(), dry_run, days
        )
        try:
            done = bring_back(database, settings, request)
        except RefusedRestoreError as refused:
            if json:
                print_json({"dry_run": dry_run, "possible": False, "plan": refused.plan})
                raise typer.Exit(_FAILED) from None
            raise
        if done.plan is not None and done.refusal is None and not dry_run:
            _tell_dagster(settings, done.batch)
    # Its time is over still: after those days retention takes the rows away again.
    following = f"batch-pipelines hold set {found.batch_id[:8]} --reason TEXT"
    if json:
        print_json(
            {
                "dry_run": dry_run, "possible": done.refusal is None, "refusal": done.refusal,
                "plan": done.plan, "batch": done.batch, "seconds": done.seconds,
                "next": None if dry_run else following,
            }
        )  # fmt: skip
    else:
        for line in told(done, dry_run=dry_run):
            say(line)
        if not dry_run and done.plan is not None:
            say(f"They stay for {days} days. Next, where that is too short: {following}")
    if done.refusal is not None:
        raise typer.Exit(_FAILED)


def _tell_dagster(settings: Settings, batch: Batch) -> None:
    """Put the partition's key back, which retention may have had forgotten, and tell what is there."""
    # Dagster takes a second and a half to import.
    from batch_pipelines.partitions import register  # noqa: PLC0415
    from resources.archived import tell_restored  # noqa: PLC0415

    feed = known_feeds(settings).get(batch.feed)
    if feed is not None:
        with open_instance() as instance:
            register(instance, feed, [batch.partition_key])
            tell_restored(instance, batch)
