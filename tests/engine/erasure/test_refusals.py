"""What stands in the way of an erasure is told by name, and nothing is erased then."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batch_pipelines.engine.erasure.course import RefusedErasureError
from batch_pipelines.engine.errors import ErasureError
from batch_pipelines.engine.failpoints import armed
from batch_pipelines.engine.retention.holds import Scope, lift_hold, set_hold
from tests.engine.erasure.support import (
    FIRST,
    OWN,
    PATIENT,
    deliver_and_load,
    eraser,
    left_of,
    open_laboratory,
    patients,
    request,
)

if TYPE_CHECKING:
    from tests.engine.conftest import MakeSite


def test_holds_rows_that_refer_and_wrong_keys_stand_in_the_way(site18: MakeSite) -> None:
    there = open_laboratory(site18)
    deliver_and_load(there, "r.csv", FIRST)
    (batch,) = there.history()
    before = left_of(there, *OWN)

    hold = set_hold(
        there.connection, Scope(batch_id=batch.batch_id), reason="case 17", by="the court"
    )
    with pytest.raises(RefusedErasureError, match=r"legal hold 1 .case 17."):
        eraser(there).erase(request())
    lift_hold(there.connection, hold.hold_id, reason="settled", by="the court")

    # One that is set when the plan was made already wins, too.
    def hold_now(_: object) -> None:
        with there.database.connect("court") as connection:
            set_hold(connection, Scope(), reason="case 18", by="the court")

    with (
        armed("erase.written", hold_now),
        pytest.raises(ErasureError, match="stays as it is: legal hold 2"),
    ):
        eraser(there).erase(request())
    assert patients(there) == 0
    assert [found for found in left_of(there, *OWN) if "archive" in found]
    lift_hold(there.connection, 2, reason="settled", by="the court")
    (ended,) = eraser(there).resume()
    assert ended.erasure is not None
    assert left_of(there, *OWN) == []
    assert before

    for key, why in (
        ({"doctor": PATIENT}, "has no column doctor"),
        ({"value": PATIENT}, "The value given for value is no numeric"),
        ({}, "Nothing says whose rows"),
    ):
        with pytest.raises(ErasureError, match=why) as refused:
            eraser(there).erase(request(key=key))
        assert PATIENT not in str(refused.value)
    with pytest.raises(ErasureError, match="done for a reason"):
        eraser(there).erase(request(reason=" "))
    with pytest.raises(ErasureError, match=r"There is no orders/public.other"):
        eraser(there).plan(request(table="public.other"))


def test_rows_that_others_refer_to_and_batches_that_work_still(site18: MakeSite) -> None:
    there = open_laboratory(site18)
    there.deliver({"r.csv": FIRST}, "one")
    there.run("one", stages=["ingest", "checksum", "bulk_write"])
    with pytest.raises(RefusedErasureError, match=r"is PUBLISHED, and has the person.*") as refused:
        eraser(there).erase(request())
    assert any("staged copies of orders/one" in why for why in refused.value.plan.obstacles)
    there.run("one", stages=["validate", "archive"])

    there.sql("CREATE TABLE invoices (accession text REFERENCES results ON DELETE CASCADE)")
    there.sql("INSERT INTO invoices VALUES ('A-9001'), ('A-0001')")
    with pytest.raises(RefusedErasureError, match=r"1 rows of public.invoices refer"):
        eraser(there).erase(request())
    assert patients(there) == 1
    assert there.count("SELECT count(*) FROM invoices") == 2
    assert there.count(
        "SELECT count(*) FROM batch_audit.audit_event WHERE action = 'erasure.refused'"
    ) == 2  # fmt: skip
