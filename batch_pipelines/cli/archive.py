"""`archive`: what is done with bags."""

from __future__ import annotations

import datetime as dt
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from batch_pipelines.cli.batches import opened_ledger
from batch_pipelines.cli.known_feeds import known_feeds
from batch_pipelines.cli.show import Json, print_json, say
from batch_pipelines.engine.archiving.keys import new_key
from batch_pipelines.engine.archiving.verify import ArchiveVerifier
from batch_pipelines.engine.ledger import batches
from batch_pipelines.engine.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batch_pipelines.engine.archiving.verify import Finding

_WRONG, _PARTIAL = 1, 3

app = typer.Typer(help="Bags: the archive of batches.", no_args_is_help=True)


@app.command()
def key() -> None:
    """Make a secret key for BATCH_PIPELINES_ARCHIVE_KEY, and print it."""
    say(new_key())


@app.command()
def verify(
    batch: Annotated[
        str | None, typer.Argument(help="Batch id, a unique prefix of one, or FEED/KEY.")
    ] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="Every bag.")] = False,
    sample: Annotated[
        int | None, typer.Option(help="So many, those longest not looked at first.", min=1)
    ] = None,
    feed: Annotated[str | None, typer.Option(help="With --all or --sample: of this feed.")] = None,
    json: Json = False,
) -> None:
    """Read bags again, and hold archive and ledger against each other."""
    if (batch is not None) + every + (sample is not None) != 1:
        raise typer.BadParameter("Give a BATCH, or --all, or --sample N.")
    if batch is not None and feed is not None:
        raise typer.BadParameter("--feed goes with --all or --sample.")
    settings = load_settings()
    with opened_ledger() as connection:
        # Without the feeds only archives of their own are not looked at.
        verifier = ArchiveVerifier(settings, known_feeds(settings), lambda: dt.datetime.now(dt.UTC))
        found: Iterable[Finding]
        if batch is not None:
            found = verifier.of_batch(connection, batches.find(connection, batch))
        else:
            found = verifier.of_many(connection, sample, feed)
        told = []
        for each in found:
            told.append(each)
            if not json:
                _print(each)
    if json:
        print_json([asdict(each) for each in told])
    elif not told:
        say("There is no such bag, so there is nothing to verify.")
    statuses = {each.status for each in told}
    if statuses - {"VALID", "UNVERIFIED"}:
        raise typer.Exit(_WRONG)
    if statuses - {"VALID"}:
        raise typer.Exit(_PARTIAL)


def _print(found: Finding) -> None:
    read = f", {found.files} files, {found.size:,} bytes" if found.files else ""
    say(f"{found.status}  {found.place}{read}")
    for problem in found.problems:
        say(f"  {problem}")
    if found.remedy:
        say(f"  {found.remedy}")
