"""Evaluating a sensor, and the landing sensor of the feed `orders`, in a test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

if TYPE_CHECKING:
    from tests.support_shop import Shop


def evaluated(
    shop: Shop, sensor: str, cursor: str | None = None
) -> dg.SensorResult | dg.SkipReason:
    """Evaluate a sensor; `tests/browser` has the daemon do it."""
    defs = shop.defs
    with dg.build_sensor_context(
        instance=shop.instance, cursor=cursor, resources=dict(defs.resources or {})
    ) as context:
        found = defs.resolve_sensor_def(sensor)(context)
    assert isinstance(found, dg.SensorResult | dg.SkipReason)
    return found


def tick(shop: Shop, cursor: str | None = None) -> dg.SensorResult | dg.SkipReason:
    """Evaluate the landing sensor."""
    return evaluated(shop, "landing_orders", cursor)


def launched(shop: Shop, cursor: str | None = None) -> dg.SensorResult:
    found = tick(shop, cursor)
    assert isinstance(found, dg.SensorResult), found
    return found


def requested(found: dg.SensorResult) -> list[str]:
    return sorted(str(request.partition_key) for request in found.run_requests or ())
