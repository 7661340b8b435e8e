"""The plan: what goes, by which rule, and what keeps it."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import pytest

from batch_pipelines.engine.errors import FeedError
from batch_pipelines.engine.ledger import batches
from batch_pipelines.engine.retention import holds
from batch_pipelines.engine.retention.holds import Scope
from batch_pipelines.engine.retention.plan import Planner
from tests.support_retention import POLICY, ahead, planned, with_rules
from tests.support_rollback import upserting

if TYPE_CHECKING:
    from tests.engine.conftest import MakeSite

DDL = """
CREATE TABLE t (id int PRIMARY KEY, name text, import_batch_id uuid);
CREATE INDEX ON t (import_batch_id);
"""
ALL = dict.fromkeys(["rows", "before_images", "quarantine", "ledger", "bags"], POLICY)


@pytest.mark.versions
def test_what_is_due_goes_by_the_rule_that_holds_longest(site: MakeSite) -> None:
    here = site(DDL, thresholds={})
    here.feed = with_rules(here.feed, **ALL)
    batch = here.load({"a.csv": "id,name\n1,a\n2,b\nx,c\n"}).batch_id
    assert planned(here, 89) == {}
    found = planned(here)
    assert {name for (_, name), each in found.items() if each.goes} == {
        "rows", "quarantine", "bags",
    }  # fmt: skip
    rows = found[batch, "rows"]
    assert (rows.rule, rows.legal_source) == ("90 days from completed", "data policy 4.2")
    assert (rows.records, found[batch, "quarantine"].records) == (2, 1)
    assert rows.bytes > 0
    assert rows.due_at - batches.by_id(here.connection, batch).completed_at == dt.timedelta(90)  # type: ignore[operator]
    # These prove the rows that are still there.
    assert found[batch, "ledger"].kept_by == ("the batch is in force: its rows are proven by it",)
    longer = planned(here, regulations=("clia",))[batch, "rows"]
    assert "longer rule: 2 years from completed, 42 CFR 493.1105" in longer.kept_by[0]
    assert planned(here, 800, regulations=("clia",))[batch, "rows"].goes


def test_a_rule_counts_from_what_it_says_by_the_calendar(site18: MakeSite) -> None:
    here = site18(DDL)
    months = {"keep": "1 month", "legal_source": "x", "cut_off": "published"}
    here.feed = with_rules(here.feed, rows=[months, {**POLICY, "keep": "7 days"}])
    batch = here.load({"a.csv": "id,name\n1,a\n"}).batch_id
    here.sql("UPDATE batch_audit.import_history SET published_at = '2024-01-31T12:00Z',"
             " completed_at = '2024-02-10T12:00Z'")  # fmt: skip
    feeds = {"orders": here.feed}

    def on(day: str) -> list[tuple[str, str, bool]]:
        planner = Planner(feeds, (), dt.datetime.fromisoformat(f"{day}T12:00+00:00"))
        found = planner.plan(here.connection, "orders")
        return [(each.batch_id, each.rule, each.goes) for each in found]

    assert on("2024-02-16") == []
    assert on("2024-02-17") == [(batch, "1 month from published", False)]
    assert on("2024-02-29") == [(batch, "1 month from published", True)]
    with pytest.raises(FeedError, match="no feed others"):
        Planner(feeds, (), ahead(0)).plan(here.connection, "others")


def test_a_hold_keeps_what_is_due(site18: MakeSite) -> None:
    here = site18(DDL)
    here.feed = with_rules(here.feed, **ALL)
    batch = here.load({"a.csv": "id,name\n1,a\n"}).batch_id
    hold = holds.set_hold(here.connection, Scope(batch_id=batch), reason="case 17", by="counsel")
    for found in planned(here).values():
        assert str(hold) in found.kept_by
    holds.lift_hold(here.connection, hold.hold_id, reason="settled", by="counsel")
    assert planned(here)[batch, "rows"].goes


def test_what_others_depend_on_stays(site18: MakeSite) -> None:
    here = site18(
        DDL + "CREATE TABLE child (t int REFERENCES t, import_batch_id uuid);"
        "CREATE TABLE bare (t int REFERENCES t);"
    )
    here.feed = with_rules(upserting(here.feed, {"table": "public.t", "write": "upsert"}), **ALL)
    first = here.load({"a.csv": "id,name\n1,a\n2,b\n3,c\n"}, "a").batch_id
    second = here.load({"a.csv": "id,name\n2,B\n"}, "b").batch_id
    here.sql("INSERT INTO child VALUES (1, NULL), (1, %s)", first)
    here.sql("INSERT INTO bare VALUES (2)")
    found = planned(here)
    assert found[first, "rows"].kept_by == (
        f"later batch depends: {second} has overwritten 1 of its rows, which its rollback brings back",
        "1 rows of public.child that stay refer to its rows in public.t (child_t_fkey)",
    )
    assert found[second, "rows"].kept_by == (
        "1 rows of public.bare that stay refer to its rows in public.t (bare_t_fkey)",
    )
    assert found[second, "before_images"].goes
    # A time for rollbacks that the feed has promised is kept.
    here.sql("UPDATE batch_audit.import_history SET rollback_possible_until = %s", ahead(200))
    (why,) = planned(here)[second, "before_images"].kept_by
    assert why.startswith("the batch can be rolled back until ")


def test_what_a_superseded_batch_needs_to_come_back_stays(site18: MakeSite) -> None:
    here = site18(DDL)
    here.feed = with_rules(here.feed, **ALL)
    first = here.load({"a.csv": "id,name\n1,a\n"}).batch_id
    second = here.load({"a.csv": "id,name\n1,b\n"}).batch_id
    found = planned(here)
    why = (f"later batch depends: {second} superseded it, and can be rolled back",)
    assert (found[first, "ledger"].kept_by, found[first, "bags"].kept_by) == (why, why)
    assert (first, "rows") not in found
    assert found[second, "before_images"].goes
    assert planned(here)[second, "rows"].goes
    # Once the second cannot be rolled back any more, nothing needs the first.
    here.sql("UPDATE batch_audit.import_history SET rollback_possible_until = now()")
    assert planned(here)[first, "ledger"].goes


def test_what_is_not_validated_or_archived_stays(site18: MakeSite) -> None:
    here = site18(DDL)
    here.feed = with_rules(here.feed, rows={**POLICY, "cut_off": "published"})
    here.deliver({"a.csv": "id,name\n1,a\n"})
    batch = here.run(stages=["ingest", "checksum", "bulk_write", "validate"]).batch_id
    assert planned(here)[batch, "rows"].kept_by == ("its delivery is not archived yet",)
    here.sql("UPDATE batch_audit.import_history SET status = 'VALIDATION_FAILED'")
    why = "not validated: the batch is VALIDATION_FAILED"
    assert planned(here)[batch, "rows"].kept_by == (why,)
