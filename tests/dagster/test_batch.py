"""One delivery through Dagster: whose id stands where, and what people see of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

from batch_pipelines.engine.ledger.stages import STAGES
from tests.support_shop import (
    DAY,
    FEED,
    metadata_of,
    open_shop,
    orders,
    stage_key,
    stages_run,
)

if TYPE_CHECKING:
    from tests.support_shop import Shop


def test_the_run_id_is_the_batch_id_of_every_row(shop: Shop) -> None:
    shop.deliver(DAY, orders(5))
    result = shop.run(DAY, tags={"batch-pipelines/requested_by": "Ada"})
    assert result.success
    assert stages_run(result) == [*STAGES]
    assert len(shop.rows()) == 5
    assert shop.stamps() == {result.run_id}
    (batch,) = shop.batches()
    assert (batch.batch_id, batch.name, batch.status) == (
        result.run_id, f"{FEED}/{DAY}", "SUCCESS",
    )  # fmt: skip
    assert (batch.requested_by, batch.correlation_id) == ("Ada", result.run_id)
    assert shop.runs(batch.batch_id) == [result.run_id]


def test_each_stage_shows_what_it_did(shop: Shop) -> None:
    shop.deliver(DAY, orders(5), sidecar=True)
    result = shop.run(DAY)
    seen = {stage: metadata_of(result, stage) for stage in STAGES}
    for stage in STAGES:
        assert seen[stage]["batch_id"] == result.run_id
        assert seen[stage]["outcome"] == "done"
        assert shop.materialized(stage) == {DAY}

    (ingested,) = seen["ingest"]["files"].records
    (checked,) = seen["checksum"]["files"].records
    assert ingested.data["table"] == "public.orders"
    assert ingested.data["crc32c"] == ingested.data["promised"] == checked.data["crc32c"]
    assert checked.data["promised by"] == "sidecar"
    assert seen["checksum"]["records"] == checked.data["records"] == 5
    assert seen["checksum"]["throughput_mbps"] >= 0

    written = seen["bulk_write"]
    assert written["dagster/partition_row_count"] == 5
    assert written["dagster/table_name"] == "public.orders"
    columns = {column.name: column.type for column in written["dagster/column_schema"].columns}
    assert columns == {
        "id": "integer", "customer": "integer", "placed": "date", "amount": "numeric(10,2)",
        "note": "text",
    }  # fmt: skip
    (balance,) = written["balance"].records
    assert (balance.data["records"], balance.data["inserted"]) == (5, 5)
    assert written["rows_per_second"] > 0

    checks = {each.data["check"]: each.data for each in seen["validate"]["checks"].records}
    assert checks["record_count"]["expected"] == checks["record_count"]["actual"] == "5"
    assert {each["status"] for each in checks.values()} == {"SUCCESS"}
    assert seen["archive"]["bag"].endswith(f"{FEED}/{DAY}/{result.run_id}")


def test_how_columns_have_changed_stands_on_the_materialization(shop: Shop) -> None:
    shop.deliver("a", orders(2))
    first = metadata_of(shop.run("a"), "bulk_write")
    assert first["feed_signature"] == (
        "public.orders: columns of a first delivery; loaded as version 1"
    )
    assert "signature_changes" not in first

    shop.deliver("b", f"id,customer,placed,amount\n7,1,{DAY},5\n")
    second = metadata_of(shop.run("b"), "bulk_write")
    assert second["feed_signature"] == (
        "public.orders: columns against version 1: compatible; loaded as version 2"
    )
    (change,) = second["signature_changes"].records
    assert change.data == {
        "table": "public.orders", "column": "note", "change": "missing",
        "before": "text -> text", "now": None, "verdict": "compatible", "policy": "evolve",
    }  # fmt: skip


def test_what_validation_found_is_recorded_as_asset_checks(shop: Shop) -> None:
    shop.deliver(DAY, orders(5))
    result = shop.run(DAY)
    found = {each.check_name: each for each in result.get_asset_check_evaluations()}
    assert found.pop("no_records_set_aside").passed
    assert len(found) == 5
    assert all(each.passed for each in found.values())
    for name in found:
        key = dg.AssetCheckKey(stage_key("validate"), name)
        record = shop.instance.event_log_storage.get_latest_asset_check_execution_by_key([key])
        assert record[key].run_id == result.run_id
    counted = found["public_orders__record_count"].metadata
    assert counted["partition"].value == DAY
    (row,) = counted["results"].value.records  # type: ignore[union-attr]
    assert (row.data["expected"], row.data["actual"]) == ("5", "5")
    assert f"'{result.run_id}'" in str(counted["sql"].value)
    covered = found["public_orders__coverage"].metadata
    assert "sql" not in covered
    for stage, unit in (("checksum", "MB/s"), ("validate", "records/s")):
        shown = str(metadata_of(result, stage)["throughput"])
        assert shown.startswith(f"![Throughput, {unit}](data:image/svg+xml;base64,")
        assert f"| seconds | {unit} |" in shown
        assert result.run_id[:8] in shown


def test_rows_that_people_are_told_of_at_once_are_counted(shop: Shop) -> None:
    path = shop.folder / "feeds" / "orders.yaml"
    asked = "    critical_when: [{name: large, range: {column: amount, min: 4.00}}]\n"
    text = path.read_text().replace("public.orders\n", f"public.orders\n{asked}")
    path.write_text(text)
    shop.deliver(DAY, orders(5))
    written = metadata_of(shop.run(DAY), "bulk_write")
    (found,) = written["critical"].records
    assert written["critical_records"] == found.data["records"] == 3
    assert (found.data["condition"], found.data["told before"]) == ("large", 0)
    assert found.data["raised after (s)"] > 0
    assert found.data["sent after (s)"] is None


def test_what_was_set_aside_is_a_warning_with_its_reasons(shop: Shop) -> None:
    """Given two bad records of seven, the stages are green, and a check of `bulk_write` warns."""
    bad = f"100,1,{DAY},1.00,x,\n101,77,{DAY},-1.00,x\n"
    shop.deliver(DAY, orders(5) + bad)
    result = shop.run(DAY)
    assert result.success
    written = metadata_of(result, "bulk_write")
    assert written["dagster/partition_row_count"] == 5
    assert written["rejected_rows"] == 2
    (balance,) = written["balance"].records
    assert (balance.data["inserted"], balance.data["rejected"]) == (5, 2)
    reasons = {row.data["sqlstate"]: row.data for row in written["reject_reasons"].records}
    assert {*reasons} == {"22P04", "23514"}
    assert reasons["23514"] == {
        "table": "public.orders", "column": None, "sqlstate": "23514",
        "constraint": "orders_amount_check", "message": "breaks orders_amount_check", "records": 1,
    }  # fmt: skip
    assert "77" not in str(written["reject_reasons"])

    found = {each.check_name: each for each in result.get_asset_check_evaluations()}
    warning = found.pop("no_records_set_aside")
    assert (warning.passed, warning.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert warning.asset_key == stage_key("bulk_write")
    assert warning.metadata["partition"].value == DAY
    assert len(found) == 5
    assert all(each.passed for each in found.values())
    assert metadata_of(result, "validate")["batch_status"] == "PARTIAL_SUCCESS"

    # The same again reports what is known of its original.
    again = {each.check_name: each for each in shop.run(DAY).get_asset_check_evaluations()}
    assert not again["no_records_set_aside"].passed


def test_the_sql_of_a_check_can_be_run_by_hand(shop: Shop) -> None:
    shop.deliver(DAY, orders(5))
    result = shop.run(DAY)
    (evaluation,) = (
        each
        for each in result.get_asset_check_evaluations()
        if each.check_name == "public_orders__record_count"
    )
    sql = str(evaluation.metadata["sql"].value).removeprefix("```sql\n").removesuffix("\n```")
    assert shop.query(sql) == [(5,)]


def test_a_feed_of_several_tables_shows_which_column_is_whose(shop: Shop) -> None:
    (shop.settings.feeds / "orders.yaml").write_text(
        "feed: orders\nsource: {path: 'landing/orders/{batch}/*.csv'}\ntables:\n"
        "- {table: public.orders, files: orders.csv}\n- {table: public.returns, files: returns.csv}"
    )
    shop.query("CREATE TABLE public.returns (id integer PRIMARY KEY, import_batch_id uuid)")
    path = shop.deliver(DAY, orders(2))
    path.with_name("returns.csv").write_text("id\n7\n")
    result = shop.run(DAY)
    assert result.success
    written = metadata_of(result, "bulk_write")
    assert written["dagster/partition_row_count"] == 3
    names = [column.name for column in written["dagster/column_schema"].columns]
    assert {"public.orders.id", "public.returns.id"} <= {*names}
    assert len(names) == len({*names})


def test_two_feeds_keep_their_partitions_apart(shop: Shop) -> None:
    other = shop.folder / "other"
    open_shop(other)
    text = (other / "feeds" / "orders.yaml").read_text().replace("feed: orders", "feed: refunds")
    (shop.settings.feeds / "refunds.yaml").write_text(text)
    shop.deliver(DAY, orders(1))
    assert shop.run(DAY).success
    assert shop.instance.get_dynamic_partitions(FEED) == [DAY]
    assert shop.instance.get_dynamic_partitions("refunds") == []
