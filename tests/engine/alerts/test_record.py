"""An alert is written down once for each occasion, and stays open until somebody has seen it."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from threading import Barrier, Thread
from typing import TYPE_CHECKING

import pytest

from batch_pipelines.engine.alerts import Alert, acknowledge, find, listed, raise_alert, resolve
from batch_pipelines.engine.errors import AlertError
from batch_pipelines.engine.ledger import batches
from tests.support_engine import feed_of

if TYPE_CHECKING:
    from batch_pipelines.engine.postgres.database import Connection, Database

NOON = dt.datetime(2026, 11, 22, 12, tzinfo=dt.UTC)
BATCH = "aaaaaaaa-0000-4000-8000-000000000001"
LATE = Alert(
    kind="late_delivery",
    severity="warning",
    subject="orders/2026-11-22 is late",
    deduplication_key="late_delivery/orders/2026-11-22",
    feed="orders",
    details={"due": "2026-11-22 06:00 UTC", "next": "batch-pipelines feeds list"},
    channels=("operations",),
    escalate_after=dt.timedelta(minutes=30),
    escalate_to=("on_call",),
    occurred_at=NOON - dt.timedelta(hours=6),
    raised_at=NOON,
)


@pytest.fixture
def ledger(database18: Database) -> Connection:
    return database18.connect("test")


def test_an_occasion_is_one_alert(ledger: Connection) -> None:
    with ledger:
        assert raise_alert(ledger, LATE)
        assert not raise_alert(ledger, replace(LATE, subject="again"))
        assert [found.alert for found in listed(ledger)] == [LATE]


def test_an_occasion_is_one_alert_for_two_at_once(database18: Database) -> None:
    barrier = Barrier(2)
    new: list[bool] = []

    def go() -> None:
        with database18.connect("test") as connection:
            barrier.wait()
            new.append(raise_alert(connection, LATE))

    threads = [Thread(target=go) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(new) == [False, True]


def test_an_alert_belongs_to_its_transaction(ledger: Connection) -> None:
    with ledger:
        with ledger.transaction(force_rollback=True):
            assert raise_alert(ledger, LATE)
        assert listed(ledger) == []
        assert raise_alert(ledger, LATE)


def test_what_is_not_said_is_the_database_s_clock(ledger: Connection) -> None:
    with ledger:
        raise_alert(ledger, Alert("dead_run", "info", "a run died", "dead_run/1"))
        (found,) = listed(ledger)
        (now,) = ledger.execute("SELECT clock_timestamp()").fetchone() or (NOON,)
        assert found.alert.raised_at == found.alert.occurred_at
        assert found.alert.raised_at is not None
        assert now - dt.timedelta(minutes=1) < found.alert.raised_at <= now


def test_an_alert_names_a_batch_of_the_ledger(ledger: Connection) -> None:
    with ledger:
        batches.start(
            ledger, feed_of({"public.t": "*"}), "k", BATCH, requested_by="x", correlation_id=BATCH
        )
        raise_alert(ledger, replace(LATE, batch_id=BATCH))
        assert listed(ledger)[0].alert.batch_id == BATCH


def test_alerts_are_listed_newest_first(ledger: Connection) -> None:
    later = replace(LATE, deduplication_key="2", raised_at=NOON + dt.timedelta(minutes=1))
    whole = replace(LATE, deduplication_key="3", feed=None, raised_at=NOON - dt.timedelta(days=1))
    with ledger:
        for alert in (LATE, later, whole):
            raise_alert(ledger, alert)
        assert [found.alert for found in listed(ledger)] == [later, LATE, whole]
        assert [found.alert for found in listed(ledger, limit=1)] == [later]
        assert [found.alert for found in listed(ledger, feed="orders")] == [later, LATE]


def test_who_acknowledges_first_is_recorded(ledger: Connection) -> None:
    with ledger:
        raise_alert(ledger, LATE)
        (raised,) = listed(ledger, open_only=True)
        assert raised.is_open
        seen = acknowledge(ledger, raised.alert_id, by="ann", note="the sender knows")
        assert seen == acknowledge(ledger, raised.alert_id, by="bob")
        assert (seen.acknowledged_by, seen.acknowledgement_note) == ("ann", "the sender knows")
        assert seen.acknowledged_at is not None
        assert not seen.is_open
        assert listed(ledger, open_only=True) == []
        assert listed(ledger) == [seen]


def test_an_alert_whose_cause_is_gone_is_not_open(ledger: Connection) -> None:
    with ledger:
        raise_alert(ledger, LATE)
        resolve(ledger, LATE.deduplication_key)
        resolve(ledger, "never raised")
        (found,) = listed(ledger)
        assert found.resolved_at is not None
        assert not found.is_open
        assert listed(ledger, open_only=True) == []


def test_information_needs_nobody(ledger: Connection) -> None:
    with ledger:
        raise_alert(ledger, replace(LATE, severity="info"))
        assert listed(ledger, open_only=True) == []
        assert not listed(ledger)[0].is_open


def test_an_alert_that_is_not_there(ledger: Connection) -> None:
    with ledger:
        with pytest.raises(AlertError, match=r"no alert 7; `batch-pipelines alerts` lists them"):
            find(ledger, 7)
        with pytest.raises(AlertError, match="no alert 7"):
            acknowledge(ledger, 7, by="ann")
