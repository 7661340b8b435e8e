"""The nightly job reads bags again, and shows what it finds at their partitions."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import dagster as dg

from tests.support_shop import DAY, FEED, orders, stage_key

if TYPE_CHECKING:
    from tests.support_shop import Shop


def run(shop: Shop, **config: object) -> dg.ExecuteInProcessResult:
    return shop.defs.resolve_job_def("verify_archive").execute_in_process(
        instance=shop.instance,
        run_config={
            "ops": {"verify_bags": {"config": config}},
            "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
        },
        raise_on_error=False,
    )


def observations(shop: Shop) -> list[tuple[str | None, dict[str, Any]]]:
    """Partition and metadata of each observation of the bags, oldest first."""
    records = shop.instance.fetch_observations(stage_key("archive"), limit=10).records
    found = [record.asset_observation for record in records[::-1]]
    return [
        (each.partition, {name: value.value for name, value in each.metadata.items()})
        for each in found
        if each is not None
    ]


def test_what_is_found_of_a_bag_is_seen_at_its_partition(shop: Shop) -> None:
    shop.deliver(DAY, orders(20))
    assert shop.run(DAY).success
    assert run(shop).success
    (place,) = shop.query("SELECT place FROM batch_audit.archive_manifest")[0]
    ((partition, seen),) = observations(shop)
    assert (partition, seen["bag"], seen["fixity"]) == (DAY, place, "VALID")
    shutil.rmtree(place)
    for config in ({}, {"batch": f"{FEED}/{DAY}"}, {"every": True}):
        gone = run(shop, **config)
        assert not gone.success
        (failure,) = (event for event in gone.all_events if event.is_step_failure)
        assert f"{place} (MISSING)" in str(failure.step_failure_data.error)
    *_, (partition, seen) = observations(shop)
    assert (partition, seen["fixity"], seen["problems"]) == (
        DAY,
        "MISSING",
        "nothing of it is there",
    )
    told = shop.query("SELECT kind, severity, feed FROM batch_audit.alert")
    assert told == [("archive", "critical", FEED)]


def test_every_night_a_sample_of_bags_is_verified(shop: Shop) -> None:
    schedule = shop.defs.resolve_schedule_def("verify_archive_nightly")
    assert schedule.job_name == "verify_archive"
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    tick = schedule.evaluate_tick(dg.build_schedule_context(instance=shop.instance))
    (request,) = tick.run_requests or []
    assert request.tags["batch-pipelines/requested_by"] == "schedule verify_archive_nightly"
