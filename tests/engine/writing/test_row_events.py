"""Entries of records: one each, by whom as delivered, no value besides, under the root of the batch."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pydantic
import pytest

from batch_pipelines.engine.audit.verify import verify_audit
from batch_pipelines.engine.errors import BatchError
from batch_pipelines.engine.feeds import Feed
from tests.support_retention import POLICY, retain, with_rules
from tests.support_rollback import take_back

if TYPE_CHECKING:
    from pathlib import Path

    from tests.engine.conftest import MakeSite
    from tests.support_engine import Site

DDL = "CREATE TABLE t (id int PRIMARY KEY, made_by text, v int, import_batch_id uuid)"
ONE = {"a.csv": "id,made_by,v\n1,ada,10\n2,bob,20\n3,ada,30\nx,eve,40\n"}


def recording(make: MakeSite, write: str = "insert", **more: Any) -> Site:
    here = make(DDL, thresholds={"rejected_rows": "50%"}, **more)
    (table,) = here.feed.model_dump()["tables"]
    told = {**table, "principal": "made_by", "write": write}
    here.feed = Feed.model_validate(
        {**here.feed.model_dump(), "audit_event": "row", "tables": [told]}
    )
    return here


def entries(site: Site, batch_id: str) -> list[tuple[str, str | None, int]]:
    return [
        (action, principal, number)
        for action, principal, number in site.sql(
            "SELECT action, principal, count(*) FROM batch_audit.row_event WHERE batch_id = %s"
            " GROUP BY 1, 2 ORDER BY 1, 2",
            batch_id,
        )
    ]


@pytest.mark.parametrize("publish", ["direct", "after_validation"])
def test_each_record_has_an_entry_by_who_made_it_as_delivered(
    site: MakeSite, tmp_path: Path, publish: str
) -> None:
    here = recording(site, publish=publish)
    batch = here.load(ONE)
    # What was set aside was not written, and has none.
    assert entries(here, batch.batch_id) == [("row.written", "ada", 2), ("row.written", "bob", 1)]
    ((told,),) = here.sql(
        "SELECT details - 'row_event' - 'history' FROM batch_audit.audit_event"
        " WHERE action = 'batch.rows.recorded'"
    )
    assert told == {"tables": {"public.t": 3}, "principals": 2, "principals_are": "as delivered"}
    # The key alone, hashed with the batch's id, and nothing else of the row.
    ((key,),) = here.sql("SELECT key_sha256 FROM batch_audit.row_event WHERE principal = 'bob'")
    framed = (1).to_bytes(4, "big") + (25).to_bytes(4, "big") + (1).to_bytes(4, "big") + b"2"
    assert key == hashlib.sha256(bytes.fromhex(batch.batch_id.replace("-", "")) + framed).digest()
    assert verify_audit(here.connection, tmp_path).findings == ()
    here.sql("UPDATE batch_audit.row_event SET principal = 'eve' WHERE principal = 'bob'")
    (finding,) = verify_audit(here.connection, tmp_path).findings
    assert (finding.kind, "row_event is not what the trail has" in finding.message) == (
        "root",
        True,
    )


def test_upserts_corrections_and_rollbacks_leave_entries_of_what_each_batch_wrote(
    site18: MakeSite, tmp_path: Path
) -> None:
    here = recording(site18, write="upsert")
    first = here.load(ONE, "one")
    second = here.load({"a.csv": "id,made_by,v\n1,cyd,11\n3,ada,30\n4,cyd,1\n"}, "two")
    assert entries(here, second.batch_id) == [("row.written", "ada", 1), ("row.written", "cyd", 2)]
    third = here.load({"a.csv": "id,made_by,v\n1,dan,11\n"}, "two")
    assert entries(here, third.batch_id) == [("row.written", "dan", 1)]
    take_back(here, third.batch_id)
    assert [*map(len, (entries(here, b.batch_id) for b in (first, second, third)))] == [2, 2, 1]
    assert verify_audit(here.connection, tmp_path).findings == ()


def test_a_delivery_without_that_column_is_refused(site18: MakeSite) -> None:
    here = recording(site18)
    here.deliver({"a.csv": "id,v\n1,10\n"})
    with pytest.raises(BatchError, match=r"`principal: made_by` of public\.t is no column"):
        here.run()
    assert here.rows() == []


def test_without_a_key_and_a_principal_there_is_an_entry_still(site18: MakeSite) -> None:
    here = site18("CREATE TABLE t (v int, import_batch_id uuid)", audit_event="row")
    batch = here.load({"a.csv": "v\n1\n1\n"})
    assert entries(here, batch.batch_id) == [("row.written", None, 2)]
    assert here.sql("SELECT count(key_sha256) FROM batch_audit.row_event") == [(0,)]


def test_a_principal_goes_with_entries_of_rows_alone() -> None:
    told = {
        "feed": "f", "source": {"path": "f/{batch}/*.csv"},
        "tables": [{"table": "public.t", "principal": "made_by"}],
    }  # fmt: skip
    with pytest.raises(pydantic.ValidationError, match="goes with `audit_event: row` alone"):
        Feed.model_validate(told)


def test_they_go_with_the_ledgers_detail_and_the_trail_knows_it(
    site18: MakeSite, tmp_path: Path
) -> None:
    here = recording(site18)
    here.feed = with_rules(here.feed, rows=POLICY, ledger=POLICY)
    batch = here.load(ONE)
    done = retain(here)
    assert {c.data_class for c in done.chunks if c.state == "DELETED"} == {"rows", "ledger"}
    assert entries(here, batch.batch_id) == []
    assert {f.kind for f in verify_audit(here.connection, tmp_path).findings} <= {"history"}
