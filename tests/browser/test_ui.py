"""A partition launched with the mouse and what each stage shows; and README's story."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from batch_pipelines.engine.ledger.stages import STAGES
from tests.browser.conftest import EARLIER
from tests.browser.story import Story
from tests.support_shop import DAY, FEED, deliver, orders

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Page, Response

    from tests.browser.conftest import Dev

LANDED = "2024-05-02"
GRAPH = f"/locations/batch_pipelines/asset-groups/{FEED}/lineage"
SHOWN = {
    "ingest": ["files", "crc32c", "sha256"],
    "checksum": ["records", "promised", "throughput_mbps"],
    "bulk_write": ["dagster/partition_row_count", "public.orders", "row_digests"],
    "validate": ["record_count", "key_uniqueness", "aggregates.amount"],
    "archive": ["bag", "tagmanifest_sha256"],
}

pytestmark = pytest.mark.browser


# Four minutes, most of which it waits for sensors.
@pytest.mark.soak
def test_the_story_of_five_minutes(dev: Dev, page: Page, pictures: Path) -> None:
    story = Story(dev)
    story.drop()
    story.goes_on(page, pictures)


@pytest.mark.long
def test_a_partition_is_launched_with_the_mouse_and_turns_green(
    dev: Dev, page: Page, pictures: Path
) -> None:
    deliver(dev.folder, DAY, orders(5, first=6), sidecar=True)
    dev.register(DAY)
    page.goto(GRAPH)
    for stage in STAGES:
        expect(page.get_by_text(stage, exact=True).first).to_be_visible()
    page.screenshot(path=pictures / "graph.png")
    launch(page, DAY, pictures)
    # Meanwhile a complete delivery is left to the landing sensor and Dagster's daemon.
    deliver(dev.folder, LANDED, orders(5, first=11)).with_name("_SUCCESS").touch()
    run_id = wait_for_success(page, dev, DAY)
    page.screenshot(path=pictures / "runs.png")

    for stage in STAGES:
        page.goto(f"/assets/{FEED}/{stage}?view=partitions&partition={DAY}")
        expect(page.get_by_text("Materialized", exact=True)).to_be_visible()
        expect(page.get_by_text("batch_id", exact=True)).to_be_visible()
        expect(page.get_by_text(run_id).first).to_be_visible()
        for text in SHOWN[stage]:
            expect(page.get_by_text(text, exact=True).first).to_be_visible()
        page.screenshot(path=pictures / f"{stage}.png")

    page.goto(f"/assets/{FEED}/validate?view=checks")
    expect(page.get_by_text("public_orders__record_count").first).to_be_visible()
    expect(page.get_by_text("Passed", exact=True)).to_be_visible()
    page.screenshot(path=pictures / "checks.png")

    wait_for_success(page, dev, LANDED)
    batch = dev.batch(LANDED)
    assert batch is not None
    assert batch[2] == "sensor landing_orders"

    page.goto(f"/locations/batch_pipelines/jobs/{FEED}/partitions")
    expect(page.get_by_text("Total partitions")).to_be_visible()
    expect(page.locator("body")).to_contain_text("3\nTotal partitions", use_inner_text=True)
    expect(page.locator("body")).to_contain_text("0\nMissing partitions", use_inner_text=True)
    page.screenshot(path=pictures / "partitions.png")

    # What the command line has run is found beside what was launched here.
    page.goto(f"/locations/batch_pipelines/jobs/{FEED}/runs")
    expect(page.get_by_text(f"partition: {EARLIER}")).to_be_visible()
    page.screenshot(path=pictures / "job.png")


def launch(page: Page, key: str, pictures: Path) -> None:
    """Materialize a partition of all five assets, as somebody with a mouse does."""
    page.get_by_role("button", name="Materialize all").click()
    page.get_by_text("Select a partition or create one").click()
    page.get_by_text(key, exact=True).filter(visible=True).first.click()
    button = page.get_by_role("button", name="Launch 1 run")
    expect(button).to_be_enabled()
    page.screenshot(path=pictures / "launch.png")
    # The dialog closes before it has asked for the run: who leaves the page then has asked for nothing.
    with page.expect_response(is_launch) as launched:
        button.click()
    assert launched.value.ok


def is_launch(response: Response) -> bool:
    return "LaunchPipelineExecution" in (response.request.post_data or "")


def wait_for_success(page: Page, dev: Dev, key: str) -> str:
    """Look at the list of runs until a partition's has succeeded; return its id."""
    deadline = time.monotonic() + 120
    page.goto("/runs")
    while True:
        batch = dev.batch(key)
        if batch is not None and batch[1] == "FAILED":
            pytest.fail(f"{key} failed")
        if batch is not None and batch[1] == "SUCCESS":
            break
        assert time.monotonic() < deadline, f"{key} has not come through: {batch}"
        page.wait_for_timeout(500)
    page.goto(f"/runs/{batch[0]}")
    expect(page.get_by_text("Success", exact=True)).to_be_visible()
    return batch[0]
