"""The nightly job proves a sample of batches again, and shows what it finds at their partitions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagster as dg

from tests.support_shop import DAY, FEED, orders, stage_key

if TYPE_CHECKING:
    from tests.support_shop import Shop


def run(shop: Shop, **config: object) -> dg.ExecuteInProcessResult:
    return shop.defs.resolve_job_def("verify_batches").execute_in_process(
        instance=shop.instance,
        run_config={
            "ops": {"verify": {"config": config}},
            "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
        },
        raise_on_error=False,
    )


def observations(shop: Shop) -> list[tuple[str | None, dict[str, Any]]]:
    """Partition and metadata of each observation of the rows, oldest first."""
    records = shop.instance.fetch_observations(stage_key("bulk_write"), limit=10).records
    found = [record.asset_observation for record in records[::-1]]
    return [
        (each.partition, {name: value.value for name, value in each.metadata.items()})
        for each in found
        if each is not None
    ]


def test_what_is_proven_and_what_is_not_is_seen_at_its_partition(shop: Shop) -> None:
    shop.deliver(DAY, orders(20))
    loaded = shop.run(DAY)
    assert loaded.success

    proven = run(shop)
    assert proven.success
    ((partition, seen),) = observations(shop)
    assert (partition, seen["batch_id"], seen["verified"]) == (DAY, loaded.run_id, "SUCCESS")
    assert seen["tables"].records[0].data["rows"] == 20

    shop.query("UPDATE public.orders SET note = 'SECRET' WHERE id = 3")
    differs = run(shop, batch=f"{FEED}/{DAY}")
    assert not differs.success
    _, (partition, seen) = observations(shop)
    assert (partition, seen["verified"]) == (DAY, "FAILED")
    (row,) = seen["rows that differ"].records
    assert row.data == {
        "row is": "changed", "key": "id=3", "file": "orders.csv", "record": 3, "columns": "note",
    }  # fmt: skip
    assert "SECRET" not in str(seen)
    (failure,) = (event for event in differs.all_events if event.is_step_failure)
    assert f"Rows differ from what was recorded of them in {FEED}/{DAY}" in str(
        failure.step_failure_data.error
    )
    logged = shop.query("SELECT status, run_id::text FROM batch_audit.verification_log ORDER BY id")
    assert logged == [("SUCCESS", proven.run_id), ("FAILED", differs.run_id)]


def test_every_night_a_sample_is_verified(shop: Shop) -> None:
    schedule = shop.defs.resolve_schedule_def("verify_nightly")
    assert schedule.job_name == "verify_batches"
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    tick = schedule.evaluate_tick(dg.build_schedule_context(instance=shop.instance))
    (request,) = tick.run_requests or []
    assert request.tags["batch-pipelines/requested_by"] == "schedule verify_nightly"


def test_a_failed_check_shows_the_rows_that_differ(shop: Shop) -> None:
    shop.deliver(DAY, orders(20))
    published = shop.run(DAY, "ingest", "checksum", "bulk_write")
    assert published.success
    shop.query("UPDATE public.orders SET amount = 1000 WHERE id = 3")
    shop.query("DELETE FROM public.orders WHERE id = 4")
    result = shop.run(DAY, "validate")
    assert not result.success
    found = {each.check_name: each for each in result.get_asset_check_evaluations()}
    shown = {
        name: value.value for name, value in found["public_orders__aggregates"].metadata.items()
    }
    assert (shown["only in the source"], shown["only in the table"], shown["mismatches"]) == (
        1,
        0,
        1,
    )
    rows: Any = shown["rows that differ"]
    assert [record.data["key"] for record in rows.records] == ["id=3", "id=4"]
    assert rows.records[0].data["columns"] == "amount"
    assert "rows that differ" not in found["public_orders__schema"].metadata
