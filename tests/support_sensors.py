"""Evaluating a sensor, and the landing sensor of the feed `orders`, in a test, on a real instance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.storage.tags import PARTITION_NAME_TAG, RUN_KEY_TAG, SENSOR_NAME_TAG

from tests.support_shop import FEED

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
    return evaluated(shop, f"landing_{FEED}", cursor)


def skipped(shop: Shop) -> str:
    """Evaluate the sensor, which launches nothing; why?"""
    found = tick(shop)
    assert isinstance(found, dg.SkipReason), found
    return str(found.skip_message)


def launched(shop: Shop, cursor: str | None = None) -> dg.SensorResult:
    """Evaluate the sensor, which launches something."""
    found = tick(shop, cursor)
    assert isinstance(found, dg.SensorResult), found
    return found


def requested(found: dg.SensorResult) -> list[str]:
    return sorted(str(request.partition_key) for request in found.run_requests or ())


def begun(shop: Shop, found: dg.SensorResult) -> list[dg.DagsterRun]:
    """Make the runs that a tick asked for, as the daemon does; they wait for their process."""
    job = shop.defs.resolve_job_def(FEED)
    for request in found.dynamic_partitions_requests or ():
        shop.instance.add_dynamic_partitions(FEED, list(request.partition_keys))
    return [
        shop.instance.create_run_for_job(
            job,
            status=dg.DagsterRunStatus.STARTING,
            tags={
                **job.tags,
                **request.tags,
                RUN_KEY_TAG: str(request.run_key),
                SENSOR_NAME_TAG: f"landing_{FEED}",
                PARTITION_NAME_TAG: str(request.partition_key),
            },
        )
        for request in found.run_requests or ()
    ]


def cancelled(shop: Shop, runs: list[dg.DagsterRun]) -> None:
    """End runs before they begin."""
    for run in runs:
        shop.instance.report_run_canceled(run)
