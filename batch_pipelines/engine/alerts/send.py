"""Sending what waits: for a sensor, and for people without the daemon. Read this first."""

from __future__ import annotations

from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batch_pipelines.engine.alerts import outbox
from batch_pipelines.engine.alerts.message import Message, write_message
from batch_pipelines.engine.alerts.record import find
from batch_pipelines.engine.alerts.sending import Courier

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable
    from concurrent.futures import Future

    from batch_pipelines.engine.alerts.channels import Channels
    from batch_pipelines.engine.alerts.outbox import Claim
    from batch_pipelines.engine.postgres.database import Connection

# A service that takes longer is as good as down; the next attempt is seconds away.
MESSAGE_SECONDS = 10.0


@dataclass(frozen=True)
class Sent:
    """What a call of `send_waiting` did.

    Attributes:
        sent: Messages that channels took.
        failed: Why not, by channel.
        waiting: Deliveries that are still to be made, now or later.
    """

    sent: int
    failed: dict[str, str]
    waiting: int


def send_waiting(
    connection: Connection,
    channels: Channels,
    clock: Callable[[], dt.datetime],
    *,
    budget: dt.timedelta,
    message_seconds: float = MESSAGE_SECONDS,
    batch_id: str | None = None,
) -> Sent:
    """Send every alert that is due, each channel beside the others.

    A channel that does not take one is left alone for a while, by this call and the next ones; no other
    channel waits for it.

    Args:
        connection: A connection in autocommit mode.
        channels: The channels; without any, nothing is done.
        clock: Gives the time, with time zone.
        budget: After this time nothing more is begun.
        message_seconds: How long one message may take.
        batch_id: Only what this batch has raised.

    Returns:
        What was done.
    """
    if not channels.urls:
        return Sent(0, {}, 0)
    began = clock()
    outbox.route(connection, channels, began, batch_id)
    sent, failed = 0, dict[str, str]()
    # In this order: threads end before the couriers that they talk to.
    with ExitStack() as couriers, ThreadPoolExecutor(len(channels.urls)) as threads:
        senders = {
            name: couriers.enter_context(Courier(url, seconds=message_seconds))
            for name, url in channels.urls.items()
        }
        running: dict[Future[str | None], Claim] = {}

        def begin(channel: str) -> None:
            if clock() - began < budget and (
                taken := outbox.claim(connection, channel, clock(), batch_id)
            ):
                message = _message(connection, taken)
                running[threads.submit(senders[channel].send, message)] = taken

        for channel in senders:
            begin(channel)
        while running:
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                taken, error = running.pop(done), done.result()
                if error is None:
                    outbox.record_sent(connection, taken, clock())
                    sent += 1
                    begin(taken.channel)
                else:
                    outbox.record_failed(connection, taken, error, clock())
                    failed[taken.channel] = error
    return Sent(sent, failed, outbox.waiting(connection))


def send_test(
    channels: Channels, *, message_seconds: float = MESSAGE_SECONDS
) -> dict[str, str | None]:
    """Send each channel a message that says it is a test; the ledger has nothing of it.

    Args:
        channels: The channels.
        message_seconds: How long one message may take.

    Returns:
        By channel, why it did not take it; None where it did.
    """
    found: dict[str, str | None] = {}
    for name, url in channels.urls.items():
        text = f"This is a test of the channel {name}. Nobody needs to do anything."
        with Courier(url, seconds=message_seconds) as courier:
            found[name] = courier.send(Message("[test] batch-pipelines", text, "info"))
    return found


def _message(connection: Connection, taken: Claim) -> Message:
    return write_message(find(connection, taken.alert_id), escalation=taken.escalation)
