"""`alerts`: what people were to be told, who has seen it, and sending what waits."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Annotated

import typer

from batch_pipelines.cli.batches import opened_ledger
from batch_pipelines.cli.imports import user
from batch_pipelines.cli.show import Json, complain, print_json, print_table, say
from batch_pipelines.engine.alerts import acknowledge, listed
from batch_pipelines.engine.alerts.channels import VARIABLE, read_channels
from batch_pipelines.engine.alerts.send import send_test, send_waiting
from batch_pipelines.engine.errors import SettingsError
from batch_pipelines.engine.settings import load_settings

if TYPE_CHECKING:
    from batch_pipelines.engine.alerts import Recorded
    from batch_pipelines.engine.alerts.channels import Channels

_FAILED = 1
# Somebody waits for the command; what is not sent by then is told, and can be sent by the next one.
_BUDGET = dt.timedelta(minutes=10)

app = typer.Typer(help="Alerts: what people are told, and who has seen it.")


@app.callback(invoke_without_command=True)
def alerts(
    context: typer.Context,
    *,
    feed: Annotated[str | None, typer.Option(help="Only of this feed.")] = None,
    only_open: Annotated[
        bool, typer.Option("--open", help="Only those that somebody still has to look at.")
    ] = False,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1)] = 100,
    json: Json = False,
) -> None:
    """List alerts, newest first; or acknowledge, send and test."""
    if context.invoked_subcommand is not None:
        return
    with opened_ledger() as connection:
        found = listed(connection, feed=feed, open_only=only_open, limit=limit)
    if json:
        print_json(found)
        return
    print_table(
        "Alerts",
        ["alert", "raised", "severity", "feed", "what", "told", "state"],
        [
            [str(a.alert_id), f"{a.alert.raised_at:%Y-%m-%d %H:%M:%S}", a.alert.severity,
             a.alert.feed, a.alert.subject, _told(a), _state(a)]
            for a in found
        ],
    )  # fmt: skip


@app.command("ack")
def ack(
    alert: Annotated[int, typer.Argument(help="Its number, as `alerts` lists it.")],
    *,
    note: Annotated[str | None, typer.Option(help="What there is to say of it; kept.")] = None,
    json: Json = False,
) -> None:
    """Acknowledge an alert: it is no longer open, and is not escalated."""
    with opened_ledger() as connection:
        seen = acknowledge(connection, alert, by=f"{user()} (command line)", note=note)
    if json:
        print_json(seen)
        return
    say(f"Alert {seen.alert_id}, {seen.alert.subject}: {_state(seen)}.")


@app.command("send")
def send(*, json: Json = False) -> None:
    """Send every alert that waits and is due, without the daemon."""
    channels = _channels()
    with opened_ledger() as connection:
        done = send_waiting(connection, channels, _now, budget=_BUDGET)
    if json:
        print_json(done)
    else:
        say(f"{done.sent} sent, {done.waiting} still to be sent.")
        for channel, error in done.failed.items():
            complain(f"channel {channel}: {error}.")
    if done.failed:
        raise typer.Exit(_FAILED)


@app.command("test")
def try_(*, json: Json = False) -> None:
    """Send each channel a message that says it is a test."""
    channels = _channels()
    found = send_test(channels)
    if json:
        print_json({"channels": found, "roles": channels.roles})
    else:
        for channel, error in found.items():
            if error is None:
                say(f"{channel}: sent.")
            else:
                complain(f"channel {channel}: {error}.")
    if any(error is not None for error in found.values()):
        raise typer.Exit(_FAILED)


def _channels() -> Channels:
    channels = read_channels(load_settings().alerts)
    if not channels.urls:
        message = (
            f"No channel is set. Set {VARIABLE} to a URL of Apprise, to NAME=URL for several, or to "
            "the path of a file; docs/alerts.md has examples."
        )
        raise SettingsError(message)
    return channels


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _told(found: Recorded) -> str | None:
    """Say where an alert was told, and where not."""
    words = {"SENT": "", "WAITING": " waits", "GAVE_UP": " FAILED"}
    told = [f"{to.channel}{words[to.status]}" for to in found.deliveries]
    return ", ".join(dict.fromkeys(told)) or None


def _state(found: Recorded) -> str:
    """Say who has seen an alert, and what became of its batch."""
    gone = f"; its batch was {found.batch_gone}" if found.batch_gone else ""
    return _seen(found) + gone


def _seen(found: Recorded) -> str:
    if found.acknowledged_at is not None:
        note = f": {found.acknowledgement_note}" if found.acknowledgement_note else ""
        return f"acknowledged by {found.acknowledged_by}{note}"
    if found.resolved_at is not None:
        return "resolved"
    if found.escalated_at is not None:
        return "open, escalated"
    return "open" if found.is_open else "for information"
