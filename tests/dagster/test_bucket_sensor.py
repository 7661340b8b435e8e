"""The landing sensor over a bucket, on a real instance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batch_pipelines.engine.errors import DeliveryError
from tests.support_s3 import KEY_ID, SECRET, clock_ahead, refusal
from tests.support_sensors import begun, cancelled, launched, requested, skipped, tick
from tests.support_shop import DAY, FEED, failure_of, orders

if TYPE_CHECKING:
    from tests.support_s3 import Store
    from tests.support_shop import Shop


@pytest.fixture
def bucket_shop(shop: Shop, store: Store) -> Shop:
    """The shop whose orders arrive in a bucket."""
    feed = shop.settings.feeds / "orders.yaml"
    feed.write_text(feed.read_text().replace("path: ", f"path: s3://{store.bucket}/"))
    return shop


def deliver(store: Store, key: str, text: str) -> None:
    store.put(f"landing/{FEED}/{key}/orders.csv", text)


def test_new_objects_become_partitions_and_are_launched_once(
    bucket_shop: Shop, store: Store
) -> None:
    for key in ("a", "b", "no key"):
        deliver(store, key, orders(1))
    first = launched(bucket_shop)
    (request,) = first.dynamic_partitions_requests or ()
    assert sorted(request.partition_keys) == requested(first) == ["a", "b"]
    cancelled(bucket_shop, begun(bucket_shop, first))
    assert skipped(bucket_shop).startswith("Nothing new in s3://")
    deliver(store, "a", orders(2))
    assert requested(launched(bucket_shop)) == ["a"]


def test_a_delivery_is_launched_with_its_marker(bucket_shop: Shop, store: Store) -> None:
    feed = bucket_shop.settings.feeds / "orders.yaml"
    feed.write_text(feed.read_text().replace("settle_seconds: 0", "complete: {marker: '*.done'}"))
    for key in ("a", "b"):
        deliver(store, key, orders(1))
    assert "2 are not complete (a: its marker *.done is not there" in skipped(bucket_shop)
    store.put(f"landing/{FEED}/b/orders.done", "")
    assert requested(launched(bucket_shop)) == ["b"]


def test_what_has_been_loaded_is_not_launched(bucket_shop: Shop, store: Store) -> None:
    deliver(store, DAY, orders(2))
    assert bucket_shop.run(DAY).success
    assert len(bucket_shop.rows()) == 2
    assert skipped(bucket_shop).startswith("Nothing new")


def test_an_object_just_put_there_waits(bucket_shop: Shop, store: Store) -> None:
    feed = bucket_shop.settings.feeds / "orders.yaml"
    feed.write_text(feed.read_text().replace("settle_seconds: 0", "settle_seconds: 60"))
    deliver(store, DAY, orders(2))
    assert skipped(bucket_shop).startswith("Nothing new")
    store.meddle = clock_ahead(61)
    assert requested(launched(bucket_shop)) == [DAY]


def test_a_store_that_cannot_be_used_fails_the_tick_and_loses_nothing(
    bucket_shop: Shop, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given deliveries seen, when the store is away for a tick, nothing is launched or forgotten."""
    deliver(store, "a", orders(1))
    begun(bucket_shop, launched(bucket_shop))
    deliver(store, "b", orders(1, first=2))
    store.meddle = lambda _, __: refusal(403, "AccessDenied")
    with pytest.raises(DeliveryError, match="the store denies access"):
        tick(bucket_shop)
    with monkeypatch.context() as away:
        away.setenv("AWS_ENDPOINT_URL", f"http://{KEY_ID}:{SECRET}@127.0.0.1:9")
        away.setenv("AWS_MAX_ATTEMPTS", "1")
        with pytest.raises(DeliveryError, match="the store cannot be reached") as error:
            tick(bucket_shop)
        assert SECRET not in str(error.value)
    assert not bucket_shop.batches()
    store.meddle = lambda _, answer: answer
    assert requested(launched(bucket_shop)) == ["b"]


def test_a_run_whose_store_is_away_fails_with_a_sentence(
    bucket_shop: Shop, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver(store, DAY, orders(2))
    with monkeypatch.context() as away:
        away.setenv("AWS_ENDPOINT_URL", f"http://{KEY_ID}:{SECRET}@127.0.0.1:9")
        away.setenv("AWS_MAX_ATTEMPTS", "1")
        result = bucket_shop.run(DAY)
    stage, message = failure_of(result)
    assert stage == "ingest"
    assert "the store cannot be reached. Check AWS_ENDPOINT_URL and the network" in message
    events = str(bucket_shop.instance.all_logs(result.run_id))
    assert SECRET not in events
    assert KEY_ID not in events
    assert "botocore" not in events
    assert bucket_shop.run(DAY).success
