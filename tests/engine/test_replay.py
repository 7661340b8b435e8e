"""Replay: records that were set aside are loaded once their cause is mended, into the same batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batch_pipelines.engine.archive import archive
from batch_pipelines.engine.audit.verify import verify_audit
from batch_pipelines.engine.bulk_write import bulk_write
from batch_pipelines.engine.errors import StageOrderError, ThresholdError
from batch_pipelines.engine.ledger import batches, proofs, rejects
from batch_pipelines.engine.validate import require_valid, validate

if TYPE_CHECKING:
    from pathlib import Path

    from batch_pipelines.engine.ledger.batches import Batch
    from tests.engine.conftest import MakeSite
    from tests.support_engine import Site

pytestmark = pytest.mark.versions

DDL = """
CREATE TABLE parent (id int PRIMARY KEY);
INSERT INTO parent VALUES (1);
CREATE TABLE t (id int PRIMARY KEY, parent int REFERENCES parent, note jsonb, import_batch_id uuid);
CREATE INDEX ON t (import_batch_id);
"""
ROWS = 'id,parent,note\n1,1,{}\n2,2,"{""a"": 1}"\n3,3,{}\nx,1,{}\n5,1,\n'


def replay(site: Site) -> Batch:
    with site.work() as (connection, work):
        bulk_write(connection, work, replay=True)
        require_valid(validate(connection, work))
        archive(connection, work)
        batch = batches.of_run(connection, work.run_id)
    assert batch is not None
    return batch


def lenient(make: MakeSite) -> Site:
    return make(DDL, thresholds={})


@pytest.mark.parametrize("kind", ["csv"])
def test_what_was_set_aside_is_loaded_once_its_cause_is_mended(site: MakeSite, kind: str) -> None:
    here = lenient(site)
    first = here.load({f"a.{kind}": ROWS})
    assert (first.status, first.written_records, first.rejected_records) == (
        "PARTIAL_SUCCESS",
        2,
        3,
    )

    here.sql("INSERT INTO parent VALUES (2)")
    again = replay(here)
    assert (again.batch_id, again.status) == (first.batch_id, "PARTIAL_SUCCESS")
    assert (again.written_records, again.rejected_records) == (3, 2)
    assert here.stamps() == {first.batch_id: 3}
    left = rejects.of_batch(here.connection, first.batch_id)
    assert [(r.record_number, r.replayed_at is None) for r in left] == [
        (2, False),
        (3, True),
        (4, True),
    ]

    here.sql("INSERT INTO parent VALUES (3)")
    here.sql("ALTER TABLE t ALTER id TYPE text")
    done = replay(here)
    assert (done.status, done.written_records, done.rejected_records) == ("SUCCESS", 5, 0)
    (balance,) = proofs.tables(here.connection, first.batch_id)
    assert (balance.source_records, balance.inserted, balance.rejected) == (5, 5, 0)
    assert len(batches.runs(here.connection, first.batch_id)) == 3


def test_a_replay_of_what_is_still_wrong_changes_nothing(site18: MakeSite) -> None:
    here = lenient(site18)
    first = here.load({"a.csv": ROWS})
    with pytest.raises(ThresholdError, match="3 of 3 records cannot be loaded, all of them"):
        replay(here)
    assert here.newest() == first
    assert len(rejects.of_batch(here.connection, first.batch_id)) == 3


def test_a_replay_of_nothing_leaves_the_reasons_that_the_trail_vouches_for(
    site18: MakeSite, tmp_path: Path
) -> None:
    """Given rejects that have another reason now, when none can be loaded, all stays."""
    here = lenient(site18)
    first = here.load({"a.csv": "id,parent,note\n1,1,{}\n2,2,{}\n"})
    here.sql("INSERT INTO parent VALUES (2)")
    here.sql("INSERT INTO t VALUES (2, 1, '{}')")
    before = rejects.of_batch(here.connection, first.batch_id)
    with pytest.raises(ThresholdError):
        replay(here)
    assert rejects.of_batch(here.connection, first.batch_id) == before
    assert verify_audit(here.connection, tmp_path).findings == ()


def test_there_is_nothing_to_replay_of_what_is_not_published(site18: MakeSite) -> None:
    with pytest.raises(StageOrderError, match="there is nothing to replay"):
        replay(lenient(site18))


def test_a_correction_supersedes_what_was_replayed_too(site18: MakeSite) -> None:
    here = lenient(site18)
    here.load({"a.csv": ROWS})
    here.sql("INSERT INTO parent VALUES (2)")
    replay(here)
    second = here.load({"a.csv": "id,parent,note\n1,1,{}\n2,1,\n"})
    assert here.stamps() == {second.batch_id: 2}
