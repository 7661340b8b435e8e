"""What the code location holds, and how the instance is set up."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import pytest
from dagster_postgres.storage import DagsterPostgresStorage

from batch_pipelines.definitions import build_defs
from batch_pipelines.engine.errors import FeedError
from batch_pipelines.engine.feed_files import JOBS_OF_ALL, load_feeds
from batch_pipelines.engine.ledger.stages import STAGES
from batch_pipelines.engine.settings import Settings
from tests.support_shop import DAY, FEED, open_shop, stage_key

if TYPE_CHECKING:
    from tests.support_shop import Shop

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture
def defs(tmp_path: Path) -> dg.Definitions:
    open_shop(tmp_path)
    feeds = load_feeds(tmp_path / "feeds").values()
    return build_defs(feeds=feeds, load=Settings)


def test_a_feed_becomes_five_assets_in_the_order_of_the_data(defs: dg.Definitions) -> None:
    graph = defs.resolve_asset_graph()
    assert graph.get_all_asset_keys() - {dg.AssetKey("compliance_report")} == {
        stage_key(stage) for stage in STAGES
    }
    for before, after in zip((None, *STAGES), STAGES, strict=False):
        node = graph.get(stage_key(after))
        assert node.parent_keys == ({stage_key(before)} if before else set())
        assert node.group_name == FEED
        assert [*node.owners] == ["team:shop"]
        assert node.description


def test_a_feed_cannot_take_the_name_of_a_job_of_all_feeds() -> None:
    jobs = build_defs(feeds=[], load=Settings).get_repository_def().get_all_jobs()
    assert {job.name for job in jobs if not job.name.startswith("__")} == JOBS_OF_ALL


def test_the_stages_of_a_feed_share_its_partitions_one_run_each(defs: dg.Definitions) -> None:
    graph = defs.resolve_asset_graph()
    for stage in STAGES:
        node = graph.get(stage_key(stage))
        assert node.partitions_def == dg.DynamicPartitionsDefinition(name=FEED)
        assert node.backfill_policy == dg.BackfillPolicy.multi_run(1)


def test_a_feed_has_a_job_that_runs_all_stages_in_one_process(defs: dg.Definitions) -> None:
    job = defs.resolve_job_def(FEED)
    assert job.executor_def.name == "in_process"
    assert job.asset_layer.executable_asset_keys == {stage_key(stage) for stage in STAGES}
    assert defs.executor is dg.in_process_executor


def test_a_feed_has_a_sensor_that_runs_unasked(defs: dg.Definitions) -> None:
    sensor = defs.resolve_sensor_def("landing_orders")
    assert sensor.job_name == FEED
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING


def test_each_check_of_validation_is_known_before_any_run(defs: dg.Definitions) -> None:
    checks = defs.resolve_asset_graph().get_check_keys_for_assets({stage_key("validate")})
    kinds = ("record_count", "schema", "key_uniqueness", "aggregates", "coverage")
    assert {key.name for key in checks} == {f"public_orders__{kind}" for kind in kinds}


def test_a_resource_can_be_replaced(tmp_path: Path) -> None:
    other = dg.ResourceDefinition.hardcoded_resource("other")
    defs = build_defs(feeds=[], load=Settings, resource_overrides={"batches": other})
    assert defs.resources == {"batches": other}


def test_the_feeds_that_ship_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCH_PIPELINES_FEEDS", str(PROJECT / "feeds"))
    defs = build_defs()
    names = ("departures", "flight_reference", "flights", "inventory", "lab_results", "operations")
    expected = {f"{name}{end}" for name in names for end in ("", "_replay")}
    assert {job.name for job in defs.jobs or ()} == {
        *expected,
        "compliance_report_month",
        "erasure",
        "restore",
        "retention",
        "rollback",
        "rerun_failed",
        "verify_archive",
        "verify_audit",
        "verify_batches",
    }
    dg.Definitions.validate_loadable(defs)


def test_a_wrong_feed_keeps_the_location_from_loading_and_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_shop(tmp_path)
    (tmp_path / "feeds" / "broken.yaml").write_text("feed: broken\nsauce: x\n")
    monkeypatch.setenv("BATCH_PIPELINES_FEEDS", str(tmp_path / "feeds"))
    with pytest.raises(FeedError, match=r"broken\.yaml:2: `sauce` is not known; .*`source`"):
        build_defs()


def test_the_instance_stores_in_postgresql_and_queues_its_runs(shop: Shop) -> None:
    storage = shop.instance.get_ref().storage
    assert isinstance(storage, DagsterPostgresStorage)
    queue = shop.instance.get_concurrency_config().run_queue_config
    assert queue is not None
    assert queue.max_concurrent_runs == shop.settings.runs_at_once
    assert shop.instance.run_monitoring_enabled
    assert not shop.instance.telemetry_enabled
    # The dialog that asks a newcomer for an e-mail address.
    assert not shop.instance.nux_enabled


def test_dagster_keeps_its_tables_in_a_schema_of_its_own(shop: Shop) -> None:
    shop.instance.add_dynamic_partitions(FEED, [DAY])
    assert shop.query("SELECT partition FROM batch_dagster.dynamic_partitions") == [(DAY,)]
    assert shop.query(
        "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class"
        " WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
    ) == [("customers orders",)]
