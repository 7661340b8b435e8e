"""Each month is a partition of `compliance_report`; a schedule makes it when the month is over."""

from __future__ import annotations

import datetime as dt
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import dagster as dg
import pytest

from batch_pipelines.definitions import build_defs
from batch_pipelines.engine.compliance.scope import month
from batch_pipelines.engine.settings import Settings
from tests.support_shop import DAY, FEED, orders

if TYPE_CHECKING:
    from tests.support_shop import Shop

NAME = "compliance_report"
VIENNA = "Europe/Vienna"


def partitions(defs: dg.Definitions) -> dg.TimeWindowPartitionsDefinition:
    found = defs.resolve_assets_def(NAME).partitions_def
    assert isinstance(found, dg.TimeWindowPartitionsDefinition)
    return found


def run(shop: Shop, key: str, **config: object) -> dg.ExecuteInProcessResult:
    return shop.defs.resolve_job_def(f"{NAME}_month").execute_in_process(
        instance=shop.instance,
        partition_key=key,
        run_config={
            "ops": {NAME: {"config": config}},
            "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
        },
        raise_on_error=False,
    )


def metadata(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    (event,) = result.get_asset_materialization_events()
    found = event.step_materialization_data.materialization.metadata
    return {name: value.value for name, value in found.items()}


@pytest.mark.parametrize("zone", [VIENNA, "UTC", "America/Asuncion", "Pacific/Auckland"])
def test_a_partition_is_the_month_that_the_command_line_means(zone: str) -> None:
    defs = build_defs(feeds=[], load=lambda: Settings(report_timezone=zone, report_start="2016-01"))
    windows = partitions(defs)
    keys = windows.get_partition_keys(current_time=dt.datetime(2018, 1, 15, tzinfo=dt.UTC))
    assert (keys[0], keys[-1], len(keys)) == ("2016-01", "2017-12", 24)
    for key in keys:
        window, span = windows.time_window_for_partition_key(key), month(key, zone)
        assert (window.start.timestamp(), window.end.timestamp()) == (
            span.start.timestamp(), span.end.timestamp()
        )  # fmt: skip


@pytest.mark.parametrize(
    ("at", "key"),
    [("2026-04-01T05:00", "2026-03"), ("2026-11-01T05:00", "2026-10"), ("2026-02-01T05:00", None)],
)
def test_the_schedule_reports_the_month_that_is_over(shop: Shop, at: str, key: str | None) -> None:
    settings = shop.settings.model_copy(
        update={"report_timezone": VIENNA, "report_start": "2026-02"}
    )
    defs = build_defs(feeds=[], load=lambda: settings)
    schedule = defs.resolve_schedule_def(f"{NAME}_monthly")
    assert schedule.execution_timezone == VIENNA
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    context = dg.build_schedule_context(
        instance=shop.instance,
        repository_def=defs.get_repository_def(),
        scheduled_execution_time=dt.datetime.fromisoformat(at).replace(tzinfo=ZoneInfo(VIENNA)),
    )
    requests = schedule.evaluate_tick(context).run_requests or []
    assert [(request.partition_key, request.run_key) for request in requests] == (
        [] if key is None else [(key, key)]
    )


def test_a_month_is_materialized_with_its_key_figures_and_files(shop: Shop) -> None:
    shop.deliver(DAY, orders(20))
    assert shop.run(DAY).success
    shop.query("UPDATE batch_audit.import_history SET started_at = '2026-03-31 23:59:59+00'")
    shop.deliver("bad", "no,header\n")
    assert not shop.run("bad").success
    shop.query(
        "UPDATE batch_audit.import_history SET started_at = '2026-04-01 00:00:00+00' "
        "WHERE status = 'FAILED'"
    )
    result = run(shop, "2026-03")
    assert result.success
    seen = metadata(result)
    assert (seen["summary/batches"], seen["summary/success_rate"]) == (1, 100.0)
    assert (seen["summary/records"], seen["findings/open"], seen["partial"]) == (20, 0, False)
    seen = metadata(run(shop, "2026-04", feed=FEED, types=["summary", "findings"]))
    assert (seen["summary/batches"], seen["summary/success_rate"]) == (1, 0.0)
    assert seen["findings/open"] == 1
    assert "critical/critical_rows" not in seen
    kept = shop.query(
        "SELECT place, sha256, run_id IS NOT NULL, requested_by FROM batch_audit.compliance_report "
        "JOIN batch_audit.compliance_report_file USING (report_id) WHERE format = 'html' "
        "ORDER BY created_at"
    )
    assert [row[2:] for row in kept] == [(True, "unauthenticated")] * 2
    for place, sha256, *_ in kept:
        assert hashlib.sha256(Path(place).read_bytes()).hexdigest() == sha256
    assert seen["html"] == kept[1][0]


def test_a_part_that_fails_is_seen_and_the_others_are_there(shop: Shop) -> None:
    shop.query("ALTER TABLE batch_audit.feed_pause RENAME TO gone")
    result = run(shop, "2026-03")
    assert result.success
    (check,) = result.get_asset_check_evaluations()
    assert not check.passed
    assert "42P01" in str(check.metadata["overrides"].value)
    assert metadata(result)["summary/batches"] == 0


def test_a_feed_that_nobody_has_is_an_empty_report_and_an_unknown_word_a_failure(
    shop: Shop,
) -> None:
    assert metadata(run(shop, "2026-03", feed="gone"))["summary/batches"] == 0
    assert not run(shop, "2026-03", regulation="CLIA").success
    assert not run(shop, "2026-03", types=["everything"]).success
