"""The landing sensor: the pure decision, and the sensor around it on a real instance."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import dagster as dg

from batch_pipelines.engine.landing import Delivery, new_deliveries
from tests.support_sensors import launched, requested, tick
from tests.support_shop import DAY, FEED, orders

if TYPE_CHECKING:
    from tests.support_shop import Shop

NOW = 1_000_000.0


def delivery(fingerprint: str, *, age: float = 100) -> Delivery:
    return Delivery((), (), fingerprint, NOW - age)


def chosen(
    landed: dict[str, Delivery],
    tried: dict[str, str | None] | None = None,
    asked: dict[str, str] | None = None,
) -> dict[str, str]:
    return new_deliveries(landed, tried or {}, asked or {}, now=NOW, settle_seconds=10)


def test_a_delivery_that_nobody_knows_is_new() -> None:
    assert chosen({"a": delivery("1")}) == {"a": "1"}
    assert chosen({}) == {}


def test_a_delivery_that_a_batch_has_tried_is_not_new() -> None:
    assert chosen({"a": delivery("1")}, tried={"a": "1"}) == {}


def test_a_delivery_for_which_a_run_was_asked_is_not_new() -> None:
    # Its run may wait in the queue, or have failed before it knew what was delivered.
    assert chosen({"a": delivery("1")}, asked={"a": "1"}) == {}
    assert chosen({"a": delivery("1")}, tried={"a": None}, asked={"a": "1"}) == {}


def test_a_corrected_delivery_is_new() -> None:
    assert chosen({"a": delivery("2")}, tried={"a": "1"}, asked={"a": "1"}) == {"a": "2"}


def test_what_another_partition_has_loaded_is_new_here() -> None:
    assert chosen({"a": delivery("1")}, tried={"b": "1"}, asked={"c": "1"}) == {"a": "1"}


def test_a_delivery_counts_as_complete_once_it_has_not_changed_for_a_while() -> None:
    assert chosen({"a": delivery("1", age=9.9), "b": delivery("2", age=10)}) == {"b": "2"}


def test_a_delivery_from_the_future_waits() -> None:
    # A sender's clock may go fast; its file is then younger than now.
    assert chosen({"a": delivery("1", age=-3600)}) == {}


def test_new_folders_become_partitions_and_are_launched_once(shop: Shop) -> None:
    shop.deliver("a", orders(1))
    shop.deliver("b", orders(1, first=2))
    first = launched(shop)
    (request,) = first.dynamic_partitions_requests or ()
    assert (request.partitions_def_name, sorted(request.partition_keys)) == (FEED, ["a", "b"])
    assert requested(first) == ["a", "b"]
    for run in first.run_requests or ():
        assert run.tags["batch-pipelines/requested_by"] == "sensor landing_orders"
        assert str(run.run_key).startswith(f"{run.partition_key}:")

    second = tick(shop, first.cursor)
    assert isinstance(second, dg.SkipReason)
    assert second.skip_message == "Nothing new in landing/orders/{batch}/*.csv."


def test_a_corrected_delivery_is_launched_again_under_another_run_key(shop: Shop) -> None:
    shop.deliver(DAY, orders(2))
    first = launched(shop)
    shop.instance.add_dynamic_partitions(FEED, [DAY])
    shop.deliver(DAY, orders(3))
    second = launched(shop, first.cursor)
    assert requested(first) == requested(second) == [DAY]
    keys = {run.run_key for found in (first, second) for run in found.run_requests or ()}
    assert len(keys) == 2
    # A key that is there already is not asked for again.
    assert all(not each.partition_keys for each in second.dynamic_partitions_requests or ())


def test_what_the_command_line_has_loaded_is_not_launched(shop: Shop) -> None:
    shop.deliver(DAY, orders(2))
    assert shop.run(DAY).success
    assert isinstance(tick(shop), dg.SkipReason)
    # Nor after a load that was refused: the file is the same.
    shop.deliver(DAY, "id,customer,placed,amount\n1,1,2024-05-01,nothing\n")
    assert not shop.run(DAY).success
    assert isinstance(tick(shop), dg.SkipReason)


def test_a_delivery_still_being_written_waits(shop: Shop) -> None:
    feed = shop.settings.feeds / "orders.yaml"
    feed.write_text(feed.read_text().replace("settle_seconds: 0", "settle_seconds: 60"))
    path = shop.deliver(DAY, orders(2))
    assert isinstance(tick(shop), dg.SkipReason)
    os.utime(path, (time.time() - 61,) * 2)
    assert requested(launched(shop)) == [DAY]


def test_what_has_left_landing_is_forgotten(shop: Shop) -> None:
    path = shop.deliver("a", orders(1))
    first = launched(shop)
    path.unlink()
    shop.deliver("b", orders(1, first=2))
    second = launched(shop, first.cursor)
    assert requested(second) == ["b"]
    assert '"a"' not in str(second.cursor)


def test_a_folder_whose_name_is_no_partition_key_is_passed_over(shop: Shop) -> None:
    for key in ("_draft", ".tmp", "a b", "ü", "x" * 101, "a,b", "a..b", "good"):
        shop.deliver(key, orders(1))
    assert requested(launched(shop)) == ["good"]
