"""Thresholds over the ledger: each change is written down and told once, and a breach does its work."""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass, field
from threading import Barrier, Thread
from typing import TYPE_CHECKING, Any

import pytest

from batch_pipelines.engine.alerts import Alert, listed, raise_alert
from batch_pipelines.engine.feed_parts.monitor import Counts, Monitor, Shares
from batch_pipelines.engine.ledger import batches, pauses, thresholds
from batch_pipelines.engine.monitoring import watch, watch_all
from batch_pipelines.engine.monitoring.facts import ALL_FEEDS
from batch_pipelines.engine.monitoring.overall import DEFAULT
from tests.support_engine import feed_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batch_pipelines.engine.monitoring import Change
    from batch_pipelines.engine.postgres.database import Connection, Database

_ENDED = """
UPDATE batch_audit.import_history
SET status = %(status)s, completed_at = clock_timestamp(), source_records = 100,
    rejected_records = %(rejected)s, error_details = %(error)s
WHERE batch_id = %(batch_id)s
"""
_INVALID = """
INSERT INTO batch_audit.crc32_audit (batch_id, entity_type, entity_id, computed_crc32, expected_crc32,
    expected_source, status, bytes_processed, processing_time_ms, hardware_utilized)
VALUES (%s, 'file', %s, 1, 2, 'manifest', 'invalid', 1, 1, true)
"""
FEED = feed_of({"public.t": "*"})


@dataclass
class Ledger:
    """A ledger in which batches end as a test wants."""

    connection: Connection
    keys: Iterator[int] = field(default_factory=lambda: iter(range(10**6)))

    def end(self, *statuses: str, feed: str = "orders", rejected: int = 0, invalid: int = 0) -> str:
        """Let batches end, one after the other; gives the id of the last."""
        batch_id = ""
        for status in statuses:
            batch_id, of = str(uuid.uuid4()), feed_of({"public.t": "*"}, feed=feed)
            key = str(next(self.keys))
            batches.start(
                self.connection, of, key, batch_id, requested_by="x", correlation_id=batch_id
            )
            error = f"{key} is bad" if status in {"FAILED", "VALIDATION_FAILED"} else None
            ended = {
                "status": status, "batch_id": batch_id, "rejected": rejected, "error": error
            }  # fmt: skip
            self.connection.execute(_ENDED, ended)
            for number in range(invalid):
                self.connection.execute(_INVALID, (batch_id, f"file-{number}"))
        return batch_id

    def watch(self, scope: str = "orders", **monitor: object) -> list[Change]:
        """Look once."""
        return watch(self.connection, scope, Monitor.model_validate(monitor), now())

    def told(self, kind: str = "threshold") -> list[str]:
        """Subjects of the alerts of a kind, oldest first."""
        return [a.alert.subject for a in listed(self.connection)[::-1] if a.alert.kind == kind]


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


@pytest.fixture
def ledger(database18: Database) -> Iterator[Ledger]:
    with database18.connect("test") as connection:
        yield Ledger(connection)


def test_a_feed_that_says_nothing_is_watched_for_failures(ledger: Ledger) -> None:
    ledger.end("SUCCESS", "FAILED")
    assert ledger.watch() == []
    assert ledger.told("batch_failed") == ["orders/1 is FAILED"]
    last = ledger.end("FAILED")
    (warned,) = ledger.watch()
    assert (warned.before, warned.now.state, warned.expected, warned.actual) == (
        "ok", "warn", "warn at 2, breach at 3", "2"
    )  # fmt: skip
    assert warned.batch is not None
    assert warned.batch.batch_id == last
    assert ledger.watch() == []
    ledger.end("FAILED")
    (breached,) = ledger.watch()
    assert (breached.before, breached.now.state) == ("warn", "breach")
    for _ in range(3):
        ledger.end("FAILED")
        assert ledger.watch() == []
    ledger.end("PARTIAL_SUCCESS")
    (well,) = ledger.watch()
    assert (well.before, well.now.state) == ("breach", "ok")
    assert ledger.told() == [
        "orders: failed batches in a row: ok -> warn, 2",
        "orders: failed batches in a row: warn -> breach, 3",
        "orders: failed batches in a row: breach -> ok, 0",
    ]
    found = [a for a in listed(ledger.connection)[::-1] if a.alert.kind == "threshold"]
    assert [a.alert.severity for a in found] == ["warning", "critical", "info"]
    # What it was before needs nobody any more.
    assert [a.is_open for a in found] == [False, False, False]


def test_an_alert_says_what_was_expected_and_found_and_what_to_type(ledger: Ledger) -> None:
    batch_id = ledger.end("FAILED", "FAILED")
    ledger.watch(channels="operations", escalate_after="30m", escalate_to=["on_call"])
    (alert,) = [a.alert for a in listed(ledger.connection) if a.alert.kind == "threshold"]
    assert alert.details == {
        "measure": "failed batches in a row", "expected": "warn at 2, breach at 3", "actual": "2",
        "over": "20 batches", "newest batch": "orders/1", "why it failed": "1 is bad",
        "next": f"batch-pipelines show {batch_id[:8]}",
    }  # fmt: skip
    assert (alert.feed, alert.batch_id, alert.channels) == ("orders", batch_id, ("operations",))
    assert (alert.escalate_after, alert.escalate_to) == (dt.timedelta(minutes=30), ("on_call",))


def test_each_failed_batch_is_told_until_a_breach_tells_of_all(ledger: Ledger) -> None:
    ledger.end("FAILED")
    ledger.watch()
    ledger.end("VALIDATION_FAILED", "FAILED", "FAILED")
    ledger.watch()
    found = [a for a in listed(ledger.connection)[::-1] if a.alert.kind == "batch_failed"]
    assert [a.alert.subject for a in found] == [
        "orders/0 is FAILED", "orders/1 is VALIDATION_FAILED", "orders/2 is FAILED",
        "orders/3 is FAILED",
    ]  # fmt: skip
    assert [a.alert.severity for a in found] == ["warning", "critical", "warning", "warning"]
    silent = ledger.connection.execute(
        "SELECT routed_at IS NOT NULL FROM batch_audit.alert WHERE kind = 'batch_failed' ORDER BY 1"
    )
    assert silent.fetchall() == [(False,), (True,), (True,), (True,)]


def test_a_feed_may_leave_single_failures_out(ledger: Ledger) -> None:
    ledger.end("FAILED")
    ledger.watch(each_failure=False)
    assert ledger.told("batch_failed") == []


def test_a_failed_batch_is_mended_by_a_good_one_of_its_partition(ledger: Ledger) -> None:
    ledger.end("FAILED", "FAILED")
    ledger.watch()
    later = str(uuid.uuid4())
    batches.start(ledger.connection, FEED, "0", later, requested_by="x", correlation_id=later)
    ledger.connection.execute(
        _ENDED, {"status": "SUCCESS", "batch_id": later, "rejected": 0, "error": None}
    )
    watch_all(ledger.connection, [FEED], DEFAULT, now())
    open_ = [a.alert.subject for a in listed(ledger.connection, open_only=True)]
    assert open_ == ["orders/1 is FAILED"]


@pytest.mark.parametrize("status", ["DUPLICATE", "IN_PROGRESS", "PUBLISHED"])
def test_what_says_nothing_of_how_it_went_does_not_count(ledger: Ledger, status: str) -> None:
    ledger.end("FAILED", "FAILED", status)
    (change,) = ledger.watch()
    assert change.actual == "2"


def test_a_batch_that_its_run_took_back_failed(ledger: Ledger) -> None:
    """People take good batches back, too, and of those nothing is said."""
    by_people, by_run = ledger.end("ROLLED_BACK"), ledger.end("ROLLED_BACK")
    ledger.connection.execute(
        "INSERT INTO batch_audit.validation_log (batch_id, run_id, target_table, status) "
        "VALUES (%s, %s, 'public.t', 'FAILED')", (by_run, by_run)
    )  # fmt: skip
    ledger.watch()
    (alert,) = [a.alert for a in listed(ledger.connection)]
    assert alert.batch_id == by_run
    assert by_people != by_run


def test_the_window_is_a_number_of_batches_or_a_time(ledger: Ledger) -> None:
    ledger.end("SUCCESS", rejected=50)
    ledger.end("SUCCESS", "SUCCESS", rejected=1)
    limit: dict[str, Any] = {"rejected_rows": {"warn": "10%"}}
    assert ledger.watch(over="2 batches", **limit) == []
    (change,) = ledger.watch(over="3 batches", **limit)
    assert change.actual == "17.33%"
    ledger.connection.execute(
        "UPDATE batch_audit.import_history SET completed_at = completed_at - interval '2 hours'"
    )
    (change,) = ledger.watch(over="1h", **limit)
    assert (change.now.state, change.actual) == ("ok", "0%")
    (change,) = ledger.watch(over="3h", **limit)
    assert change.now.state == "warn"


def test_damaged_files_are_counted_once_each(ledger: Ledger) -> None:
    damaged = ledger.end("FAILED", invalid=2)
    ledger.connection.execute(_INVALID, (damaged, "file-1"))
    (change,) = ledger.watch()
    assert (change.now.measure, change.now.state, change.actual) == (
        "invalid_checksums", "warn", "2"
    )  # fmt: skip


def test_late_deliveries_are_those_that_were_told(ledger: Ledger) -> None:
    for number in range(2):
        raise_alert(
            ledger.connection,
            Alert("late_delivery", "warning", "late", f"late_delivery/orders/{number}", "orders"),
        )
    (change,) = ledger.watch(late_deliveries={"warn": 2})
    assert (change.now.measure, change.actual) == ("late_deliveries", "2")


def test_a_breach_pauses_the_feed_and_resuming_begins_anew(ledger: Ledger) -> None:
    ledger.end("FAILED", "FAILED", "FAILED")
    (change,) = ledger.watch(on_breach="pause")
    assert change.actions == ("pause",)
    paused = pauses.pause_of(ledger.connection, "orders")
    assert paused is not None
    assert paused.paused_by == "the sensor thresholds"
    assert paused.reason == "failed batches in a row is 3 (warn at 2, breach at 3)"
    (alert,) = [a.alert for a in listed(ledger.connection) if a.alert.kind == "threshold"]
    assert "batch-pipelines feeds resume orders" in str(alert.details["paused"])

    pauses.resume(ledger.connection, "orders", by="ann")
    (change,) = ledger.watch(on_breach="pause")
    assert (change.before, change.now.state) == ("breach", "ok")
    # What failed before counts no more; and what fails as often again is a breach again.
    ledger.end("FAILED")
    assert ledger.watch(on_breach="pause") == []
    assert pauses.paused(ledger.connection) == {}
    ledger.end("FAILED", "FAILED")
    ledger.watch(on_breach="pause")
    assert pauses.paused(ledger.connection).keys() == {"orders"}


def test_a_breach_asks_for_the_rollback_of_what_is_visible(ledger: Ledger) -> None:
    bad = ledger.end("SUCCESS", rejected=60)
    ledger.end("SUCCESS")
    limit: dict[str, Any] = {
        "rejected_rows": {"breach": "20%"},
        "on_breach": ["pause", "roll_back"],
    }
    (change,) = ledger.watch(**limit)
    assert change.actions == ("pause", "roll_back")
    an_hour_ago = now() - dt.timedelta(hours=1)
    (asked,) = thresholds.to_roll_back(ledger.connection, an_hour_ago)
    assert (asked.batch_id, asked.event_id) == (bad, change.now.event_id)
    assert thresholds.to_roll_back(ledger.connection, now()) == []
    ledger.connection.execute(
        "UPDATE batch_audit.import_history SET status = 'ROLLED_BACK' WHERE batch_id = %s", (bad,)
    )
    assert thresholds.to_roll_back(ledger.connection, an_hour_ago) == []


def test_of_a_failed_batch_there_is_nothing_to_take_back(ledger: Ledger) -> None:
    ledger.end("FAILED", "FAILED", "FAILED")
    (change,) = ledger.watch(on_breach="roll_back")
    assert change.actions == ()
    (alert,) = [a.alert for a in listed(ledger.connection) if a.alert.kind == "threshold"]
    assert alert.details["rollback"] == "there is nothing to take back"


def test_all_feeds_together_are_watched_too(ledger: Ledger) -> None:
    for number in range(5):
        ledger.end("FAILED", feed=f"feed_{number}")
    changes = watch_all(ledger.connection, [FEED], DEFAULT, now())
    assert [(c.scope, c.now.measure, c.now.state) for c in changes] == [
        (ALL_FEEDS, "failed_in_a_row", "warn")
    ]
    assert ledger.told() == ["all feeds together: failed batches in a row: ok -> warn, 5"]


def test_a_measure_that_is_watched_no_more_is_forgotten(ledger: Ledger) -> None:
    ledger.end("SUCCESS", rejected=50)
    ledger.watch(rejected_rows={"warn": "10%"})
    ledger.watch()
    assert thresholds.states(ledger.connection, "orders").keys() == {
        "failed_in_a_row", "invalid_checksums"
    }  # fmt: skip
    (change,) = ledger.watch(rejected_rows={"warn": "10%"})
    assert change.before == "ok"


def test_two_at_once_tell_once(database18: Database, ledger: Ledger) -> None:
    ledger.end("FAILED", "FAILED", "FAILED")
    barrier = Barrier(4)
    found: list[Change] = []

    def go() -> None:
        with database18.connect("test") as connection:
            barrier.wait()
            found.extend(watch(connection, "orders", Monitor(), now()))

    threads = [Thread(target=go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 1
    assert len(ledger.told()) == 1


def test_a_change_that_is_not_committed_is_not_told(ledger: Ledger) -> None:
    ledger.end("FAILED", "FAILED", "FAILED")
    with ledger.connection.transaction(force_rollback=True):
        assert ledger.watch() != []
    assert ledger.told() == []
    assert len(ledger.watch()) == 1


def test_levels_are_checked() -> None:
    assert Monitor.model_validate({"failed_in_a_row": None}).levels.keys() == {"invalid_checksums"}
    wrongs: list[dict[str, Any]] = [
        {"over": "20"}, {"over": "0 batches"}, {"failed_in_a_row": {"warn": 3, "breach": 2}},
        {"failed_in_a_row": {}}, {"rejected_rows": {"warn": 5}}, {"rejected_rows": {"warn": "101%"}},
        {"back": "0%"}, {"escalate_after": "soon"}, {"on_breach": "panic"},
    ]  # fmt: skip
    for wrong in wrongs:
        with pytest.raises(ValueError, match="validation error"):
            Monitor.model_validate(wrong)
    assert Counts(warn=1).levels.breach is None
    assert Shares(breach="2.5%").levels.breach == 2.5
