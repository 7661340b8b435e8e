"""A run leaves the report of its batch where people find it, whatever became of the batch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tests.support_shop import DAY, metadata_of, orders

if TYPE_CHECKING:
    from tests.support_shop import Shop


def test_archive_and_validate_link_to_the_report(shop: Shop) -> None:
    shop.deliver(DAY, orders(5))
    served = {"reports_url": "https://reports.example/x/"}
    shop.settings = shop.settings.model_copy(update=served)
    result = shop.run(DAY)
    for stage in ("validate", "archive"):
        shown = metadata_of(result, stage)
        assert shown["report"] == f"https://reports.example/x/batches/{result.run_id}.html"
        assert shown["verdict"].startswith("All 5 records were loaded.")
    text = Path(shown["report_file"]).read_text(encoding="utf-8")
    assert shown["verdict"] in text
    assert "Nothing." in text  # needs attention: it is archived


def test_a_run_that_fails_leaves_one_too_and_its_log_says_where(shop: Shop) -> None:
    shop.deliver(DAY, "id\nx\n")
    result = shop.run(DAY)
    assert not result.success
    path = shop.settings.home / "reports" / "batches" / f"{result.run_id}.html"
    assert "It failed in " in path.read_text(encoding="utf-8")
    told = [entry.user_message for entry in shop.instance.all_logs(result.run_id)]
    assert f"Report of the batch: {path}" in told


def test_a_report_that_cannot_be_written_fails_no_batch(shop: Shop) -> None:
    (shop.settings.home / "reports").write_text("no folder")
    shop.deliver(DAY, orders(5))
    result = shop.run(DAY)
    assert shop.batch(result.run_id).status == "SUCCESS"
    assert "report_file" not in metadata_of(result, "archive")
