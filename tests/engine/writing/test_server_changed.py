"""Columns that a trigger changes: found and named; where the feed declares them, left out and told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from batch_pipelines.engine.bulk_write import bulk_write
from batch_pipelines.engine.errors import FeedError, PublishError
from batch_pipelines.engine.ledger import proofs, rollbacks
from batch_pipelines.engine.ledger.stages import STAGES
from batch_pipelines.engine.rollback import verify as verify_rollback
from batch_pipelines.engine.rollback.takeback import RefusedError
from tests.engine.verification.support_verify import counts, named, verify_table
from tests.support_engine import feed_of
from tests.support_rollback import take_back, upserting

if TYPE_CHECKING:
    from batch_pipelines.engine.ledger.batches import Batch
    from tests.engine.conftest import MakeSite
    from tests.support_engine import Site

DDL = """
CREATE TABLE t (id integer PRIMARY KEY, code text, seen timestamptz NOT NULL, a integer, note char(4),
    twice integer GENERATED ALWAYS AS (a * 2) STORED, import_batch_id uuid);
CREATE FUNCTION changing() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN NEW.code := upper(NEW.code); NEW.seen := clock_timestamp(); RETURN NEW; END';
CREATE TRIGGER changing BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION changing();
"""
HEAD = "id,code,seen,a,note\n"
FIRST = {"f.csv": HEAD + "1,SECRET-x,,10,n\n2,SECRET-y,2024-01-01 00:00Z,20,\n3,UP,,30,nn\n"}
CHANGED = ["code", "seen"]


def declare(here: Site, names: list[str] | None = None, **table: object) -> Site:
    """Have the feed say which columns the server changes."""
    own = {"table": "public.t", "server_changed": CHANGED if names is None else names, **table}
    here.feed = upserting(here.feed, own)
    return here


def status_of(here: Site, batch: Batch) -> dict[str, str]:
    (found,) = proofs.validations(here.connection, batch.batch_id)
    return {check.name: check.status for check in found.checks}


@pytest.mark.parametrize("in_staging", [False, True])
def test_what_a_trigger_changes_is_refused_and_the_columns_are_named(
    site: MakeSite, *, in_staging: bool
) -> None:
    here = site(DDL.replace("seen timestamptz NOT NULL", "seen timestamptz"))
    # A column that arrives as text has the rows staged.
    header, rest = (HEAD, "n") if in_staging else ("id,code,seen,a\n", None)
    row = "1,Secret,2024-01-01 00:00Z,5" + ("" if rest is None else f",{rest}") + "\n"
    here.deliver({"f.csv": header + row})
    with pytest.raises(PublishError) as refused:
        here.run()
    said = str(refused.value)
    assert "the digests of the stored rows differ from those of the source in code, seen;" in said
    assert "`server_changed: [code, seen]`" in said
    assert "ecret" not in said
    assert here.rows() == []


def test_a_text_that_a_trigger_changes_after_its_conversion_is_refused_too(
    site18: MakeSite,
) -> None:
    here = site18(
        "CREATE TABLE t (id integer, j jsonb, import_batch_id uuid);"
        "CREATE FUNCTION changing() RETURNS trigger LANGUAGE plpgsql AS"
        """ 'BEGIN NEW.j := NEW.j || ''{"more": 1}''; RETURN NEW; END';"""
        "CREATE TRIGGER changing BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION changing();"
    )
    here.deliver({"f.csv": 'id,j\n1,"{""a"": 1}"\n'})
    with pytest.raises(PublishError, match=r"differ from those that were staged in j;"):
        here.run()


@pytest.mark.versions
def test_a_declared_column_is_left_out_and_unverified_and_all_others_are_proven(
    site: MakeSite,
) -> None:
    here = declare(site(DDL))
    batch = here.load(FIRST)
    assert batch.status == "SUCCESS"
    (balance,) = proofs.tables(here.connection, batch.batch_id)
    assert (balance.columns, balance.server_changed) == (["id", "a"], CHANGED)
    assert balance.not_covered == ["note", *CHANGED]
    status = status_of(here, batch)
    assert {name for name, each in status.items() if each == "UNVERIFIED"} == {
        "coverage.code", "coverage.seen", "coverage.twice",
    }  # fmt: skip
    assert {name for name, each in status.items() if each == "SUCCESS"} == {
        "record_count", "schema.f.csv", "key_uniqueness", "aggregates.id", "aggregates.a",
        "aggregates.note",
    }  # fmt: skip
    assert here.sql("SELECT status FROM batch_audit.validation_log") == [("UNVERIFIED",)]
    assert here.sql("SELECT overall_status FROM batch_audit.validation_summary") == [
        ("UNVERIFIED",)
    ]
    assert here.sql("SELECT column_name, fidelity FROM batch_audit.batch_column ORDER BY place") == [
        ("id", "exact"), ("code", "server_changed"), ("seen", "server_changed"), ("a", "exact"),
        ("note", "normalised"), ("twice", "computed"),
    ]  # fmt: skip
    # It was validated as far as that can be done; nothing of it has failed.
    assert here.count("SELECT count(*) FROM batch_audit.failed_batch") == 0


def test_another_column_that_is_changed_is_still_found(site18: MakeSite) -> None:
    here = declare(site18(DDL), ["code"])
    here.deliver(FIRST)
    with pytest.raises(PublishError, match=r"of the source in seen;"):
        here.run()


def test_it_is_verified_without_them(site: MakeSite) -> None:
    here = declare(site(DDL))
    batch = here.load(FIRST)
    found = verify_table(here, batch)
    assert (found.status, found.not_covered) == ("PARTIAL_SUCCESS", ["note", *CHANGED])
    here.sql("ALTER TABLE t DISABLE TRIGGER changing; UPDATE t SET code = 'z', seen = now()")
    assert verify_table(here, batch).status == "PARTIAL_SUCCESS"
    here.sql("UPDATE t SET a = 31 WHERE id = 3; DELETE FROM t WHERE id = 1")
    found = verify_table(here, batch)
    assert counts(found) == (1, 1, 0, 0)
    assert named(found.details, "changed") == {"3": ["a"]}


def test_what_is_declared_when_a_batch_is_loaded_holds_for_it(site18: MakeSite) -> None:
    here = declare(site18(DDL))
    here.deliver(FIRST)
    batch = here.run(stages=STAGES[:3])
    here.feed = feed_of({"public.t": "*"})
    here.run(stages=["validate"])
    assert status_of(here, batch)["coverage.code"] == "UNVERIFIED"
    assert here.newest().status == "SUCCESS"
    # And for one that was loaded before, nothing is excused afterwards.
    here.sql("ALTER TABLE t DISABLE TRIGGER changing")
    later = here.load({"f.csv": HEAD + "9,low,2024-01-01 00:00Z,1,n\n"}, "later")
    here.sql("ALTER TABLE t ENABLE TRIGGER changing; UPDATE t SET a = a WHERE id = 9")
    found = verify_table(declare(here), later)
    assert (found.status, named(found.details, "changed")) == ("FAILED", {"9": CHANGED})


def test_a_record_is_not_judged_by_what_a_trigger_will_change(site18: MakeSite) -> None:
    """Given constraints on such a column, PostgreSQL has the last word on each record."""
    here = site18(
        DDL + "ALTER TABLE t ADD CHECK (code = upper(code) AND code <> 'BAD'), ADD UNIQUE (code)"
    )
    declare(here)
    batch = here.load({"f.csv": HEAD + "1,low,,10,n\n2,x,,20,\n"})
    assert (batch.status, here.sql("SELECT code FROM t ORDER BY id")) == (
        "SUCCESS", [("LOW",), ("X",)],
    )  # fmt: skip


def test_a_record_that_the_table_refuses_after_the_trigger_is_set_aside(site18: MakeSite) -> None:
    here = site18(DDL + "ALTER TABLE t ADD CONSTRAINT good CHECK (code <> 'BAD')")
    own = {"table": "public.t", "server_changed": CHANGED}
    here.feed = upserting(here.feed, own)
    batch = here.load({"f.csv": HEAD + "1,low,,10,n\n2,bad,,20,\n3,Bad2,,30,\n"})
    assert (batch.status, here.sql("SELECT code FROM t ORDER BY id")) == (
        "PARTIAL_SUCCESS", [("LOW",), ("BAD2",)],
    )  # fmt: skip
    assert here.sql("SELECT record_number, constraint_name FROM batch_audit.import_reject") == [
        (2, "good")
    ]


def row(here: Site, number: int) -> Any:
    return here.sql("SELECT code, a, import_batch_id::text FROM t WHERE id = %s", number)[0]


def test_upsert_correction_and_rollback_go_round_them(site18: MakeSite) -> None:
    here = declare(site18(DDL), write="upsert")
    first = here.load(FIRST)
    second = here.load({"f.csv": HEAD + "1,low,,11,n\n4,new,,40,n\n"}, "second")
    corrected = here.load({"f.csv": HEAD + "1,low,,12,n\n"}, "second")
    assert [b.status for b in here.history()] == ["SUCCESS", "SUPERSEDED", "SUCCESS"]
    assert row(here, 1) == ("LOW", 12, corrected.batch_id)
    assert verify_table(here, first).status == "PARTIAL_SUCCESS"
    for batch in (corrected, second):
        taken_back(here, batch)
    assert row(here, 1) == ("SECRET-X", 10, first.batch_id)
    assert here.count("SELECT count(*) FROM t") == 3
    # The trigger has written `seen` anew in the row that came back, and that is no fault.
    assert verify_table(here, first).status == "PARTIAL_SUCCESS"
    taken_back(here, first)
    assert here.rows() == []


def taken_back(here: Site, batch: Batch) -> None:
    take_back(here, batch.batch_id)
    assert all(each.differing == 0 for each in rollbacks.of_batch(here.connection, batch.batch_id))
    assert verify_rollback(here.connection, batch.batch_id).failed == ()


def test_a_change_by_hand_of_such_a_column_stands_in_the_way_of_a_rollback(
    site18: MakeSite,
) -> None:
    """Given a later edit, it is not lost: what was stored was recorded, though it is not proven."""
    here = declare(site18(DDL))
    batch = here.load(FIRST)
    here.sql("UPDATE t SET code = 'by hand' WHERE id = 2")
    with pytest.raises(RefusedError, match="changed"):
        take_back(here, batch.batch_id)


def test_a_replay_proves_what_the_load_has_proven(site18: MakeSite) -> None:
    here = site18(DDL + "ALTER TABLE t ADD CONSTRAINT few CHECK (a < 25)")
    own = {"table": "public.t", "server_changed": CHANGED}
    here.feed = upserting(here.feed, own)
    batch = here.load(FIRST)
    here.sql("ALTER TABLE t DROP CONSTRAINT few")
    with here.work() as (connection, work):
        bulk_write(connection, work, replay=True)
    here.run(stages=STAGES[3:])
    assert here.count("SELECT count(*) FROM t") == 3
    assert verify_table(here, batch).status == "PARTIAL_SUCCESS"


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["cod"], "'cod', which is no column of it. Is it 'code'?"),
        (["twice"], "'twice', which PostgreSQL computes anyway"),
        (["id"], "'id', but rows are told apart by it"),
    ],
)
def test_what_cannot_be_meant_is_refused(site18: MakeSite, names: list[str], said: str) -> None:
    here = declare(site18(DDL), names)
    here.deliver(FIRST)
    with pytest.raises(FeedError, match="server_changed") as refused:
        here.run()
    assert said in str(refused.value)
