"""The landing sensor on a real instance, with real run records."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING

from batch_pipelines import launching
from tests.support_sensors import begun, cancelled, launched, requested, skipped
from tests.support_shop import DAY, FEED, orders

if TYPE_CHECKING:
    import pytest

    from tests.support_shop import Shop

NOTHING = "Nothing new in landing/orders/{batch}/*.csv."


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

    begun(shop, first)
    assert skipped(shop) == (
        f"{NOTHING} 2 are to be looked at when the runs of their partitions have ended (a: a run of its "
        "partition has not ended; b: a run of its partition has not ended)."
    )


def test_a_run_that_was_cancelled_is_not_asked_for_again(shop: Shop) -> None:
    """Given a run that has not reached the ledger, the sensor says so; a correction is launched."""
    shop.deliver("a", orders(1))
    cancelled(shop, begun(shop, launched(shop)))
    shop.deliver("b", orders(1, first=2))
    assert requested(launched(shop)) == ["b"]
    shutil.rmtree(shop.folder / "landing" / FEED / "b")
    assert skipped(shop) == (
        f"{NOTHING} 1 were asked for, but their runs ended before they reached the ledger. See why "
        "among the runs of orders, then: batch-pipelines import orders"
    )
    shop.deliver("a", orders(2))
    assert requested(launched(shop)) == ["a"]


def test_a_corrected_delivery_is_launched_again_under_another_run_key(shop: Shop) -> None:
    shop.deliver(DAY, orders(2))
    first = launched(shop)
    runs = begun(shop, first)
    shop.deliver(DAY, orders(3))
    assert "1 are to be looked at when" in skipped(shop)
    cancelled(shop, runs)
    second = launched(shop)
    assert requested(first) == requested(second) == [DAY]
    keys = {run.run_key for found in (first, second) for run in found.run_requests or ()}
    assert len(keys) == 2
    # A key that is there already is not asked for again.
    assert all(not each.partition_keys for each in second.dynamic_partitions_requests or ())


def test_what_the_command_line_has_loaded_is_not_launched(shop: Shop) -> None:
    shop.deliver(DAY, orders(2))
    assert shop.run(DAY).success
    assert skipped(shop) == NOTHING
    # Nor after a load that was refused: the file is the same.
    shop.deliver(DAY, "id,customer,placed,amount\n1,1,2024-05-01,nothing\n")
    assert not shop.run(DAY).success
    assert skipped(shop) == NOTHING


def test_what_was_rolled_back_or_loaded_less_of_is_not_launched(shop: Shop) -> None:
    """Given landing that is cleared file by file, no table loses rows by it."""
    path = shop.deliver(DAY, orders(2))
    more = path.with_name("more.csv")
    more.write_text(orders(2, first=3))
    assert shop.run(DAY).success
    more.unlink()
    assert skipped(shop) == (
        f"{NOTHING} 1 are less than was loaded. To load them so: batch-pipelines import orders --batch "
        f"KEY ({DAY}: more.csv has left landing)."
    )
    path.write_text(orders(1))
    assert requested(launched(shop)) == [DAY]
    shutil.rmtree(path.parent)
    assert skipped(shop) == NOTHING


def test_a_delivery_still_being_written_waits(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    feed = shop.settings.feeds / "orders.yaml"
    feed.write_text(feed.read_text().replace("settle_seconds: 0", "settle_seconds: 60"))
    shop.deliver(DAY, orders(2))
    assert "1 are not complete (2024-05-01: it has not been unchanged for 60 seconds)" in skipped(
        shop
    )
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 61)
    assert requested(launched(shop)) == [DAY]


def test_a_delivery_without_its_marker_waits(shop: Shop) -> None:
    feed = shop.settings.feeds / "orders.yaml"
    feed.write_text(feed.read_text().replace("settle_seconds: 0", "complete: {marker: _SUCCESS}"))
    path = shop.deliver(DAY, orders(2))
    assert "2024-05-01: its marker _SUCCESS is not there" in skipped(shop)
    path.with_name("_SUCCESS").touch()
    assert requested(launched(shop)) == [DAY]


def test_no_more_runs_than_so_many_are_in_the_queue(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given more deliveries than that, each is launched once, the oldest first, as the others end."""
    monkeypatch.setattr(launching, "_MOST_RUNS", 2)
    for number in range(5):
        shop.deliver(f"k{4 - number}", orders(1, first=number + 1))
        time.sleep(0.01)
    seen: list[str] = []
    for _ in range(3):
        found = launched(shop)
        assert len(str(found.cursor)) < 100
        seen += requested(found)
        runs = begun(shop, found)
        assert "are complete" not in skipped(shop) or len(runs) == 2
        cancelled(shop, runs)
    assert seen == ["k3", "k4", "k1", "k2", "k0"]


def test_a_folder_whose_name_is_no_partition_key_is_told(shop: Shop) -> None:
    for key in ("_draft", ".tmp", "a b", "ü", "x" * 101, "a,b", "a..b"):
        shop.deliver(key, orders(1))
    why = skipped(shop)
    assert f"5 cannot be partition keys ('a b', 'a,b', 'a..b', '{'x' * 101}', '\\xfc')" in why
    assert "Rename them." in why
    shop.deliver("good", orders(1))
    assert requested(launched(shop)) == ["good"]


def test_landing_that_is_not_there_is_told_and_looked_for_again(shop: Shop) -> None:
    assert "/landing/orders'. Make it, or correct `source.path`." in skipped(shop)
    shop.deliver(DAY, orders(1))
    assert requested(launched(shop)) == [DAY]
