"""What waits is sent to real services by Apprise: at least once, and no channel waits for another."""

from __future__ import annotations

import datetime as dt
import logging
from dataclasses import replace
from threading import Thread
from typing import TYPE_CHECKING

import pytest

from batch_pipelines.engine.alerts import Alert, acknowledge, listed, outbox, raise_alert, resolve
from batch_pipelines.engine.alerts.channels import Channels
from batch_pipelines.engine.alerts.outbox import MOST_ATTEMPTS, pause_after
from batch_pipelines.engine.alerts.send import send_test, send_waiting
from tests.engine.alerts.conftest import NOON

if TYPE_CHECKING:
    from batch_pipelines.engine.alerts.send import Sent
    from batch_pipelines.engine.postgres.database import Connection, Database
    from tests.engine.alerts.conftest import Clock
    from tests.support_channels import Service

BUDGET = dt.timedelta(seconds=20)
ALERT = Alert(
    kind="test",
    severity="critical",
    subject="orders/2026-11-22 failed",
    deduplication_key="failed/orders/2026-11-22",
    feed="orders",
    details={"rejected records": 7, "of": 100, "next": "batch-pipelines show orders/2026-11-22"},
    raised_at=NOON,
)


def send(ledger: Connection, channels: Channels, clock: Clock, seconds: float = 5) -> Sent:
    return send_waiting(ledger, channels, clock, budget=BUDGET, message_seconds=seconds)


def attempts(ledger: Connection) -> list[tuple[object, ...]]:
    rows = ledger.execute(
        "SELECT channel, attempt, error_details FROM batch_audit.alert_attempt ORDER BY 1, 2"
    )
    return rows.fetchall()


def test_an_alert_is_sent_once_with_its_key(
    ledger: Connection, channels: Channels, services: dict[str, Service], clock: Clock
) -> None:
    raise_alert(ledger, ALERT)
    sent = send(ledger, channels, clock)
    assert (sent.sent, sent.failed, sent.waiting) == (1, {}, 0)
    (message,) = services["default"].got
    assert message["title"] == "[critical] orders/2026-11-22 failed"
    assert message["type"] == "failure"
    assert message["message"].splitlines() == [
        "rejected records: 7",
        "of: 100",
        "raised: 2026-11-22 12:00:00 UTC",
        "next: batch-pipelines show orders/2026-11-22",
        "acknowledge: batch-pipelines alerts ack 1",
        "key: failed/orders/2026-11-22",
    ]
    assert services["lab"].got == services["mail"].got == []

    clock.forward(hours=1)
    assert send(ledger, channels, clock).sent == 0
    assert len(services["default"].got) == 1
    (told,) = listed(ledger)[0].deliveries
    assert (told.channel, told.status, told.attempts, told.sent_at) == ("default", "SENT", 1, NOON)
    assert attempts(ledger) == [("default", 1, None)]


def test_roles_are_told_and_a_name_that_nobody_has_is_recorded(
    ledger: Connection, channels: Channels, services: dict[str, Service], clock: Clock
) -> None:
    raise_alert(ledger, replace(ALERT, channels=("duty", "lab")))
    raise_alert(ledger, replace(ALERT, deduplication_key="2", channels=("nurse",)))
    assert send(ledger, channels, clock).sent == 3
    assert {name: len(service.got) for name, service in services.items()} == {
        "default": 1, "lab": 1, "mail": 1
    }  # fmt: skip
    found = {told.channel: told for told in listed(ledger)[0].deliveries}
    assert found["default"].status == "SENT"
    assert found["nurse"].status == "GAVE_UP"
    assert found["nurse"].error_details == "no channel or role of this name is set"


@pytest.mark.parametrize(
    ("status", "seconds", "error"),
    [
        (500, 0, "it answered 500"),
        (404, 0, "it answered 404"),
        (200, 30, "it gave no answer within 1 s"),
        (None, 0, "it could not be reached, or did not take the message"),
    ],
)
def test_a_channel_that_fails_is_tried_again_and_holds_up_no_other(
    ledger: Connection,
    channels: Channels,
    services: dict[str, Service],
    clock: Clock,
    status: int | None,
    seconds: float,
    error: str,
) -> None:
    lab = services["lab"]
    lab.status, lab.seconds = status or 200, seconds
    if status is None:
        url = type(channels.urls["lab"])("json://127.0.0.1:9/")
        channels = replace(channels, urls={**channels.urls, "lab": url})
    for number in range(3):
        raise_alert(ledger, replace(ALERT, deduplication_key=str(number), channels=("duty",)))
    sent = send(ledger, channels, clock, seconds=1)
    assert (sent.sent, sent.failed, sent.waiting) == (3, {"lab": error}, 3)
    assert len(services["mail"].got) == 3
    assert attempts(ledger)[0] == ("lab", 1, error)

    # Its pause is not over; then it is well again.
    clock.forward(seconds=14)
    assert send(ledger, channels, clock).failed == {}
    assert len([attempt for attempt in attempts(ledger) if attempt[0] == "lab"]) == 1
    if status is None:
        return
    clock.forward(seconds=1)
    lab.status, lab.seconds = 200, 0
    assert send(ledger, channels, clock).sent == 3
    # At least once: what the service took and did not say so comes again, and has the same key.
    keys = [message["message"].splitlines()[-1] for message in lab.got]
    assert sorted(set(keys)) == ["key: 0", "key: 1", "key: 2"]
    assert len(keys) == 4


def test_a_slow_channel_is_told_once(
    ledger: Connection, channels: Channels, services: dict[str, Service], clock: Clock
) -> None:
    services["default"].seconds = 4.3  # Apprise by itself waits 4 s
    raise_alert(ledger, ALERT)
    assert send(ledger, channels, clock, seconds=10).sent == 1
    clock.forward(hours=1)
    send(ledger, channels, clock)
    assert len(services["default"].got) == 1


def test_pauses_grow() -> None:
    pauses = [pause_after(failures).total_seconds() for failures in (1, 2, 3, 4, 5, 6, 7, 10**6)]
    assert pauses == [15, 30, 60, 120, 240, 480, 600, 600]


def test_a_delivery_is_given_up_and_others_are_told(
    ledger: Connection, channels: Channels, services: dict[str, Service], clock: Clock
) -> None:
    services["lab"].status = 500
    raise_alert(ledger, replace(ALERT, channels=("lab",)))
    send(ledger, channels, clock)
    for _ in range(2):
        # As if it had failed as often as it may.
        ledger.execute(
            "UPDATE batch_audit.alert_delivery SET attempts = %s WHERE channel = 'lab' "
            "AND status = 'WAITING'", (MOST_ATTEMPTS - 1,)
        )  # fmt: skip
        clock.forward(minutes=11)
        send(ledger, channels, clock)
    (told,) = listed(ledger)[1].deliveries
    assert (told.status, told.attempts, told.error_details) == (
        "GAVE_UP", MOST_ATTEMPTS, "it answered 500"
    )  # fmt: skip
    assert services["default"].titles == [
        "[warning] channel lab does not take alerts: it answered 500"
    ]
    (word,) = [message["message"] for message in services["default"].got]
    assert "alert that was given up: 1" in word
    assert f"attempts: {MOST_ATTEMPTS}" in word


def test_a_channel_that_takes_nothing_is_given_up_after_a_day(
    ledger: Connection, channels: Channels, services: dict[str, Service], clock: Clock
) -> None:
    services["default"].status = 500
    raise_alert(ledger, ALERT)
    # Its own failure cannot be told there either, and nobody is told of that.
    for minutes in (0, 24 * 60 + 1, 1, 24 * 60 + 1, 1):
        clock.forward(minutes=minutes)
        send(ledger, channels, clock)
    assert [found.alert.kind for found in listed(ledger)] == ["channel_failed", "test"]
    assert [told.status for found in listed(ledger) for told in found.deliveries] == ["GAVE_UP"] * 2


def test_an_alert_that_a_channel_never_takes_holds_no_other_up(
    ledger: Connection, channels: Channels, services: dict[str, Service], clock: Clock
) -> None:
    default = services["default"]
    default.status = 400
    raise_alert(ledger, ALERT)
    send(ledger, channels, clock)
    default.status = 200
    raise_alert(ledger, replace(ALERT, severity="info", subject="next", deduplication_key="2"))
    clock.forward(seconds=15)
    send(ledger, channels, clock)
    assert default.titles[1] == "[info] next"


def test_critical_alerts_go_first(
    ledger: Connection, channels: Channels, services: dict[str, Service], clock: Clock
) -> None:
    for severity in ("info", "warning", "critical"):
        raise_alert(ledger, replace(ALERT, severity=severity, deduplication_key=severity))
    send(ledger, channels, clock)
    assert [title.split("]")[0] for title in services["default"].titles] == [
        "[critical", "[warning", "[info"
    ]  # fmt: skip


def test_two_senders_at_once_send_once(
    database18: Database, channels: Channels, services: dict[str, Service], clock: Clock
) -> None:
    services["default"].seconds = 0.05
    with database18.connect("test") as ledger:
        for number in range(20):
            raise_alert(ledger, replace(ALERT, deduplication_key=str(number)))

    def go() -> None:
        with database18.connect("test") as connection:
            send(connection, channels, clock)

    threads = [Thread(target=go) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    keys = [message["message"].splitlines()[-1] for message in services["default"].got]
    assert sorted(keys) == sorted(f"key: {number}" for number in range(20))


def test_what_a_killed_sender_had_is_sent_again(
    ledger: Connection, channels: Channels, services: dict[str, Service], clock: Clock
) -> None:
    raise_alert(ledger, ALERT)
    outbox.route(ledger, channels, clock())
    assert outbox.claim(ledger, "default", clock()) is not None  # and it dies
    assert send(ledger, channels, clock).sent == 0
    clock.forward(seconds=outbox.CLAIM.total_seconds())
    assert send(ledger, channels, clock).sent == 1
    assert len(services["default"].got) == 1
    ends = ledger.execute(
        "SELECT attempt, completed_at IS NULL FROM batch_audit.alert_attempt ORDER BY 1"
    )
    assert ends.fetchall() == [(1, True), (2, False)]


def test_nothing_is_begun_when_the_time_is_over(
    ledger: Connection, channels: Channels, services: dict[str, Service], clock: Clock
) -> None:
    raise_alert(ledger, ALERT)
    sent = send_waiting(ledger, channels, clock, budget=dt.timedelta())
    assert (sent.sent, sent.waiting) == (0, 1)
    assert services["default"].got == []


def test_an_alert_that_nobody_acknowledges_is_escalated_once(
    ledger: Connection, channels: Channels, services: dict[str, Service], clock: Clock
) -> None:
    urgent = replace(ALERT, escalate_after=dt.timedelta(minutes=15), escalate_to=("duty",))
    raise_alert(ledger, urgent)
    send(ledger, channels, clock)
    clock.forward(minutes=14)
    assert send(ledger, channels, clock).sent == 0
    clock.forward(minutes=1)
    assert send(ledger, channels, clock).sent == 2
    assert services["lab"].titles == services["mail"].titles == [
        "[critical, not acknowledged] orders/2026-11-22 failed"
    ]  # fmt: skip
    assert listed(ledger)[0].escalated_at == clock()
    clock.forward(days=1)
    assert send(ledger, channels, clock).sent == 0


def test_without_others_to_tell_the_same_are_told_again(
    ledger: Connection, channels: Channels, services: dict[str, Service], clock: Clock
) -> None:
    raise_alert(ledger, replace(ALERT, escalate_after=dt.timedelta(minutes=15)))
    for _ in range(2):
        send(ledger, channels, clock)
        clock.forward(minutes=15)
    assert services["default"].titles == [
        "[critical] orders/2026-11-22 failed",
        "[critical, not acknowledged] orders/2026-11-22 failed",
    ]


def test_what_was_seen_or_is_over_is_not_escalated(
    ledger: Connection, channels: Channels, services: dict[str, Service], clock: Clock
) -> None:
    urgent = replace(ALERT, escalate_after=dt.timedelta(minutes=15), escalate_to=("lab",))
    raise_alert(ledger, urgent)
    raise_alert(ledger, replace(urgent, deduplication_key="2"))
    acknowledge(ledger, listed(ledger)[0].alert_id, by="ann")
    resolve(ledger, ALERT.deduplication_key)
    clock.forward(hours=1)
    send(ledger, channels, clock)
    assert services["lab"].got == []
    assert len(services["default"].got) == 2


def test_what_was_raised_before_there_were_channels_is_told_for_a_day(
    ledger: Connection, channels: Channels, services: dict[str, Service], clock: Clock
) -> None:
    raise_alert(ledger, ALERT)
    raise_alert(
        ledger, replace(ALERT, deduplication_key="2", raised_at=NOON - dt.timedelta(minutes=2))
    )
    assert send(ledger, Channels(), clock).sent == 0
    clock.forward(hours=23, minutes=59)
    assert send(ledger, channels, clock).sent == 1
    assert [found.deliveries == () for found in listed(ledger)] == [False, True]


def test_a_channel_that_is_gone_is_given_up_after_a_day(
    ledger: Connection, channels: Channels, services: dict[str, Service], clock: Clock
) -> None:
    services["lab"].status = 500
    raise_alert(ledger, replace(ALERT, channels=("lab",)))
    send(ledger, channels, clock)
    left = Channels({"default": channels.urls["default"]})
    send(ledger, left, clock)
    assert listed(ledger)[0].deliveries[0].status == "WAITING"
    clock.forward(days=1, minutes=1)
    send(ledger, left, clock)
    assert listed(ledger)[0].deliveries[0].error_details == "the channel is not set any more"


def test_no_secret_of_a_channel_is_written_anywhere(
    ledger: Connection,
    channels: Channels,
    services: dict[str, Service],
    clock: Clock,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Given channels that fail in each way, with logs as loud as can be."""
    caplog.set_level(logging.DEBUG)
    services["lab"].status = 500
    wrong = {
        "bad": "nosuch://GEHEIM-x",
        "worse": "json://GEHEIM-user:GEHEIM@/",
        "gone": "slack://GEHEIM",
    }
    secret = type(channels.urls["lab"])
    urls = {**channels.urls, **{name: secret(url) for name, url in wrong.items()}}
    raise_alert(ledger, replace(ALERT, channels=("duty", *wrong)))
    sent = send(ledger, Channels(urls, channels.roles), clock)
    assert sent.failed.keys() == {"lab", *wrong}
    assert sent.failed["bad"] == "Apprise knows no such URL: its scheme or a part of it is wrong"
    written = capfd.readouterr()
    everything = [sent, caplog.text, written.out, written.err, attempts(ledger), listed(ledger)]
    assert "GEHEIM" not in str(everything)
    # And the service had them: they were there to be written.
    assert services["mail"].got


def test_a_test_goes_to_each_channel(channels: Channels, services: dict[str, Service]) -> None:
    services["lab"].status = 503
    assert send_test(channels) == {"default": None, "lab": "it answered 503", "mail": None}
    assert services["mail"].titles == ["[test] batch-pipelines"]
