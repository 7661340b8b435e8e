"""The sensor `alerts` sends what the ledger has to tell, and launches nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import dagster as dg
import pydantic
import pytest

from batch_pipelines.engine.alerts import Alert, raise_alert
from batch_pipelines.engine.errors import SettingsError
from tests.support_channels import PASSWORD, TOKEN, running_service
from tests.support_sensors import evaluated

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support_channels import Service
    from tests.support_shop import Shop

ALERT = Alert("test", "warning", "something is odd", "test/1", "orders")


def with_channels(shop: Shop, text: str) -> Shop:
    settings = shop.settings.model_copy(update={"alerts": pydantic.SecretStr(text)})
    return replace(shop, settings=settings)


@pytest.fixture
def service() -> Iterator[Service]:
    with running_service() as service:
        yield service


def told(shop: Shop) -> str | None:
    found = evaluated(shop, "alerts")
    assert isinstance(found, dg.SkipReason)
    return found.skip_message


def test_a_tick_sends_what_waits(shop: Shop, service: Service) -> None:
    watched = with_channels(shop, service.url)
    assert told(watched) == "0 sent, 0 still to be sent."
    with shop.database.connect("test") as connection:
        raise_alert(connection, ALERT)
    assert told(watched) == "1 sent, 0 still to be sent."
    assert told(watched) == "0 sent, 0 still to be sent."
    assert service.titles == ["[warning] something is odd"]


def test_a_channel_that_fails_fails_no_tick(
    shop: Shop, service: Service, capfd: pytest.CaptureFixture[str]
) -> None:
    service.status = 500
    with shop.database.connect("test") as connection:
        raise_alert(connection, ALERT)
    assert told(with_channels(shop, service.url)) == "0 sent, 1 still to be sent."
    printed = "".join(capfd.readouterr())
    assert "channel default: it answered 500" in printed
    assert PASSWORD not in printed
    assert TOKEN not in printed


def test_without_channels_it_says_so(shop: Shop) -> None:
    assert told(shop) == "No channel is set: BATCH_PIPELINES_ALERTS."
    with pytest.raises(SettingsError, match="BATCH_PIPELINES_ALERTS: word 2 is no channel"):
        told(with_channels(shop, f"json://user:{PASSWORD}@host/ {TOKEN}"))
