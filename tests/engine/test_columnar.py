"""Columnar deliveries go through all stages, whatever their format: loaded, set aside, replayed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from batch_pipelines.engine.errors import DeliveryError
from batch_pipelines.engine.rehearsal import rehearse
from tests.engine.test_replay import replay
from tests.support_columnar import COLUMNAR

if TYPE_CHECKING:
    from tests.engine.conftest import MakeSite

DDL = """
CREATE TABLE parent (id int PRIMARY KEY);
INSERT INTO parent VALUES (1);
CREATE TABLE t (id int PRIMARY KEY, parent int REFERENCES parent, note text, import_batch_id uuid);
"""


def content() -> pa.Table:
    """Four good rows, two without a parent, one too large, one with a key that is taken."""
    return pa.table(
        {
            "note": ["a", None, "", "d", "e", "f", "g", "h"],
            "id": [1, 2, 3, 4, 5, 6, 2**40, 1],
            "parent": pa.array([1, None, 1, 1, 2, 3, 1, 1], pa.int32()),
        }
    )


@pytest.mark.parametrize("suffix", COLUMNAR)
def test_what_is_wrong_is_set_aside_and_replayed(site18: MakeSite, suffix: str) -> None:
    here = site18(DDL, thresholds={})
    here.deliver({f"a.{suffix}": content()})
    with here.work() as (connection, work):
        rehearsed = rehearse(connection, work)
    assert [(t.inserted, t.rejected) for t in rehearsed.balances] == [(4, 4)]
    assert here.rows() == []

    first = here.run()
    assert (first.status, first.source_records, first.written_records, first.rejected_records) == (
        "PARTIAL_SUCCESS", 8, 4, 4,
    )  # fmt: skip
    found = here.sql(
        "SELECT record_number, sqlstate, raw FROM batch_audit.import_reject ORDER BY 1"
    )
    assert [row[:2] for row in found] == [
        (5, "23503"), (6, "23503"), (7, "22003"), (8, "23505"),
    ]  # fmt: skip
    assert json.loads(bytes(found[0][2])) == {"note": "e", "id": 5, "parent": 2}

    here.sql("INSERT INTO parent VALUES (2), (3)")
    here.sql("ALTER TABLE t ALTER id TYPE bigint")
    again = replay(here)
    assert (again.status, again.written_records, again.rejected_records) == (
        "PARTIAL_SUCCESS",
        7,
        1,
    )
    assert here.sql("SELECT id, note FROM t ORDER BY id") == [
        (1, "a"), (2, None), (3, ""), (4, "d"), (5, "e"), (6, "f"), (2**40, "g"),
    ]  # fmt: skip


@pytest.mark.parametrize("suffix", COLUMNAR)
def test_a_file_that_is_not_whole_is_refused_before_anything_is_written(
    site18: MakeSite, suffix: str
) -> None:
    here = site18(DDL, thresholds={})
    here.deliver({f"a.{suffix}": content()})
    path = here.landing() / f"a.{suffix}"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(DeliveryError, match=rf"^a\.{suffix}: not a whole \w+ file"):
        here.run()
    assert here.rows() == []
