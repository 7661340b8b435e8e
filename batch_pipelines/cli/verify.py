"""`verify`: prove batches again, against the tables of today; or the audit trail."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path  # noqa: TC003  # typer reads it
from typing import TYPE_CHECKING, Annotated

import typer

from batch_pipelines.cli.audited import verify_trail
from batch_pipelines.cli.batches import opened_ledger
from batch_pipelines.cli.differences import print_differences
from batch_pipelines.cli.imports import user
from batch_pipelines.cli.known_feeds import known_feeds
from batch_pipelines.cli.show import Json, print_json, say
from batch_pipelines.engine.feeds import NO_TABLE
from batch_pipelines.engine.settings import load_settings
from batch_pipelines.engine.verification.choose import choose
from batch_pipelines.engine.verification.verify import Verifier

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batch_pipelines.engine.ledger.verifications import TableVerification
    from batch_pipelines.engine.verification.verify import Verification

_DIFFERS, _PARTIAL = 1, 3


def verify(
    batch: Annotated[
        str | None, typer.Argument(help="Batch id, a unique prefix of one, or FEED/KEY.")
    ] = None,
    *,
    every: Annotated[
        bool, typer.Option("--all", help="Every batch that was ever published.")
    ] = False,
    sample: Annotated[
        int | None,
        typer.Option(help="So many in force, those longest not verified first.", min=1),
    ] = None,
    feed: Annotated[str | None, typer.Option(help="With --all or --sample: of this feed.")] = None,
    audit: Annotated[bool, typer.Option("--audit", help="The audit trail itself.")] = False,
    anchors: Annotated[
        Path | None, typer.Option(help="With --audit: folder of anchors, if another than the own.")
    ] = None,
    removed: Annotated[
        bool,
        typer.Option("--removed", help="With --audit: read removed months where their bags stand."),
    ] = False,
    json: Json = False,
) -> None:
    """Prove batches again, against the tables of today."""
    if (batch is not None) + every + (sample is not None) + audit != 1:
        raise typer.BadParameter("Give a BATCH, or --all, or --sample N, or --audit.")
    if feed is not None and (batch is not None or audit):
        raise typer.BadParameter("--feed goes with --all or --sample.")
    if anchors is not None and not audit:
        raise typer.BadParameter("--anchors goes with --audit.")
    if removed and not audit:
        raise typer.BadParameter("--removed goes with --audit.")
    if audit:
        verify_trail(anchors, removed=removed, json=json)
        return
    _verify_batches(batch, sample, feed, json=json)


def _verify_batches(batch: str | None, sample: int | None, feed: str | None, *, json: bool) -> None:
    settings = load_settings()
    with opened_ledger() as connection:
        # Without the feeds only the columns of changed rows are not told.
        verifier = Verifier(settings, known_feeds(settings), f"{user()} (command line)")
        found = []
        for each in choose(connection, batch, sample, feed):
            one = verifier.verify(connection, each)
            found.append(one)
            if not json:
                _print(one)
    if json:
        print_json([asdict(each) | {"status": each.status} for each in found])
    elif not found:
        say("There is no such batch, so there is nothing to verify.")
    statuses = {each.status for each in found}
    if "FAILED" in statuses:
        raise typer.Exit(_DIFFERS)
    if statuses - {"SUCCESS"}:
        raise typer.Exit(_PARTIAL)


def _print(found: Verification) -> None:
    batch = found.batch
    say(f"{batch.batch_id[:8]}  {batch.name}, {batch.status}: {found.status}")
    if found.exception is not None:
        say(f"  {found.exception}")
    for table in found.tables:
        for line in _sentences(table):
            say(f"  {line}")
        if table.details:
            numbers = (table.changed, table.missing, table.added, table.duplicated)
            print_differences(table.details, sum(filter(None, numbers)))


def _sentences(table: TableVerification) -> Iterator[str]:
    numbers = {
        "changed": table.changed, "missing": table.missing, "added": table.added,
        "duplicated": table.duplicated, "replaced since": table.replaced,
    }  # fmt: skip
    told = ", ".join(f"{number:,} {word}" for word, number in numbers.items() if number)
    rows = _rows(table)
    yield f"{table.target_table}: {table.status}, {rows}{f' ({told})' if told else ''}"
    if table.not_covered:
        yield f"not covered: {', '.join(table.not_covered)}"
    if table.exception is not None:
        yield table.exception


def _rows(table: TableVerification) -> str:
    things = "files" if table.target_table == NO_TABLE else "rows"
    if table.actual_rows is None:
        return f"{things} not counted"
    if table.actual_rows == table.expected_rows:
        return f"{table.actual_rows:,} {things}"
    return f"{table.actual_rows:,} {things} where {table.expected_rows:,} were expected"
