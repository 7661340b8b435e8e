"""`hold`: legal holds, set, lifted and listed."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Annotated

import typer

from batch_pipelines.cli.batches import opened_ledger
from batch_pipelines.cli.imports import user
from batch_pipelines.cli.known_feeds import known_feeds
from batch_pipelines.cli.show import Json, complain, print_json, print_table, say
from batch_pipelines.engine.ledger import batches
from batch_pipelines.engine.retention import holds
from batch_pipelines.engine.retention.holds import Scope
from batch_pipelines.engine.settings import load_settings

if TYPE_CHECKING:
    from batch_pipelines.engine.retention.holds import Hold

app = typer.Typer(help="Legal holds: what must not be deleted.", no_args_is_help=True)


def _moment(text: str | None) -> dt.datetime | None:
    """Read a time in ISO 8601; without a zone it is local."""
    if text is None:
        return None
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        message = f"{text!r} is no time. Write it as in 2026-03-01 or 2026-03-01T00:00+00:00."
        raise typer.BadParameter(message) from None
    return moment if moment.tzinfo is not None else moment.astimezone()


@app.command("set")
def set_(
    batch: Annotated[
        str | None, typer.Argument(help="Batch id, a unique prefix of one, or FEED/KEY.")
    ] = None,
    *,
    reason: Annotated[str, typer.Option(help="Why; kept in the ledger.")],
    feed: Annotated[str | None, typer.Option(help="All batches of this feed.")] = None,
    since: Annotated[
        str | None, typer.Option(help="Batches worked on at or after this time (ISO 8601).")
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="Batches worked on before this time (ISO 8601).")
    ] = None,
    everything: Annotated[bool, typer.Option("--everything", help="All batches.")] = False,
    json: Json = False,
) -> None:
    """Set a legal hold: over a batch, a feed, a range of dates, or everything."""
    ranged = feed is not None or since is not None or until is not None
    if (batch is not None) + ranged + everything != 1:
        message = (
            "Give a BATCH; or --feed, --since and --until, in any combination; or --everything."
        )
        raise typer.BadParameter(message)
    scope = Scope(feed=feed, since=_moment(since), until=_moment(until))
    if feed is not None and feed not in known_feeds(load_settings()):
        complain(f"There is no file of a feed {feed}; the hold is over what the ledger has of it.")
    with opened_ledger() as connection:
        if batch is not None:
            scope = Scope(batches.find(connection, batch).batch_id)
        hold = holds.set_hold(connection, scope, reason=reason, by=f"{user()} (command line)")
    _tell(hold, json=json)


@app.command()
def lift(
    hold: Annotated[int, typer.Argument(help="Its number; `hold list` has them.")],
    *,
    reason: Annotated[str, typer.Option(help="Why; kept in the ledger.")],
    json: Json = False,
) -> None:
    """Lift a legal hold: rules apply again."""
    with opened_ledger() as connection:
        lifted = holds.lift_hold(connection, hold, reason=reason, by=f"{user()} (command line)")
    _tell(lifted, json=json)


@app.command("list")
def list_(
    *,
    every: Annotated[bool, typer.Option("--all", help="Those that were lifted, too.")] = False,
    json: Json = False,
) -> None:
    """List legal holds, the oldest first."""
    with opened_ledger() as connection:
        found = holds.listed(connection, lifted=every)
    if json:
        print_json(found)
        return
    print_table(
        "Legal holds",
        ["hold", "over", "reason", "set by", "set", "lifted", "why lifted"],
        [
            [h.hold_id, str(h.scope), h.reason, h.set_by, f"{h.set_at:%Y-%m-%d %H:%M}",
             h.lifted_at and f"{h.lifted_at:%Y-%m-%d %H:%M}", h.lift_reason]
            for h in found
        ],
    )  # fmt: skip


def _tell(hold: Hold, *, json: bool) -> None:
    if json:
        print_json(hold)
        return
    done = "set" if hold.lifted_at is None else "lifted"
    say(f"Hold {hold.hold_id} over {hold.scope} is {done}.")
