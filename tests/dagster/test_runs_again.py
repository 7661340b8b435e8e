"""Runs that meet a batch of an earlier run: every cell of stage x state that Dagster can cause."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batch_pipelines.engine.ledger.stages import STAGES
from tests.support_shop import DAY, failure_of, metadata_of, orders, stage_key, stages_run

if TYPE_CHECKING:
    from tests.support_shop import Shop

NEW_CUSTOMER = "INSERT INTO public.customers VALUES (9, 'Barbara')"


def test_a_finished_partition_run_again_changes_nothing_and_is_green(shop: Shop) -> None:
    shop.deliver(DAY, orders(5))
    first = shop.run(DAY)
    before = shop.rows()
    second = shop.run(DAY)
    assert second.success
    assert stages_run(second) == [*STAGES]
    assert shop.rows() == before
    assert [batch.status for batch in shop.batches()] == ["SUCCESS", "DUPLICATE"]
    assert shop.batch(second.run_id).duplicate_of == first.run_id
    assert shop.materialized("archive") == {DAY}


def test_a_duplicate_shows_the_batch_it_repeats_and_no_figures_of_its_own(shop: Shop) -> None:
    shop.deliver(DAY, orders(5))
    first = shop.run(DAY)
    second = shop.run(DAY)
    for stage in STAGES:
        seen = metadata_of(second, stage)
        assert seen["duplicate_of"] == first.run_id
        assert seen["outcome"].startswith("nothing to do")
    written = metadata_of(second, "bulk_write")
    # Dagster's catalog takes the row count of the last materialization for the partition's.
    assert written.get("dagster/partition_row_count", 5) == 5
    assert "rows_per_second" not in written
    assert "throughput_mbps" not in metadata_of(second, "checksum")
    assert all(each.passed for each in second.get_asset_check_evaluations())


def test_forced_the_same_delivery_is_loaded_again_in_place_of_itself(shop: Shop) -> None:
    shop.deliver(DAY, orders(5))
    first = shop.run(DAY)
    second = shop.run(DAY, force=True)
    assert second.success
    assert shop.stamps() == {second.run_id}
    assert len(shop.rows()) == 5
    assert metadata_of(second, "bulk_write")["superseded"] == first.run_id


def test_a_corrected_delivery_supersedes_the_earlier_batch(shop: Shop) -> None:
    shop.deliver(DAY, orders(5))
    first = shop.run(DAY)
    shop.deliver(DAY, orders(4, first=3))
    second = shop.run(DAY)
    assert second.success
    assert [row[0] for row in shop.rows()] == [3, 4, 5, 6]
    assert shop.stamps() == {second.run_id}
    earlier = shop.batch(first.run_id)
    assert (earlier.status, earlier.superseded_by) == ("SUPERSEDED", second.run_id)


def test_a_run_that_failed_at_bulk_write_is_resumed_from_its_failure(shop: Shop) -> None:
    shop.deliver(DAY, orders(5, customer=9))
    first = shop.run(DAY)
    stage, message = failure_of(first)
    assert stage == "bulk_write"
    assert "orders.csv, record 1 (line 2), column customer: customer refers" in message
    assert shop.rows() == []
    assert shop.batch(first.run_id).status == "FAILED"
    assert shop.materialized("checksum") == {DAY}
    assert shop.materialized("bulk_write") == set()

    shop.query(NEW_CUSTOMER)
    second = shop.run_again_from_failure(first.run_id)
    assert second.success
    assert second.run_id != first.run_id
    assert stages_run(second) == ["bulk_write", "validate", "archive"]
    (batch,) = shop.batches()
    assert (batch.batch_id, batch.status) == (first.run_id, "SUCCESS")
    assert shop.runs(batch.batch_id) == [first.run_id, second.run_id]
    assert shop.stamps() == {first.run_id}
    assert shop.materialized("archive") == {DAY}


def test_a_failed_run_launched_again_as_a_whole_starts_a_new_batch(shop: Shop) -> None:
    shop.deliver(DAY, orders(5, customer=9))
    first = shop.run(DAY)
    shop.query(NEW_CUSTOMER)
    second = shop.run(DAY)
    assert second.success
    assert [(b.batch_id, b.status) for b in shop.batches()] == [
        (first.run_id, "FAILED"), (second.run_id, "SUCCESS"),
    ]  # fmt: skip
    assert shop.stamps() == {second.run_id}


def test_a_failed_run_is_not_resumed_once_another_batch_is_in_force(shop: Shop) -> None:
    shop.deliver(DAY, orders(5, customer=9))
    first = shop.run(DAY)
    shop.deliver(DAY, orders(3))
    second = shop.run(DAY)
    assert second.success
    before = shop.rows()
    shop.query(NEW_CUSTOMER)
    shop.run_again_from_failure(first.run_id)
    assert shop.rows() == before
    assert shop.stamps() == {second.run_id}


def test_one_stage_alone_of_a_finished_partition_reports(shop: Shop) -> None:
    shop.deliver(DAY, orders(5))
    first = shop.run(DAY)
    before = shop.rows()
    runs = [first.run_id]
    for stage in STAGES[1:]:
        alone = shop.run(DAY, stage)
        assert alone.success
        seen = metadata_of(alone, stage)
        assert (seen["batch_id"], seen["batch_status"]) == (first.run_id, "SUCCESS")
        assert seen["outcome"].startswith("nothing to do")
        runs.append(alone.run_id)
    assert shop.rows() == before
    assert shop.runs(first.run_id) == runs


def test_one_stage_alone_of_a_partition_without_batch_fails_with_the_reason(shop: Shop) -> None:
    shop.deliver(DAY, orders(5))
    for stage in STAGES[1:]:
        where, message = failure_of(shop.run(DAY, stage))
        assert where == stage
        assert f"there is no batch to {stage}; run the whole partition, from ingest" in message
    assert shop.batches() == []


def test_the_stages_can_be_launched_one_by_one(shop: Shop) -> None:
    shop.deliver(DAY, orders(5))
    runs = [shop.run(DAY, stage) for stage in STAGES]
    assert all(run.success for run in runs)
    (batch,) = shop.batches()
    assert (batch.batch_id, batch.status) == (runs[0].run_id, "SUCCESS")
    assert shop.runs(batch.batch_id) == [run.run_id for run in runs]
    assert shop.stamps() == {runs[0].run_id}


def test_archive_alone_refuses_what_is_not_validated(shop: Shop) -> None:
    shop.deliver(DAY, orders(5))
    assert shop.run(DAY, "ingest", "checksum", "bulk_write").success
    (batch,) = shop.batches()
    assert batch.status == "PUBLISHED"
    stage, message = failure_of(shop.run(DAY, "archive"))
    assert stage == "archive"
    assert "only a validated batch is archived; run validate" in message
    assert not shop.is_archived(batch.batch_id)
    assert shop.materialized("archive") == set()


def test_validate_alone_refuses_what_is_not_published(shop: Shop) -> None:
    shop.deliver(DAY, orders(5))
    assert shop.run(DAY, "ingest", "checksum").success
    stage, message = failure_of(shop.run(DAY, "validate"))
    assert stage == "validate"
    assert "its bulk_write is not done; run the whole partition" in message


def test_rows_that_differ_from_their_source_fail_validation_loudly(shop: Shop) -> None:
    shop.deliver(DAY, orders(5))
    first = shop.run(DAY, "ingest", "checksum", "bulk_write")
    shop.query("UPDATE public.orders SET amount = amount + 1 WHERE id = 2")

    second = shop.run(DAY, "validate", "archive")
    assert not second.success
    stage, message = failure_of(second)
    assert stage == "validate"
    assert "public.orders aggregates.amount" in message
    assert stages_run(second) == []
    assert shop.materialized("validate") == shop.materialized("archive") == set()
    assert shop.batch(first.run_id).status == "VALIDATION_FAILED"
    found = {each.check_name: each for each in second.get_asset_check_evaluations()}
    assert found["public_orders__record_count"].passed
    failed = found["public_orders__aggregates"]
    assert not failed.passed
    (row,) = failed.metadata["results"].value.records  # type: ignore[union-attr]
    assert row.data["check"] == "aggregates.amount"
    assert row.data["expected"] != row.data["actual"]

    stage, message = failure_of(shop.run(DAY, "archive"))
    assert "only a validated batch is archived" in message

    shop.query("UPDATE public.orders SET amount = amount - 1 WHERE id = 2")
    mended = shop.run(DAY)
    assert mended.success
    assert shop.batch(mended.run_id).batch_id == first.run_id
    assert shop.batch(first.run_id).status == "SUCCESS"
    assert shop.is_archived(first.run_id)
    assert shop.materialized("archive") == {DAY}


def test_a_damaged_delivery_fails_before_anything_is_written(shop: Shop) -> None:
    path = shop.deliver(DAY, orders(5), sidecar=True)
    path.write_text(orders(5).replace("order 3", "order 4"))
    result = shop.run(DAY)
    stage, message = failure_of(result)
    assert stage == "checksum"
    promised = path.with_name("orders.csv.crc32c").read_text().strip()
    assert "orders.csv" in message
    assert promised in message
    assert shop.rows() == []
    assert shop.batch(result.run_id).status == "FAILED"


def test_a_partition_without_delivery_fails_with_the_path_that_was_looked_for(shop: Shop) -> None:
    stage, message = failure_of(shop.run(DAY))
    assert stage == "ingest"
    assert f"landing/orders/{DAY}/*.csv" in message


def test_a_failing_correction_leaves_the_earlier_batch_in_force(shop: Shop) -> None:
    shop.deliver(DAY, orders(5))
    first = shop.run(DAY)
    before = shop.rows()
    shop.deliver(DAY, orders(5).replace("2024-05-01", "May"))
    stage, message = failure_of(shop.run(DAY))
    assert stage == "bulk_write"
    assert "orders.csv" in message
    assert "placed" in message
    assert shop.rows() == before
    assert shop.batch(first.run_id).status == "SUCCESS"
    # Dagster shows the last run's failure, so that nobody overlooks that the correction is missing.
    assert shop.materialized("archive") == set()
    assert shop.instance.get_materialized_partitions(stage_key("archive")) == {DAY}


def test_a_feed_that_publishes_after_validation_shows_what_waits_and_then_what_is_there(
    shop: Shop,
) -> None:
    feed = shop.settings.feeds / "orders.yaml"
    feed.write_text(feed.read_text() + "publish: after_validation\n")
    shop.deliver(DAY, orders(5))
    first = shop.run(DAY, "ingest", "checksum", "bulk_write")
    assert first.success
    assert shop.rows() == []
    shown = metadata_of(first, "bulk_write")
    assert shown["batch_status"] == "IN_PROGRESS"
    (row,) = shown["waiting"].records
    assert (row.data["table"], row.data["rows"]) == ("public.orders", 5)
    assert row.data["in"].startswith("batch_staging.")
    assert "dagster/partition_row_count" not in shown

    shop.query(f"UPDATE {quoted(row.data['in'])} SET amount = amount + 1 WHERE id = 2")
    second = shop.run(DAY, "validate", "archive")
    assert not second.success
    stage, message = failure_of(second)
    assert stage == "validate"
    assert "Nothing was published" in message
    found = {each.check_name: each for each in second.get_asset_check_evaluations()}
    assert not found["public_orders__aggregates"].passed
    assert shop.materialized("validate") == shop.materialized("archive") == set()
    assert shop.rows() == []
    assert shop.batch(first.run_id).status == "FAILED"

    third = shop.run(DAY)
    assert third.success
    assert metadata_of(third, "validate")["dagster/partition_row_count"] == 5
    assert shop.stamps() == {third.run_id}
    assert shop.materialized("archive") == {DAY}


def quoted(name: str) -> str:
    return ".".join(f'"{part}"' for part in name.split("."))
