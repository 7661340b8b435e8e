"""`rollback`: take published batches back, or say what that would do."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from batch_pipelines.cli.imports import user
from batch_pipelines.cli.show import Json, complain, print_json, say
from batch_pipelines.engine.feed_files import load_feeds
from batch_pipelines.engine.ledger import batches as ledger
from batch_pipelines.engine.postgres.migrate import require_current
from batch_pipelines.engine.rollback import Request, roll_back, verify
from batch_pipelines.engine.rollback.approval import approve as approve_request
from batch_pipelines.engine.rollback.approval import ask
from batch_pipelines.engine.rollback.report import told
from batch_pipelines.engine.rollback.selection import select
from batch_pipelines.engine.rollback.takeback import needs_two
from batch_pipelines.engine.settings import load_settings
from batch_pipelines.instance import open_instance, prepared

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.postgres.database import Database
    from batch_pipelines.engine.rollback import Rollback
    from batch_pipelines.engine.rollback.verify import Verified
    from batch_pipelines.engine.settings import Settings

_FAILED, _PARTIAL = 1, 3


def rollback(
    batch: Annotated[
        list[str] | None,
        typer.Argument(help="Batch ids, unique prefixes of them, or FEED/KEY.", show_default=False),
    ] = None,
    *,
    since: Annotated[
        str | None,
        typer.Option(help="Also every batch published at or after this time (ISO 8601)."),
    ] = None,
    reason: Annotated[
        str | None, typer.Option(help="Why; kept in the ledger. Needed but in a dry run.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and change nothing.")
    ] = False,
    cascade: Annotated[
        bool, typer.Option("--cascade", help="Take later batches that depend on them back, too.")
    ] = False,
    keep_touched: Annotated[
        bool,
        typer.Option("--keep-touched", help="Let rows stay that were changed or are referred to."),
    ] = False,
    approve: Annotated[
        str | None,
        typer.Option(
            help="Approve somebody else's request, by its id, and do it.", metavar="REQUEST"
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Take published batches back, exactly, all of them or none."""
    if approve is not None and (batch or since):
        message = "it names the batches itself"
        raise typer.BadParameter(message, param_hint="--approve")
    if not dry_run and approve is None and not (reason or "").strip():
        message = "say why: it is kept in the ledger"
        raise typer.BadParameter(message, param_hint="--reason")
    settings = load_settings()
    feeds = load_feeds(settings.feeds)
    by = f"{user()} (command line)"
    with prepared(settings) as database:
        with database.connect("rollback") as connection:
            require_current(connection)
            if approve is not None:
                request = replace(approve_request(connection, approve, by), dry_run=dry_run)
            else:
                request = Request(
                    select(connection, batch or [], since), (reason or "").strip(), by,
                    cascade=cascade, keep_touched=keep_touched, dry_run=dry_run,
                )  # fmt: skip
            if not dry_run and request.approved_by is None:
                found = [ledger.by_id(connection, each) for each in request.batch_ids]
                if needs_two(found, feeds):
                    _ask(ask(connection, request), json=json)
        _run(database, settings, feeds, request, json=json)


def _ask(request_id: str, *, json: bool) -> None:
    following = f"batch-pipelines rollback --approve {request_id}"
    if json:
        print_json({"request": request_id, "next": following})
    else:
        say("The feed wants two people for a rollback; nothing was changed yet.")
        say(f"Next, by somebody else: {following}")
    raise typer.Exit(_PARTIAL)


def _run(
    database: Database,
    settings: Settings,
    feeds: Mapping[str, Feed],
    request: Request,
    *,
    json: bool,
) -> None:
    done = roll_back(database, settings, feeds, request)
    verified: list[Verified] = []
    if not request.dry_run:
        gone = [each.batch.batch_id for each in done.done] + [b.batch_id for b in done.already]
        with database.connect("verify rollback") as connection:
            verified = [verify(connection, batch_id) for batch_id in gone]
        _tell_dagster([each.batch for each in verified])
    failed = [check for each in verified for check in each.failed]
    if json:
        print_json(
            {
                "dry_run": request.dry_run, "possible": done.refusal is None,
                "refusal": done.refusal, "plans": done.plans, "done": done.done,
                "already": done.already, "verified": verified, "seconds": done.seconds,
                "next": _following(done),
            }
        )  # fmt: skip
    else:
        for line in told(done, dry_run=request.dry_run):
            say(line)
        if done.done and not request.dry_run and not failed:
            say("Verified: nothing of it is left.")
        if following := _following(done):
            say(f"Next: {following}")
    for check in failed:
        complain(f"{check.name}: expected {check.expected}, found {check.actual}.")
    if failed or done.refusal is not None:
        raise typer.Exit(_FAILED)


def _tell_dagster(found: list[Batch]) -> None:
    # Dagster takes a second and a half to import.
    from resources.rolled_back import tell_rolled_back  # noqa: PLC0415

    with open_instance() as instance:
        for batch in found:
            tell_rolled_back(instance, batch)


def _following(done: Rollback) -> str | None:
    if len(done.done) != 1:
        return None
    batch = done.done[0].batch
    if batch.adopted_from is not None:
        return None
    return f"batch-pipelines import {batch.feed} --batch {batch.partition_key}"
