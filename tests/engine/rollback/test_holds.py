"""What is under a legal hold is evidence: it is not taken away, and what replaces it keeps it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batch_pipelines.engine.retention import holds
from batch_pipelines.engine.retention.holds import Scope
from batch_pipelines.engine.rollback.takeback import RefusedError
from tests.support_retention import POLICY, planned, with_rules
from tests.support_rollback import take_back

if TYPE_CHECKING:
    from batch_pipelines.engine.retention.holds import Hold
    from tests.engine.conftest import MakeSite
    from tests.support_engine import Site

DDL = """
CREATE TABLE t (id int PRIMARY KEY, name text, import_batch_id uuid);
CREATE INDEX ON t (import_batch_id);
"""


def hold(here: Site, batch_id: str) -> Hold:
    return holds.set_hold(here.connection, Scope(batch_id), reason="case 17", by="Ada")


def test_a_batch_under_a_hold_is_not_rolled_back_until_it_is_lifted(site18: MakeSite) -> None:
    here = site18(DDL)
    batch = here.load({"a.csv": "id,name\n1,a\n"})
    held = hold(here, batch.batch_id)
    for how in ({"dry_run": True}, {"keep_touched": True}, {"cascade": True}, {}):
        if how.get("dry_run"):
            refusal = take_back(here, batch.batch_id, **how).refusal
        else:
            with pytest.raises(RefusedError) as error:
                take_back(here, batch.batch_id, **how)
            refusal = str(error.value)
        assert f"under legal hold {held.hold_id} (case 17), set by Ada" in str(refusal)
        assert "--cascade" not in str(refusal)
        assert "--keep-touched" not in str(refusal)
    assert here.count("SELECT count(*) FROM t") == 1
    told = "SELECT count(*) FROM batch_audit.audit_event WHERE action = 'batch.rollback.refused'"
    assert here.count(told) == 3

    holds.lift_hold(here.connection, held.hold_id, reason="settled", by="Ada")
    take_back(here, batch.batch_id)
    assert here.count("SELECT count(*) FROM t") == 0


def test_a_correction_keeps_the_rows_of_a_batch_under_a_hold(site18: MakeSite) -> None:
    """Given a feed that keeps no superseded rows, and images for a day, what is held stays."""
    here = site18(DDL, rollback={"superseded_rows": 0})
    here.feed = with_rules(here.feed, before_images=POLICY | {"keep": "1 day"})
    first = here.load({"a.csv": "id,name\n1,a\n2,b\n"})
    held = hold(here, first.batch_id)
    second = here.load({"a.csv": "id,name\n1,A\n"})
    kept = "SELECT image ->> 'name' FROM batch_audit.superseded_row ORDER BY 1"
    assert here.sql(kept) == [("a",), ("b",)]

    item = planned(here)[second.batch_id, "before_images"]
    assert not item.goes
    assert any(f"rows of batch {first.batch_id}, which is under {held}" in w for w in item.kept_by)
    holds.lift_hold(here.connection, held.hold_id, reason="settled", by="Ada")
    assert not any("hold" in why for why in planned(here)[second.batch_id, "before_images"].kept_by)

    # The correction itself is not held: taking it back brings the evidence back.
    hold(here, first.batch_id)
    take_back(here, second.batch_id)
    assert here.rows() == [('{"id": 1, "name": "a"}',), ('{"id": 2, "name": "b"}',)]
