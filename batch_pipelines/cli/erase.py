"""`erase`: remove what there is of a person by key, in tables and bags, or say where it is."""

from __future__ import annotations

import sys
import uuid
from pathlib import Path  # noqa: TC003  # typer reads the annotation
from typing import TYPE_CHECKING, Annotated

import typer

from batch_pipelines.cli.imports import user
from batch_pipelines.cli.show import Json, complain, print_json, print_table, say
from batch_pipelines.engine.erasure.course import Eraser, RefusedErasureError, Request
from batch_pipelines.engine.errors import SettingsError
from batch_pipelines.engine.feed_files import load_feeds
from batch_pipelines.engine.ledger import batches
from batch_pipelines.engine.postgres.migrate import require_current
from batch_pipelines.engine.settings import load_settings
from batch_pipelines.instance import prepared

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from batch_pipelines.engine.erasure.course import Erased
    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.ledger.erasures import Place
    from batch_pipelines.engine.postgres.database import Database

_FAILED = 1
_WHERE = {
    "rows": "rows of the table", "before_images": "images of rows that were overwritten",
    "superseded_rows": "rows of superseded batches", "quarantine": "records set aside",
    "bag": "bag of a delivery", "rows_bag": "bag of rows", "records_bag": "bag of ledger lines",
}  # fmt: skip


def erase(
    table: Annotated[
        str | None,
        typer.Argument(help="FEED/TABLE, as lab_results/laboratory.lab_results."),
    ] = None,
    *,
    key: Annotated[
        list[str] | None,
        typer.Option(help="COLUMN=VALUE that says whose rows; for several columns several times."),
    ] = None,
    key_file: Annotated[
        Path | None,
        typer.Option(help="A file with a line COLUMN=VALUE each; - reads standard input."),
    ] = None,
    reason: Annotated[str, typer.Option(help="Why; kept in the ledger. Never a name.")] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say where how much is, and change nothing.")
    ] = False,
    drop_sources: Annotated[
        bool,
        typer.Option(
            "--drop-sources",
            help="Let files leave bags as a whole out of which single records cannot be cut.",
        ),
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="End what was begun and left the tables; needs no key.")
    ] = False,
    json: Json = False,
) -> None:
    """Erase a person: the rows that a key tells, wherever they were put. It cannot be taken back."""
    settings = load_settings()
    feeds = load_feeds(settings.feeds)
    with prepared(settings) as database:
        with database.connect("erase") as connection:
            require_current(connection)
        eraser = Eraser(database, settings, feeds, str(uuid.uuid4()), _progress(json=json))
        if resume:
            ended = eraser.resume()
            for done in ended:
                _print_done(database, done, json=json)
            if not ended and not json:
                say("Nothing was left half done.")
            return
        wanted = _key(key or [], key_file)
        feed, name = _table(table, feeds)
        request = Request(feed, name, wanted, reason, f"{user()} (command line)", drop_sources)
        if dry_run:
            _print_plan(database, eraser, request, json=json)
            return
        try:
            done = eraser.erase(request)
        except RefusedErasureError as refused:
            if json:
                print_json(
                    {"dry_run": False, "possible": False, "obstacles": refused.plan.obstacles}
                )
                raise typer.Exit(_FAILED) from None
            raise
        _print_done(database, done, json=json)


def _key(pairs: Sequence[str], file: Path | None) -> dict[str, str]:
    lines = [*pairs]
    if file is not None:
        try:
            text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
        except OSError as error:
            message = f"{file}: cannot be read ({error.strerror}). Give --key-file another file."
            raise SettingsError(message) from None
        lines += [line for line in text.splitlines() if line.strip()]
    found = {}
    for number, line in enumerate(lines, 1):
        column, sign, value = line.partition("=")
        if not sign or not column.strip():
            # Never the line itself: what is wrong with it may be that it is the value alone.
            message = f"Part {number} of the key is not COLUMN=VALUE. Write --key patient=..."
            raise SettingsError(message)
        found[column.strip()] = value
    return found


def _table(table: str | None, feeds: Mapping[str, Feed]) -> tuple[str, str]:
    feed, _, name = (table or "").partition("/")
    if not feed or not name:
        message = (
            "Say whose table: batch-pipelines erase FEED/TABLE --key COLUMN=VALUE --reason TEXT"
        )
        raise SettingsError(message)
    known = [each.table for each in feeds[feed].tables] if feed in feeds else []
    short = [each for each in known if each.rpartition(".")[2] == name]
    return feed, name if name in known or len(short) != 1 else short[0]


def _progress(*, json: bool) -> Callable[[Place], None]:
    def tell(place: Place) -> None:
        if not json:
            say(f"erased: {place.erased} from {_WHERE[place.kind]} {place.place or ''}".rstrip())

    return tell


def _print_plan(database: Database, eraser: Eraser, request: Request, *, json: bool) -> None:
    plan = eraser.plan(request)
    if json:
        print_json(
            {
                "dry_run": True, "possible": not plan.obstacles, "places": plan.places,
                "obstacles": plan.obstacles, "notes": plan.notes,
            }
        )  # fmt: skip
    else:
        _print_places(database, "What would be erased", plan.places)
        for note in plan.notes:
            say(note)
        for obstacle in plan.obstacles:
            complain(f"in the way: {obstacle}")
    if plan.obstacles:
        raise typer.Exit(_FAILED)


def _print_done(database: Database, done: Erased, *, json: bool) -> None:
    if json:
        erasure = done.erasure
        print_json(
            {
                "dry_run": False, "possible": True, "places": done.places, "notes": done.notes,
                "erasure": None if erasure is None else erasure.erasure_id,
            }
        )  # fmt: skip
        return
    if done.erasure is None:
        say("Nothing of the person was found; nothing was changed.")
        return
    _print_places(database, f"Erasure {done.erasure.erasure_id}", done.places)
    for note in done.notes:
        say(note)
    say(
        "Backups, landing folders and what alerts have told are not ours to erase: docs/erasure.md."
    )


def _print_places(database: Database, title: str, places: Sequence[Place]) -> None:
    if not places:
        say("Nothing of the person was found.")
        return
    ids = {place.batch_id for place in places if place.batch_id is not None}
    with database.connect("erase") as connection:
        names = {each: batches.by_id(connection, each).name for each in ids}
    print_table(
        title,
        ["where", "partition", "batch", "records", "erased", "bag", "whole files"],
        [
            [
                _WHERE[p.kind], names.get(p.batch_id or "", "by hand"), (p.batch_id or "")[:8],
                p.found, p.erased, p.place, ", ".join(p.dropped),
            ]
            for p in places
        ],
    )  # fmt: skip
