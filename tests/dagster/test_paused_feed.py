"""Nothing new of a paused feed is begun, by whatever way; once it is resumed nothing is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batch_pipelines.engine.ledger import pauses
from tests.support_sensors import begun, cancelled, launched, requested, skipped
from tests.support_shop import DAY, FEED, orders

if TYPE_CHECKING:
    from tests.support_shop import Shop


def pause(shop: Shop) -> None:
    with shop.database.connect("test") as connection:
        assert pauses.pause(connection, FEED, by="ann", reason="the sender repeats itself")


def resume(shop: Shop) -> None:
    with shop.database.connect("test") as connection:
        assert pauses.resume(connection, FEED, by="ann")


def test_the_sensor_skips_and_says_why(shop: Shop) -> None:
    shop.deliver(DAY, orders(3))
    pause(shop)
    why = skipped(shop)
    assert "by ann: the sender repeats itself" in why
    assert "batch-pipelines feeds resume orders" in why
    resume(shop)
    assert requested(launched(shop)) == [DAY]


def test_a_run_that_was_asked_for_before_is_refused_and_asked_for_again(shop: Shop) -> None:
    shop.deliver(DAY, orders(3))
    first = launched(shop)
    pause(shop)
    run = shop.run(DAY)
    assert not run.success
    (failure,) = [event for event in run.all_events if event.is_step_failure]
    assert "Feed orders is paused" in str(failure.step_failure_data.error)
    assert shop.batches() == []
    resume(shop)
    again = launched(shop)
    assert requested(again) == [DAY]
    # Dagster remembers run keys for ever.
    keys = [request.run_key for found in (first, again) for request in found.run_requests or ()]
    assert len(set(keys)) == 2
    cancelled(shop, begun(shop, again))
    assert "1 were asked for" in skipped(shop)
    assert shop.run(DAY).success


def test_a_batch_at_work_goes_on_to_its_end(shop: Shop) -> None:
    shop.deliver(DAY, orders(3))
    assert shop.run(DAY, "ingest", "checksum").success
    pause(shop)
    assert shop.run(DAY, "bulk_write", "validate", "archive").success
    assert len(shop.rows()) == 3
