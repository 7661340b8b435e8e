"""The sensor `lineage` tells a catalog, where one is set, and launches nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import dagster as dg
import pydantic

from tests.support_sensors import evaluated

if TYPE_CHECKING:
    from tests.support_shop import Shop


def test_a_tick_says_what_it_did(shop: Shop) -> None:
    found = evaluated(shop, "lineage")
    assert isinstance(found, dg.SkipReason)
    assert found.skip_message == "No catalog is set: BATCH_PIPELINES_OPENLINEAGE_URL."
    url = pydantic.SecretStr("http://127.0.0.1:9")
    told = replace(shop, settings=shop.settings.model_copy(update={"openlineage_url": url}))
    found = evaluated(told, "lineage")
    assert isinstance(found, dg.SkipReason)
    assert found.skip_message == "0 sent."
