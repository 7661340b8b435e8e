"""What is due is put away, read back, and only then deleted; what fails stops nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest
import zstandard

from batch_pipelines.engine.errors import BusyError, RetentionError, RollbackError
from batch_pipelines.engine.failpoints import armed
from batch_pipelines.engine.ledger import batches
from batch_pipelines.engine.retention import holds
from batch_pipelines.engine.retention.course import require_done
from batch_pipelines.engine.retention.holds import Scope
from batch_pipelines.engine.retention.sql import OPENED
from tests.support_retention import POLICY, planned, retain, retention, with_rules
from tests.support_rollback import take_back, upserting

if TYPE_CHECKING:
    from batch_pipelines.engine.postgres.database import Connection
    from tests.engine.conftest import MakeSite
    from tests.support_engine import Site

pytestmark = pytest.mark.versions

DDL = """
CREATE TABLE t (id int PRIMARY KEY, name text, import_batch_id uuid);
CREATE INDEX ON t (import_batch_id);
"""
ALL = dict.fromkeys(["rows", "before_images", "quarantine", "ledger", "bags"], POLICY)


def ended(site: Site) -> list[tuple[str, str]]:
    return site.sql("SELECT data_class, state FROM batch_audit.retention_chunk ORDER BY chunk_id")


def actions(site: Site) -> list[str]:
    found = site.sql(
        "SELECT action FROM batch_audit.audit_event WHERE action ~ '^retention|archived$|deleted$'"
        " ORDER BY seq"
    )
    return [action for (action,) in found]


def test_everything_of_a_batch_goes_in_the_order_in_which_it_proves(site: MakeSite) -> None:
    here = site(DDL, thresholds={})
    here.feed = with_rules(here.feed, **ALL)
    batch = here.load({"a.csv": "id,name\n1,a\n2,b\nx,c\n"}).batch_id
    require_done(retain(here))
    assert ended(here) == [(n, "DELETED") for n in ("rows", "quarantine", "bags", "ledger")]
    now = batches.by_id(here.connection, batch)
    assert (now.status, here.count("SELECT count(*) FROM t")) == ("ARCHIVED", 0)
    assert here.sql("SELECT status_before, archived_at IS NOT NULL FROM batch_audit.import_history"
                    ) == [("PARTIAL_SUCCESS", True)]  # fmt: skip
    for table in ("import_reject", "crc32_audit", "row_digest", "validation_summary"):
        assert here.count(f"SELECT count(*) FROM batch_audit.{table}") == 0
    # Never the history, the balance, or what happened.
    assert here.count("SELECT count(*) FROM batch_audit.batch_table") == 1
    assert actions(here) == [
        "retention.started", "batch.rows.archived", "batch.quarantine.archived",
        "batch.bags.deleted", "batch.ledger.archived", "retention.done",
    ]  # fmt: skip
    ((place,),) = here.sql("SELECT place FROM batch_audit.archive_manifest WHERE kind = 'rows'")
    rows = pq.read_table(Path(place) / "data" / "rows" / "public.t.parquet")
    assert rows.select(["id", "name"]).to_pylist() == [
        {"id": 1, "name": "a"},
        {"id": 2, "name": "b"},
    ]
    states = here.sql("SELECT kind, state FROM batch_audit.archive_manifest ORDER BY id")
    # The ledger's own lines went behind the bags; the next run takes that bag, too.
    assert states == [("bag", "DELETED"), ("rows", "VALID"), ("records", "DELETED"),
                      ("records", "VALID")]  # fmt: skip
    assert [c.data_class for c in retain(here).of_state("DELETED")] == ["bags"]
    assert retain(here).chunks == ()
    assert actions(here)[-2:] == ["retention.nothing_eligible", "retention.done"]
    with pytest.raises(RollbackError, match="restore"):
        take_back(here, batch)


def test_lines_of_the_ledger_stand_in_their_bag_as_they_were(site18: MakeSite) -> None:
    here = site18(DDL, thresholds={})
    here.feed = with_rules(here.feed, quarantine=POLICY)
    here.load({"a.csv": "id,name\n1,a\nx,\\c\n"})
    lines = here.sql("SELECT to_jsonb(r) FROM batch_audit.import_reject r ORDER BY id")
    (chunk,) = retain(here).of_state("DELETED")
    file = Path(str(chunk.place)) / "data" / "records" / "import_reject.jsonl.zst"
    with zstandard.open(file, "rt", encoding="utf-8") as reading:
        assert [(json.loads(line),) for line in reading] == lines
    read = "SELECT details->>'purpose' FROM batch_audit.audit_event WHERE action = 'values.read'"
    assert here.sql(f"{read} ORDER BY seq DESC LIMIT 1") == [("archive",)]


def test_what_shows_rejects_with_their_values_shows_every_column(db: Connection) -> None:
    """Retention reads them through the view: what it does not show would be missing in the bag."""
    columns = """
        SELECT array_agg(attname ORDER BY attname) FROM pg_attribute
        WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped
    """
    for table, view in OPENED.items():
        shown, there = (
            db.execute(columns, (f"batch_audit.{n}",)).fetchone() for n in (view, table)
        )
        assert shown == there


def test_before_images_that_are_gone_end_the_time_for_rollbacks(site18: MakeSite) -> None:
    here = site18(DDL)
    here.feed = with_rules(
        upserting(here.feed, {"table": "public.t", "write": "upsert"}), before_images=POLICY
    )
    first = here.load({"a.csv": "id,name\n1,a\n"}, "a").batch_id
    second = here.load({"a.csv": "id,name\n1,b\n"}, "b").batch_id
    require_done(retain(here))
    assert here.count("SELECT count(*) FROM batch_audit.row_before_image") == 0
    with pytest.raises(RollbackError, match="could be rolled back until"):
        take_back(here, second)
    # Nothing waits for them any more.
    here.feed = with_rules(here.feed, rows=POLICY)
    require_done(retain(here))
    states = {b.batch_id: b.status for b in here.history()}
    assert states == {first: "ARCHIVED", second: "ARCHIVED"}
    assert here.count("SELECT count(*) FROM t") == 0


@pytest.mark.parametrize("cycle", [False, True], ids=["children before parents", "in a circle"])
def test_foreign_keys_among_a_batchs_own_tables_are_respected(
    site18: MakeSite, *, cycle: bool
) -> None:
    here = site18(
        """
        CREATE TABLE p (id int PRIMARY KEY, c int, import_batch_id uuid);
        CREATE TABLE c (id int PRIMARY KEY, p int REFERENCES p, import_batch_id uuid);
        """,
        {"public.p": "p*", "public.c": "c*"},
    )
    if cycle:
        here.sql("ALTER TABLE p ADD FOREIGN KEY (c) REFERENCES c DEFERRABLE INITIALLY DEFERRED")
    here.feed = with_rules(here.feed, rows=POLICY)
    here.load({"p.csv": "id,c\n1,5\n", "c.csv": "id,p\n5,1\n"})
    require_done(retain(here))
    assert [here.count(f"SELECT count(*) FROM {t}") for t in "pc"] == [0, 0]


def test_what_refers_goes_first_and_frees_what_it_refers_to(site18: MakeSite) -> None:
    here = site18(
        "CREATE TABLE t (id int PRIMARY KEY, parent int REFERENCES t, import_batch_id uuid);"
    )
    here.feed = with_rules(here.feed, rows=POLICY)
    here.load({"a.csv": "id,parent\n1,\n"}, "a")
    here.load({"a.csv": "id,parent\n2,1\n"}, "b")
    assert [each.goes for each in planned(here).values()] == [False, True]
    require_done(retain(here))
    assert {b.status for b in here.history()} == {"ARCHIVED"}


@pytest.mark.parametrize("data_class", ["rows", "quarantine"])
def test_a_damaged_archive_stops_the_delete_and_nothing_else(
    site18: MakeSite, data_class: str
) -> None:
    here = site18(DDL, thresholds={})
    here.feed = with_rules(here.feed, **{data_class: POLICY})
    content = "id,name\n1,a\nx,b\n"
    one = here.load({"a.csv": content}, "a").batch_id
    two = here.load({"a.csv": content.replace("1,", "2,")}, "b").batch_id

    def damage(place: str) -> str:
        if one in place:
            (file,) = [p for p in Path(place).glob("data/r*/*") if p.is_file()]
            whole = bytearray(file.read_bytes())
            whole[len(whole) // 2] ^= 1
            file.write_bytes(whole)
        return place

    with armed("retention.archived", damage):
        result = retain(here)
    assert [(c.batch_id, c.state) for c in result.chunks] == [(one, "FAILED"), (two, "DELETED")]
    assert "damaged" in str(result.chunks[0].reason)
    with pytest.raises(RetentionError, match="damaged"):
        require_done(result)
    left = {"rows": "SELECT import_batch_id FROM t",
            "quarantine": "SELECT batch_id FROM batch_audit.import_reject"}[data_class]  # fmt: skip
    assert [str(b) for (b,) in here.sql(left)] == [one]
    (alert,) = here.sql("SELECT kind, batch_id::text, resolved_at FROM batch_audit.alert")
    assert alert == ("retention", one, None)
    # What is damaged is not used again: another bag is written, and the alert is over.
    again = retain(here)
    assert [(c.batch_id, c.state) for c in again.chunks] == [(one, "DELETED")], again
    assert here.sql("SELECT resolved_at IS NULL FROM batch_audit.alert") == [(False,)]


def test_rows_changed_after_they_were_put_away_stay(site18: MakeSite) -> None:
    here = site18(DDL)
    here.feed = with_rules(here.feed, rows=POLICY)
    here.load({"a.csv": "id,name\n1,a\n"})

    def change(place: str) -> str:
        here.sql("UPDATE t SET name = 'by hand'")
        return place

    with armed("retention.archived", change):
        (failed,) = retain(here).of_state("FAILED")
    assert "has other rows" in str(failed.reason)
    assert here.rows() == [('{"id": 1, "name": "by hand"}',)]
    # As they are now, they are put away, and go.
    require_done(retain(here))
    assert here.rows() == []


@pytest.mark.parametrize("data_class", ["rows", "quarantine", "bags"])
def test_a_hold_set_after_the_plan_keeps_everything(site18: MakeSite, data_class: str) -> None:
    here = site18(DDL, thresholds={})
    here.feed = with_rules(here.feed, **{data_class: POLICY})
    batch = here.load({"a.csv": "id,name\n1,a\nx,b\n"}).batch_id
    bags = here.sql("SELECT place FROM batch_audit.archive_manifest WHERE kind = 'bag'")

    def hold(place: str) -> str:
        holds.set_hold(here.connection, Scope(batch_id=batch), reason="case 17", by="counsel")
        return place

    run = retention(here)
    if data_class == "bags":
        plan = run.planner.plan(here.connection)
        hold("")
        run._work(here.connection, plan[0])  # between plan and transaction
        states = ended(here)
        assert Path(bags[0][0]).is_dir()
    else:
        with armed("retention.archived", hold):
            run.run()
        states = ended(here)
    assert states == [(data_class, "KEPT")]
    assert here.count("SELECT count(*) FROM t") == 1
    assert here.count("SELECT count(*) FROM batch_audit.import_reject") == 1


def test_a_partition_that_a_run_works_on_is_left_alone(site18: MakeSite) -> None:
    here = site18(DDL)
    here.feed = with_rules(here.feed, rows=POLICY)
    here.load({"a.csv": "id,name\n1,a\n"}, "a")
    here.load({"a.csv": "id,name\n2,b\n"}, "b")
    with here.work("a"):
        result = retain(here)
    assert [(c.partition_key, c.state) for c in result.chunks] == [("a", "KEPT"), ("b", "DELETED")]
    assert "is being loaded by" in str(result.chunks[0].reason)


def test_it_starts_only_alone_and_by_the_right_clock(site18: MakeSite) -> None:
    here = site18(DDL)
    run = retention(here)
    with run._alone(), pytest.raises(BusyError, match="Another run"):
        run.run()
    wrong = retention(here)
    object.__setattr__(wrong.planner, "now", wrong.planner.now.replace(year=2050))
    with pytest.raises(RetentionError, match="Correct the clock"):
        wrong.run()
