"""`rerun-failed`: run failed partitions again in this process, as a whole chain each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from batch_pipelines.cli.imports import Again, import_again
from batch_pipelines.cli.show import Json, print_json, print_table, say
from batch_pipelines.engine.errors import FeedError
from batch_pipelines.engine.feed_files import find_feed, load_feeds
from batch_pipelines.engine.postgres.migrate import require_current
from batch_pipelines.engine.rerun.deciding import Asked
from batch_pipelines.engine.settings import load_settings
from batch_pipelines.instance import open_instance, prepared

if TYPE_CHECKING:
    from collections.abc import Sequence

    from resources.reruns import Chosen


def rerun_failed(
    partitions: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FEED/KEY]...",
            help="Failed partitions to run again, whatever their cause is.",
            show_default=False,
        ),
    ] = None,
    *,
    feed: Annotated[str | None, typer.Option(help="Only partitions of this feed.")] = None,
    any_cause: Annotated[
        bool,
        typer.Option("--any-cause", help="Also those whose cause does not go away by itself."),
    ] = False,
    rolled_back: Annotated[
        bool,
        typer.Option("--rolled-back", help="Also those that were rolled back: the same rows come."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which, and why.")] = False,
    json: Json = False,
) -> None:
    """Run failed partitions again: those whose cause may be gone, or that have a new delivery."""
    # A second and a half, which a wrong word need not wait for.
    from resources.batches import Batches  # noqa: PLC0415
    from resources.dead_runs import end_dead_runs  # noqa: PLC0415
    from resources.reruns import choose_asked  # noqa: PLC0415

    settings = load_settings()
    feeds = {name: f for name, f in load_feeds(settings.feeds).items() if not f.is_reconciled}
    if feed is not None:
        feeds = {feed: find_feed(feeds, feed)}
    asked = Asked(named=bool(partitions), any_cause=any_cause, rolled_back=rolled_back)
    with prepared(settings) as database:
        with database.connect("rerun") as connection:
            require_current(connection)
        with open_instance() as instance:
            batches = Batches(settings, database)
            end_dead_runs(instance, batches)
            chosen = choose_asked(instance, batches, feeds, asked, partitions or [])
        _require_failed(partitions or [], chosen)
        again = [each for each in chosen if each.decision.run]
        if not dry_run and again:
            keys: dict[tuple[str, str | None], list[str]] = {}
            for each in again:
                place = (each.failed.feed, each.reprocess)
                keys.setdefault(place, []).append(each.failed.partition_key)
            wanted = [Again(feeds[n], tuple(k), bag) for (n, bag), k in keys.items()]
            import_again(settings, database, wanted, json=json)
            return
    _print(chosen, json=json)


def _require_failed(names: Sequence[str], chosen: Sequence[Chosen]) -> None:
    known = {each.failed.name for each in chosen}
    if unknown := [name for name in names if name not in known]:
        message = (
            f"{', '.join(unknown)}: there is no such partition that stands failed and that no run waits "
            "for or works on. `batch-pipelines rerun-failed --dry-run` lists those that do."
        )
        raise FeedError(message)


def _print(chosen: Sequence[Chosen], *, json: bool) -> None:
    rows = [
        {
            "partition": each.failed.name, "status": each.failed.status, "cause": each.failed.cause,
            "tries": each.failed.tries, "run": each.decision.run, "why": each.decision.why,
        }
        for each in chosen
    ]  # fmt: skip
    if json:
        print_json(rows)
    elif rows:
        print_table("Failed partitions", [*rows[0]], [[*row.values()] for row in rows])
    else:
        say("No partition stands failed that no run waits for or works on.")
