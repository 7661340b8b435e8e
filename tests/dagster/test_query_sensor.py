"""The landing sensor of a feed whose source is a query: new and changed partitions are launched once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from batch_pipelines.engine.errors import SettingsError
from tests.support_query import VARIABLE, old_shop, read_from_query
from tests.support_sensors import begun, cancelled, launched, requested, skipped, tick

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


def test_a_sensor_that_cannot_ask_says_so(
    shop: Shop, legacy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE)
    # The definitions are made all the same: the other feeds must go on.
    assert shop.defs.resolve_sensor_def("landing_orders").description is not None
    with pytest.raises(SettingsError, match="LEGACY_URL is not set"):
        tick(shop)
