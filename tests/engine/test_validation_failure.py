"""A published batch whose validation fails is kept, or rolled back at once, as its feed says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from batch_pipelines.engine.errors import ValidationError
from batch_pipelines.engine.failpoints import armed
from batch_pipelines.engine.feeds import Feed
from batch_pipelines.engine.ledger import proofs, stages
from batch_pipelines.engine.ledger.stages import STAGES
from tests.support_engine import feed_of, new_id
from tests.support_process import At, importing

if TYPE_CHECKING:
    from tests.engine.conftest import MakeSite
    from tests.support_engine import Site

# What a trigger of the ledger does, after publish has proven the rows, only validation sees.
DDL = """
CREATE TABLE t (a integer PRIMARY KEY, host inet, import_batch_id uuid);
CREATE FUNCTION forget() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN UPDATE public.t SET host = NULL WHERE a < 0; RETURN NULL; END';
CREATE TRIGGER forgets AFTER INSERT ON batch_audit.batch_table EXECUTE FUNCTION forget();
"""
GOOD = {"a.csv": "a,host\n1,10.0.0.1\n2,10.0.0.2\n"}
WRONG = {"a.csv": "a,host\n1,10.0.0.9\n-2,10.0.0.2\n"}
ROLL_BACK: dict[str, Any] = {"on_validation_failure": "roll_back"}


def events(site: Site) -> list[tuple[str, str, str]]:
    return site.sql(
        "SELECT principal_id, action, status FROM batch_audit.audit_event"
        " WHERE action LIKE 'batch.rollback.%' ORDER BY seq"
    )


def refused_load(site: Site, message: str) -> None:
    site.deliver(WRONG)
    with pytest.raises(ValidationError, match=message):
        site.run()


def test_by_default_it_is_kept_visible_and_failed(site18: MakeSite) -> None:
    site = site18(DDL)
    refused_load(site, "differ from their source in public.t aggregates.host")
    batch = site.newest()
    assert batch.status == "VALIDATION_FAILED"
    assert site.stamps() == {batch.batch_id: 2}
    assert events(site) == []


@pytest.mark.versions
def test_rolled_back_at_once_with_its_reason_and_by_whom(site: MakeSite) -> None:
    here = site(DDL, **ROLL_BACK)
    refused_load(here, r"differ from their source in .*\. The batch was rolled back\.$")
    batch = here.newest()
    assert batch.status == "ROLLED_BACK"
    assert here.rows() == []
    by = "batch-pipelines (on_validation_failure)"
    assert batch.rolled_back_by == by
    assert batch.rollback_reason == "validation failed: public.t aggregates.host"
    assert [event for event in events(here) if event[2] == "SUCCESS"] == [
        (by, "batch.rollback.done", "SUCCESS")
    ]
    # What was found stays; so does the stage's end.
    (found,) = proofs.validations(here.connection, batch.batch_id)
    assert [check.name for check in found.checks if check.status == "FAILED"] == ["aggregates.host"]
    assert stages.of_batch(here.connection, batch.batch_id)["validate"].status == "SUCCESS"
    # The corrected delivery is a batch of its own.
    again = here.load(GOOD)
    assert again.status == "SUCCESS"
    assert here.stamps() == {again.batch_id: 2}


def test_what_a_correction_had_replaced_is_in_force_again(site18: MakeSite) -> None:
    site = site18(DDL, **ROLL_BACK)
    first = site.load(GOOD)
    before = site.rows()
    refused_load(site, f"was rolled back. Batch {first.batch_id} is in force again")
    assert site.rows() == before
    assert site.stamps() == {first.batch_id: 2}
    assert [b.status for b in site.history()] == ["SUCCESS", "ROLLED_BACK"]


def test_before_images_of_an_upsert_come_back(site18: MakeSite) -> None:
    site = site18(DDL, **ROLL_BACK)
    (table,) = site.feed.tables
    upserted = table.model_copy(update={"write": "upsert"})
    site.feed = site.feed.model_copy(update={"tables": (upserted,)})
    site.sql("INSERT INTO t VALUES (1, '10.0.0.7')")
    before = site.rows()
    refused_load(site, "The batch was rolled back")
    assert site.rows() == before
    assert site.stamps() == {None: 1}


def test_a_refused_rollback_leaves_it_visible_and_says_so(site18: MakeSite) -> None:
    site = site18(DDL, **ROLL_BACK)
    site.deliver(GOOD)
    batch = site.run(stages=STAGES[:3])
    site.sql("UPDATE t SET host = NULL WHERE a = 1")
    rows = site.rows()
    with pytest.raises(
        ValidationError, match=r"IS STILL VISIBLE, its rollback was refused: .*changed"
    ):
        site.run(stages=["validate"])
    now = site.newest()
    assert (now.batch_id, now.status) == (batch.batch_id, "VALIDATION_FAILED")
    assert "IS STILL VISIBLE" in (now.error_details or "")
    assert site.rows() == rows
    assert events(site)[-1][1:] == ("batch.rollback.refused", "FAILED")
    # Mended, it is validated by the next run, and nothing is rolled back.
    site.sql("UPDATE t SET host = '10.0.0.1' WHERE a = 1")
    assert site.run().status == "SUCCESS"
    assert site.newest().error_details is None


def test_killed_between_verdict_and_rollback_the_next_run_rolls_back(site18: MakeSite) -> None:
    site = site18(DDL, **ROLL_BACK)
    site.deliver(WRONG)
    for place in ("rollback.undone", "rollback.before_commit"):
        run = new_id()
        with importing(site, run, at=At(place)) as child:
            assert child.outcome() is None
            assert site.newest().status == "VALIDATION_FAILED"
            assert len(site.rows()) == 2
    with pytest.raises(ValidationError, match="was rolled back"):
        site.run()
    assert site.newest().status == "ROLLED_BACK"
    assert site.rows() == []


def test_a_run_that_lost_its_lease_rolls_nothing_back(site18: MakeSite) -> None:
    site = site18(DDL, **ROLL_BACK)
    site.deliver(WRONG)

    def take_over(value: object) -> object:
        site.sql("UPDATE batch_audit.batch_lease SET token = token + 1")
        return value

    with (
        armed("rollback.done", take_over),
        pytest.raises(Exception, match="no longer holds the lease"),
    ):
        site.run()
    assert len(site.rows()) == 2
    assert site.newest().status == "VALIDATION_FAILED"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"rollback": {"approval": "two"}}, "asks nobody"),
        (
            {"tables": [{"table": "public.t", "write": "none", "batch_column": "job"}]},
            "nothing is written",
        ),
    ],
)
def test_what_cannot_be_is_said_when_the_feed_is_read(
    more: dict[str, object], message: str
) -> None:
    said = feed_of({"public.t": "*"}).model_dump(mode="json", by_alias=True, exclude_unset=True)
    with pytest.raises(ValueError, match=message):
        Feed.model_validate(said | ROLL_BACK | more)
    assert Feed.model_fields["on_validation_failure"].default == "keep"
