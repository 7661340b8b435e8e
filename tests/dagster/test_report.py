"""A run leaves the report of its batch where people find it, whatever became of the batch."""

from __future__ import annotations

import os
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

    # And the feed's, whose page is written anew by a later batch once it is a minute old.
    assert (
        metadata_of(result, "archive")["feed_report"]
        == "https://reports.example/x/feeds/orders.html"
    )
    page = shop.settings.home / "reports" / "feeds" / "orders.html"
    assert "The one batch that has ended succeeded." in page.read_text(encoding="utf-8")
    page.write_text("young")
    shop.deliver("2024-05-02", orders(5, first=10))
    shop.run("2024-05-02")
    assert page.read_text(encoding="utf-8") == "young"
    os.utime(page, (0, 0))
    shop.deliver("2024-05-03", orders(5, first=20))
    shop.run("2024-05-03")
    assert "All 3 batches that have ended succeeded." in page.read_text(encoding="utf-8")


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
