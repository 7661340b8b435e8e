"""The landing sensor of a feed whose source is a query: new and changed partitions are launched once."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import psycopg
import pytest

from batch_pipelines.engine.errors import SettingsError
from tests.support_query import VARIABLE, old_shop, read_from_query
from tests.support_sensors import begun, cancelled, launched, requested, skipped, tick
from tests.support_windows import at, waiting, with_windows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support_shop import Shop


@pytest.fixture
def legacy(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The shop reads from the other database; gives its URL."""
    read_from_query(shop.settings.feeds)
    with old_shop(shop.database.url) as url:
        monkeypatch.setenv(VARIABLE, url)
        yield url


def test_partitions_are_launched_when_they_are_new_or_have_changed(shop: Shop, legacy: str) -> None:
    first = launched(shop)
    assert requested(first) == ["2024-01", "2024-02"]
    cancelled(shop, begun(shop, first))
    assert "2 were asked for, but their runs ended before" in skipped(shop)
    assert shop.run("2024-01").success
    # What the ledger has of a batch is what the sensor sees of its partition.
    assert "1 were asked for" in skipped(shop)
    with psycopg.connect(legacy, autocommit=True) as connection:
        connection.execute(
            "UPDATE sales.orders SET amount = 1000, changed = clock_timestamp() WHERE id = 3"
        )
    assert requested(launched(shop)) == ["2024-01"]
    assert shop.run("2024-01").success
    assert [batch.status for batch in shop.batches()] == ["SUPERSEDED", "SUCCESS"]
    assert "1 were asked for" in skipped(shop)


def test_a_query_is_read_for_each_window_when_it_is_over(shop: Shop, legacy: str) -> None:
    """Given months for partitions, without `keys` each is launched; with them, those that it lists."""
    with_windows(shop, "every: month, start: 2024-01-01")
    march, april = (dt.datetime(2024, month, 1, tzinfo=dt.UTC) for month in (3, 4))
    assert [each.partition_key for each in at(shop, march)] == ["2024-02"]
    assert at(shop, april) == []

    feed = shop.settings.feeds / "orders.yaml"
    text = feed.read_text().splitlines(keepends=True)
    feed.write_text("".join(line for line in text if not line.startswith("    keys:")))
    (request,) = at(shop, march)
    assert request.partition_key == "2024-02"
    run = waiting(shop, request)
    assert at(shop, march) == []
    shop.instance.report_run_canceled(run)
    assert shop.run("2024-02").success
    assert [each.partition_key for each in at(shop, april)] == ["2024-03"]
    assert "Nothing new" in skipped(shop)


def test_a_sensor_that_cannot_ask_says_so(
    shop: Shop, legacy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE)
    # The definitions are made all the same: the other feeds must go on.
    assert shop.defs.resolve_sensor_def("landing_orders").description is not None
    with pytest.raises(SettingsError, match="LEGACY_URL is not set"):
        tick(shop)
