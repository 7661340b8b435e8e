"""What another system has loaded is compared by a job of its own, each batch a partition with checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

from batch_pipelines.definitions import build_defs
from batch_pipelines.engine.feed_files import load_feeds
from resources.batches import batches_resource
from tests.support_loaded import LOADED, open_stock

if TYPE_CHECKING:
    from tests.support_shop import Shop

KEY = dg.AssetKey([LOADED, "reconcile"])


def defs_of(shop: Shop) -> dg.Definitions:
    """The definitions of both feeds."""
    feeds = load_feeds(shop.settings.feeds).values()
    return build_defs(feeds=feeds, load=lambda: shop.settings)


def tick(shop: Shop) -> dg.SensorResult | dg.SkipReason:
    """Let the sensor look once."""
    defs = defs_of(shop)
    with dg.build_sensor_context(
        instance=shop.instance,
        repository_def=defs.get_repository_def(),
        resources={"batches": batches_resource(lambda: shop.settings)},
    ) as context:
        found = defs.resolve_sensor_def(f"reconcile_{LOADED}")(context)
    assert isinstance(found, dg.SensorResult | dg.SkipReason)
    return found


def run(shop: Shop, key: str | None, *, force: bool = False) -> dg.ExecuteInProcessResult:
    """Run the feed's job."""
    if key is not None:
        shop.instance.add_dynamic_partitions(LOADED, [key])
    return (
        defs_of(shop)
        .resolve_job_def(LOADED)
        .execute_in_process(
            instance=shop.instance,
            partition_key=key,
            run_config={
                "ops": {f"{LOADED}__reconcile": {"config": {"force": force}}},
                "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
            },
            raise_on_error=False,
        )
    )


def checks(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    """How each check ended."""
    found = result.get_asset_check_evaluations()
    return {each.check_name.removeprefix("public_stock__"): each.passed for each in found}


def test_each_batch_is_a_partition_with_its_checks(shop: Shop) -> None:
    open_stock(shop, "a", "b", "not a key")
    assert LOADED + "_replay" not in {job.name for job in defs_of(shop).resolve_all_job_defs()}
    found = tick(shop)
    assert isinstance(found, dg.SensorResult)
    assert [each.partition_key for each in found.run_requests or ()] == ["a", "b"]

    shop.query("UPDATE public.stock SET name = 'SECRET' WHERE id = 103")
    good, bad = run(shop, "a"), run(shop, "b")
    assert good.success
    assert set(checks(good).values()) == {True}
    assert not bad.success
    assert checks(bad) == {
        "record_count": True, "schema": True, "key_uniqueness": True, "aggregates": False, "rows": False,
    }  # fmt: skip
    (rows,) = (c for c in bad.get_asset_check_evaluations() if c.check_name.endswith("__rows"))
    shown = rows.metadata["rows that differ"]
    assert isinstance(shown, dg.TableMetadataValue)
    (row,) = shown.records
    assert (row.data["key"], row.data["columns"]) == ("id=103", "name")
    assert "SECRET" not in str(bad.get_asset_check_evaluations())
    logged = shop.query("SELECT status, run_id::text FROM batch_audit.validation_log ORDER BY id")
    assert logged == [("SUCCESS", good.run_id), ("FAILED", bad.run_id)]
    # Again: what is known. It is no success because it was asked for twice.
    assert not run(shop, "b").success
    shop.query("UPDATE public.stock SET name = 'item 103' WHERE id = 103")
    assert run(shop, "b", force=True).success
    assert isinstance(tick(shop), dg.SkipReason)


def test_all_that_is_new_in_one_run(shop: Shop) -> None:
    open_stock(shop, "a", "b", more="validate: together\n")
    found = tick(shop)
    assert isinstance(found, dg.SensorResult)
    (request,) = found.run_requests or ()
    assert request.partition_key is None
    done = run(shop, None)
    assert done.success
    assert set(checks(done).values()) == {True}
    assert shop.query("SELECT batch_load_id FROM batch_audit.reconciled_batch ORDER BY 1") == [
        ("a",), ("b",),
    ]  # fmt: skip
    assert isinstance(tick(shop), dg.SkipReason)
    assert run(shop, None).success
