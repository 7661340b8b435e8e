"""A batch in the archive, as everything else meets it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from batch_pipelines.engine.errors import ArchiveError, StageOrderError
from batch_pipelines.engine.restaging import restage
from batch_pipelines.engine.restoring.restore import RestoreRequest, restore
from batch_pipelines.engine.retention.course import require_done
from batch_pipelines.engine.verification.verify import Verifier
from batch_pipelines.engine.work import batch_to_replay
from tests.support_retention import POLICY, planned, retain, with_rules
from tests.support_rollback import take_back

if TYPE_CHECKING:
    from batch_pipelines.engine.ledger.verifications import TableVerification
    from tests.engine.conftest import MakeSite
    from tests.support_engine import Site

DDL = """
CREATE TABLE t (id int PRIMARY KEY, name text, import_batch_id uuid);
CREATE INDEX ON t (import_batch_id);
"""
OLD, NEW = {"a.csv": "id,name\n1,a\n"}, {"a.csv": "id,name\n1,b\n2,c\n"}


def archived(make: MakeSite, publish: str = "direct") -> tuple[Site, str]:
    here = make(DDL, publish=publish)
    here.feed = with_rules(here.feed, rows=POLICY)
    batch = here.load(OLD)
    require_done(retain(here))
    assert here.newest().status == "ARCHIVED"
    return here, batch.batch_id


def states(site: Site) -> list[str]:
    return [batch.status for batch in site.history()]


def verified(site: Site, batch_id: str) -> TableVerification:
    verifier = Verifier(site.settings, {site.feed.feed: site.feed}, "a tester")
    batch = next(b for b in site.history() if b.batch_id == batch_id)
    (found,) = verifier.verify(site.connection, batch).tables
    return found


def test_the_same_delivery_again_is_a_duplicate(site18: MakeSite) -> None:
    here, batch_id = archived(site18)
    again = here.run()
    assert (again.status, again.duplicate_of) == ("DUPLICATE", batch_id)
    assert here.rows() == []
    assert here.newest().batch_id == batch_id


@pytest.mark.parametrize("publish", ["direct", "after_validation"])
def test_a_corrected_delivery_supersedes_it_and_its_rollback_brings_it_back_to_the_archive(
    site18: MakeSite, publish: str
) -> None:
    here, _ = archived(site18, publish)
    second = here.load(NEW)
    assert states(here) == ["SUPERSEDED", "SUCCESS"]
    assert len(here.rows()) == 2
    take_back(here, second.batch_id)
    assert states(here) == ["ARCHIVED", "ROLLED_BACK"]
    assert here.rows() == []


def test_what_was_restored_stays_for_the_days_that_were_asked_for(site18: MakeSite) -> None:
    """Given rows whose time is over, when somebody has them back, the next night leaves them alone."""
    here, batch_id = archived(site18)
    wanted = RestoreRequest(batch_id, "Ada", "an audit", days=5)
    restore(here.database, here.settings, wanted)
    assert retain(here).chunks == ()
    (item,) = planned(here, 0).values()
    assert [why.partition(" until")[0] for why in item.kept_by] == ["restored by Ada, to stay"]
    (later,) = planned(here, 6).values()
    assert later.goes


def test_the_same_delivery_by_force_supersedes_it(site18: MakeSite) -> None:
    here, _ = archived(site18)
    here.load(OLD, force=True)
    assert states(here) == ["SUPERSEDED", "SUCCESS"]


def test_it_is_verified_by_its_bag(site18: MakeSite) -> None:
    here, batch_id = archived(site18)
    found = verified(here, batch_id)
    assert (found.status, found.expected_rows, found.actual_rows) == ("SUCCESS", 0, 0)
    assert "its 1 rows are in " in str(found.exception)
    # A row that is there all the same is none of the archive's.
    here.sql("INSERT INTO t VALUES (9, 'x', %s)", batch_id)
    assert verified(here, batch_id).status == "FAILED"
    here.sql("DELETE FROM t")
    ((place,),) = here.sql("SELECT place FROM batch_audit.archive_manifest WHERE kind = 'rows'")
    file = Path(place) / "data" / "rows" / "public.t.parquet"
    file.write_bytes(file.read_bytes()[:-1])
    found = verified(here, batch_id)
    assert found.status == "FAILED"
    assert "damaged" in str(found.exception)


def test_a_replay_names_restore(site18: MakeSite) -> None:
    here, _ = archived(site18)
    with (
        here.work() as (connection, work),
        pytest.raises(StageOrderError, match="batch-pipelines restore"),
    ):
        batch_to_replay(connection, work)


def test_rejects_that_were_archived_are_not_replayed(site18: MakeSite) -> None:
    here = site18(DDL, thresholds={})
    here.feed = with_rules(here.feed, quarantine=POLICY)
    here.load({"a.csv": "id,name\n1,a\nx,b\n"})
    require_done(retain(here))
    with (
        here.work() as (connection, work),
        pytest.raises(StageOrderError, match="its rejects have left the ledger"),
    ):
        batch_to_replay(connection, work)
    assert here.newest().status == "PARTIAL_SUCCESS"


def test_a_bag_that_was_deleted_is_told_as_such(site18: MakeSite) -> None:
    here = site18(DDL, thresholds={})
    here.feed = with_rules(here.feed, bags=POLICY)
    here.load({"a.csv": "id,name\n1,a\nx,b\n"})
    ((place,),) = here.sql("SELECT place FROM batch_audit.archive_manifest")
    require_done(retain(here))
    assert not Path(place).exists()
    assert not any(Path(place).parent.iterdir())
    with here.work() as (connection, work):
        batch, _ = batch_to_replay(connection, work)
        with pytest.raises(ArchiveError, match=r"any more: .* was deleted on"):
            restage(connection, work, batch)
