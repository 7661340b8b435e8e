"""Write-audit-publish: with `publish: after_validation` nobody sees a batch before it has passed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from batch_pipelines.engine.bulk_write import bulk_write
from batch_pipelines.engine.errors import PublishError, ThresholdError, ValidationError
from batch_pipelines.engine.failpoints import armed
from batch_pipelines.engine.ledger import batches, proofs, rejects, staged_tables, stages
from batch_pipelines.engine.ledger.stages import STAGES
from batch_pipelines.engine.validate import require_valid, validate
from batch_pipelines.engine.verification.evidence import evidence_of, row_digests
from tests.support_engine import KEY, new_id
from tests.support_process import At, importing
from tests.support_rollback import take_back

if TYPE_CHECKING:
    from tests.engine.conftest import MakeSite
    from tests.support_engine import Site

DDL = """
CREATE TABLE p (id integer PRIMARY KEY, name text NOT NULL, import_batch_id uuid);
CREATE TABLE c (id integer PRIMARY KEY, parent integer NOT NULL REFERENCES p, host inet,
    amount numeric(10, 2) CHECK (amount > 0), import_batch_id uuid);
"""
TABLES = {"public.p": "p*", "public.c": "c*"}
WAP: dict[str, Any] = {"publish": "after_validation", "thresholds": {"rejected_rows": 3}}
FILES = {
    "p.csv": "id,name\n1,one\n2,two\n3,three\n",
    "c.csv": "id,parent,host,amount\n10,1,10.0.0.1,1.50\n11,2,10.0.0.2,2\n12,3,,3\n",
}
FIRST, REST = STAGES[:3], STAGES[3:]


def waiting_tables(site: Site) -> list[str]:
    found = site.sql(
        "SELECT tablename FROM pg_tables WHERE schemaname = 'batch_staging' ORDER BY 1"
    )
    return [name for (name,) in found]


def nothing_waits(site: Site) -> bool:
    ledger = site.count("SELECT count(*) FROM batch_audit.staged_table")
    return not ledger and not waiting_tables(site)


def status_of(site: Site, batch_id: str) -> str:
    return batches.by_id(site.connection, batch_id).status


@pytest.mark.versions
def test_rows_wait_in_logged_tables_until_they_are_validated(site: MakeSite) -> None:
    here = site(DDL, TABLES, **WAP)
    here.deliver(FILES)
    batch = here.run(stages=FIRST)
    assert batch.status == "IN_PROGRESS"
    assert here.rows("public.p") == here.rows("public.c") == []
    parent, child = staged_tables.of_batch(here.connection, batch.batch_id)[::-1]
    assert (parent.target_table, child.target_table) == ("public.p", "public.c")
    kept = here.sql(
        "SELECT relpersistence, array(SELECT grantee::regrole::text FROM aclexplode(nspacl) GROUP BY 1"
        " ORDER BY 1), relacl IS NULL FROM pg_class c"
        " JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = 'batch_staging'"
    )
    # Logged, and nobody but those who load may even look into the schema.
    assert set(map(str, kept)) == {str(("p", ["batch_owner", "batch_writer"], True))}
    assert here.count(f'SELECT count(*) FROM batch_staging."{child.name}"') == 3

    done = here.run(stages=REST)
    assert (done.batch_id, done.status) == (batch.batch_id, "SUCCESS")
    assert here.stamps("public.p") == here.stamps("public.c") == {batch.batch_id: 3}
    assert nothing_waits(here)
    (first, second) = proofs.validations(here.connection, batch.batch_id)
    for check in (*first.checks, *second.checks):
        assert check.status == "SUCCESS"
        # It can be run by hand, on the rows that are visible now.
        assert "batch_staging" not in check.sql
        if check.name == "record_count":
            assert here.sql(check.sql) == [(3,)]
    records = stages.of_batch(here.connection, batch.batch_id)
    assert {record.status for record in records.values()} == {"SUCCESS"}


def test_what_can_be_seen_is_what_a_direct_publish_would_have_left(site: MakeSite) -> None:
    here = site(DDL, TABLES, **WAP)
    here.load(FILES)
    found = here.rows("public.p"), here.rows("public.c")
    tables = proofs.tables(here.connection, here.newest().batch_id)
    here.sql("TRUNCATE p, c")
    here.feed = here.feed.model_copy(update={"publish": "direct"})
    direct = here.load(FILES, "another")
    assert (here.rows("public.p"), here.rows("public.c")) == found
    assert proofs.tables(here.connection, direct.batch_id) == tables


def test_rejects_are_kept_with_the_rows_that_wait_and_partial_success_follows(
    site18: MakeSite,
) -> None:
    site = site18(DDL, TABLES, **WAP)
    files = FILES | {"c.csv": FILES["c.csv"] + "13,9,,1\n14,1,,-1\n15,1,x,1\n"}
    site.deliver(files)
    batch = site.run(stages=FIRST)
    assert {r.record_number for r in rejects.of_batch(site.connection, batch.batch_id)} == {4, 5, 6}
    assert site.newest().rejected_records == 3
    assert site.run(stages=REST).status == "PARTIAL_SUCCESS"
    assert site.stamps("public.c") == {batch.batch_id: 3}
    assert {r.record_number for r in rejects.of_batch(site.connection, batch.batch_id)} == {4, 5, 6}


def test_too_many_rejects_stage_nothing(site18: MakeSite) -> None:
    site = site18(DDL, TABLES, **WAP | {"thresholds": {"rejected_rows": 0}})
    site.deliver(FILES | {"c.csv": FILES["c.csv"] + "13,9,,1\n"})
    with pytest.raises(ThresholdError, match="1 of 7 records cannot be loaded"):
        site.run()
    assert site.newest().status == "FAILED"
    assert nothing_waits(site)
    assert len(rejects.of_batch(site.connection, site.newest().batch_id)) == 1


def change_waiting(site: Site, sql: str) -> None:
    for name in waiting_tables(site):
        if name.endswith("_1"):
            site.sql(sql.format(f'batch_staging."{name}"'))


def test_a_failed_validation_publishes_nothing_and_keeps_what_it_found(site18: MakeSite) -> None:
    site = site18(DDL, TABLES, **WAP)
    site.deliver(FILES)
    batch = site.run(stages=FIRST)
    change_waiting(site, "UPDATE {} SET amount = 9 WHERE id = 11")
    with pytest.raises(ValidationError, match="Nothing was published: the rows that wait in"):
        site.run(stages=["validate"])
    now = site.newest()
    assert (now.batch_id, now.status) == (batch.batch_id, "FAILED")
    assert "public.c aggregates.amount" in (now.error_details or "")
    assert site.rows("public.p") == site.rows("public.c") == []
    stage = stages.of_batch(site.connection, batch.batch_id)["validate"]
    assert (stage.status, stage.error_details) == ("FAILED", now.error_details)
    found = proofs.validations(site.connection, batch.batch_id)[0]
    (failed,) = [check for check in found.checks if check.status == "FAILED"]
    # Where rows are refused they stay for whoever wants to know why, and the statement finds them.
    assert len(site.sql(failed.sql)) == 1
    assert found.rows is not None
    assert [(d.kind, d.key, d.columns) for d in found.rows.details] == [
        ("changed", {"id": "11"}, ["amount"])
    ]
    # The next delivery, or the same, starts anew; nothing is left of this one.
    again = site.run()
    assert again.status == "SUCCESS"
    assert again.batch_id != batch.batch_id
    assert nothing_waits(site)


def test_rows_changed_after_they_were_validated_are_not_published(site18: MakeSite) -> None:
    site = site18(DDL, TABLES, **WAP)
    site.deliver(FILES)
    batch = site.run(stages=FIRST)
    # No digest of the source covers an inet, which PostgreSQL has converted.
    change_waiting(site, "UPDATE {} SET host = '10.9.9.9' WHERE id = 10")
    with pytest.raises(PublishError, match="the rows that waited are not those that were staged"):
        site.run(stages=["validate"])
    assert site.newest().status == "FAILED"
    assert site.rows("public.c") == []
    # As the message says: one stage again, and then the rest.
    assert site.run(stages=["bulk_write", "validate", "archive"]).batch_id == batch.batch_id
    assert site.newest().status == "SUCCESS"


def test_conflicts_that_arose_since_are_quarantined_as_in_a_direct_publish(
    site18: MakeSite,
) -> None:
    site = site18(DDL, TABLES, **WAP)
    site.deliver(FILES)
    batch = site.run(stages=FIRST)
    site.sql("INSERT INTO p VALUES (2, 'by hand'); INSERT INTO c VALUES (10, 2)")
    assert site.run(stages=REST).status == "PARTIAL_SUCCESS"
    now = site.newest()
    assert (now.written_records, now.rejected_records) == (4, 2)
    found = {
        (r.target_table, r.record_number) for r in rejects.of_batch(site.connection, now.batch_id)
    }
    assert found == {("public.p", 2), ("public.c", 1)}
    assert site.stamps("public.p") == {None: 1, batch.batch_id: 2}
    parents = {t.target_table: t for t in proofs.tables(site.connection, now.batch_id)}["public.p"]
    assert (parents.inserted, parents.rejected) == (2, 1)
    assert nothing_waits(site)
    # Its bag has the digests of the rows that were published, as `verify` wants them.
    with evidence_of(site.connection, site.settings, now.batch_id) as evidence:
        assert evidence.bag is not None
        assert row_digests(site.connection, evidence, now.batch_id, "public.c")


def test_conflicts_that_arose_since_fail_it_where_the_feed_says_so(site18: MakeSite) -> None:
    site = site18(DDL, TABLES, **WAP)
    tables = tuple(t.model_copy(update={"conflict": "fail"}) for t in site.feed.tables)
    site.feed = site.feed.model_copy(update={"tables": tables})
    site.deliver(FILES)
    site.run(stages=FIRST)
    site.sql("INSERT INTO p VALUES (2, 'by hand')")
    with pytest.raises(PublishError, match="the feed says `conflict: fail`"):
        site.run(stages=["validate"])
    assert site.newest().status == "FAILED"
    assert site.rows("public.c") == []
    # Mended: the rows wait still.
    site.sql("DELETE FROM p")
    assert site.run(stages=REST).status == "SUCCESS"


def test_too_many_conflicts_since_publish_nothing(site18: MakeSite) -> None:
    site = site18(DDL, TABLES, **WAP | {"thresholds": {"rejected_rows": 1}})
    site.deliver(FILES)
    site.run(stages=FIRST)
    site.sql("INSERT INTO p SELECT n, 'by hand' FROM generate_series(1, 2) AS n")
    with pytest.raises(ThresholdError, match="2 of 6 records cannot be loaded"):
        site.run(stages=["validate"])
    assert site.newest().status == "FAILED"
    assert site.stamps("public.p") == {None: 2}


def test_what_a_trigger_refuses_is_found_at_the_publish(site18: MakeSite) -> None:
    trigger = (
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'no'; END$$;"
        "CREATE TRIGGER no BEFORE INSERT ON c FOR EACH ROW WHEN (NEW.id = 11) EXECUTE FUNCTION no()"
    )
    site = site18(DDL + trigger, TABLES, **WAP)
    batch = site.load(FILES)
    assert batch.status == "PARTIAL_SUCCESS"
    assert [r.record_number for r in rejects.of_batch(site.connection, batch.batch_id)] == [2]
    assert site.stamps("public.c") == {batch.batch_id: 2}


def test_what_a_trigger_makes_of_rows_at_the_publish_is_found_in_every_column(
    site18: MakeSite,
) -> None:
    trigger = (
        "CREATE FUNCTION forget() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN NEW.host := NULL; RETURN NEW; END';"
        "CREATE TRIGGER forgets BEFORE INSERT ON c FOR EACH ROW EXECUTE FUNCTION forget()"
    )
    site = site18(DDL + trigger, TABLES, **WAP)
    site.deliver(FILES)
    with pytest.raises(
        PublishError, match=r"public\.c: the stored rows differ from those that were staged"
    ):
        site.run()
    assert site.newest().status == "FAILED"
    assert site.rows("public.p") == site.rows("public.c") == []


PLACES = [
    "staging.before_check", "staging.before_fence", "staging.before_commit", "staging.after_commit",
    "bulk_write.before_check", "bulk_write.before_fence", "bulk_write.before_commit",
    "bulk_write.after_commit",
]  # fmt: skip


@pytest.mark.parametrize("how", ["the whole run again", "from the stage that failed"])
def test_killed_anywhere_it_is_seen_whole_or_not_at_all_and_completes(
    site18: MakeSite, how: str
) -> None:
    site = site18(DDL, TABLES, **WAP)
    # What a whole run does is the same wherever in a step the one before it died.
    for number, place in enumerate(PLACES[3::2] if how == "the whole run again" else PLACES):
        # Each one corrects the one before.
        before = site.stamps("public.c"), site.stamps("public.p")
        site.deliver(FILES | {"c.csv": f"id,parent,host,amount\n{number},1,10.0.0.1,1\n99,2,,\n"})
        run = new_id()
        with importing(site, run, at=At(place)) as child:
            assert child.outcome() is None
        published = place == "bulk_write.after_commit"
        now = site.stamps("public.c"), site.stamps("public.p")
        assert now == (({run: 2}, {run: 3}) if published else before)
        if how == "the whole run again":
            done = site.run()
        elif place == "staging.after_commit" or place.startswith("bulk_write"):
            # What waits is there, and nothing has to be read again.
            done = site.run(stages=REST)
            assert done.batch_id == run
        else:
            done = site.run(stages=["bulk_write", *REST])
            assert done.batch_id == run
        assert site.newest().status == "SUCCESS"
        own = done.duplicate_of or done.batch_id
        assert (site.stamps("public.c"), site.stamps("public.p")) == ({own: 2}, {own: 3})
        assert nothing_waits(site)
        assert not [b for b in site.history() if b.status == "IN_PROGRESS"]
        assert [*site.settings.staging.iterdir()] == []


def upserting(site: Site) -> None:
    tables = tuple(t.model_copy(update={"write": "upsert"}) for t in site.feed.tables)
    site.feed = site.feed.model_copy(update={"tables": tables})


def test_an_upsert_takes_its_images_when_it_publishes(site18: MakeSite) -> None:
    site = site18(DDL, TABLES, **WAP)
    upserting(site)
    site.sql("INSERT INTO p VALUES (1, 'old'), (7, 'seven')")
    site.deliver(FILES)
    batch = site.run(stages=FIRST)
    site.sql("UPDATE p SET name = 'newer' WHERE id = 1")
    assert site.run(stages=REST).status == "SUCCESS"
    images = site.sql("SELECT image ->> 'name' FROM batch_audit.row_before_image")
    assert images == [("newer",)]
    (parents,) = [
        t for t in proofs.tables(site.connection, batch.batch_id) if t.target_table == "public.p"
    ]
    assert (parents.inserted, parents.updated) == (2, 1)


def test_a_correction_replaces_at_the_publish_and_not_before(site18: MakeSite) -> None:
    site = site18(DDL, TABLES, **WAP)
    first = site.load(FILES)
    before = site.rows("public.c")
    site.deliver(FILES | {"c.csv": "id,parent,host,amount\n10,1,10.0.0.1,7\n13,3,,3\n"})
    second = site.run(stages=FIRST)
    assert site.rows("public.c") == before
    assert status_of(site, first.batch_id) == "SUCCESS"
    assert site.run(stages=REST).status == "SUCCESS"
    assert site.stamps("public.c") == {second.batch_id: 2}
    assert status_of(site, first.batch_id) == "SUPERSEDED"


def test_a_correction_that_fails_leaves_the_earlier_batch_in_force(site18: MakeSite) -> None:
    site = site18(DDL, TABLES, **WAP)
    first = site.load(FILES)
    before = site.rows("public.c")
    site.deliver(FILES | {"c.csv": "id,parent,host,amount\n10,1,10.0.0.1,7\n"})
    site.run(stages=FIRST)
    change_waiting(site, "DELETE FROM {}")
    with pytest.raises(ValidationError, match="Nothing was published"):
        site.run(stages=["validate"])
    assert site.rows("public.c") == before
    assert status_of(site, first.batch_id) == "SUCCESS"
    in_force = batches.in_force(site.connection, site.feed.feed, KEY)
    assert in_force is not None
    assert in_force.batch_id == first.batch_id


def test_a_target_changed_meanwhile_is_noticed(site18: MakeSite) -> None:
    site = site18(DDL, TABLES, **WAP)
    site.deliver(FILES)
    site.run(stages=FIRST)
    site.sql("ALTER TABLE c ALTER amount TYPE numeric(12, 2)")
    with pytest.raises(PublishError, match="has been changed since its rows were staged"):
        site.run(stages=["validate"])
    assert site.run(stages=["bulk_write", "validate", "archive"]).status == "SUCCESS"


def test_staged_again_nothing_is_left_of_the_first_time(site18: MakeSite) -> None:
    site = site18(DDL, TABLES, **WAP)
    site.deliver(FILES)
    site.run(stages=FIRST)
    first = waiting_tables(site)
    site.run(stages=["bulk_write"])
    assert waiting_tables(site) == first
    # A whole run is a batch of its own; the one that waited has failed, and its rows are gone.
    assert site.run().status == "SUCCESS"
    assert [b.status for b in site.history()] == ["FAILED", "SUCCESS"]
    assert nothing_waits(site)


def test_a_lost_lease_stages_and_publishes_nothing(site18: MakeSite) -> None:
    site = site18(DDL, TABLES, **WAP)
    site.deliver(FILES)

    def take_over(value: object) -> object:
        site.sql("UPDATE batch_audit.batch_lease SET token = token + 1")
        return value

    with (
        armed("staging.before_fence", take_over),
        pytest.raises(Exception, match="no longer holds"),
    ):
        site.run()
    assert nothing_waits(site)
    with (
        armed("bulk_write.before_fence", take_over),
        pytest.raises(Exception, match="no longer holds"),
    ):
        site.run()
    assert site.rows("public.c") == []


def mend(site: Site) -> None:
    site.sql("INSERT INTO p VALUES (9, 'nine')")


def replay(site: Site) -> None:
    with site.work() as (connection, work):
        bulk_write(connection, work, replay=True)


def test_what_is_replayed_waits_too(site18: MakeSite) -> None:
    site = site18(DDL, TABLES, **WAP)
    batch = site.load(FILES | {"c.csv": FILES["c.csv"] + "13,9,10.0.0.3,1\n14,1,,-1\n"})
    assert batch.status == "PARTIAL_SUCCESS"
    mend(site)
    replay(site)
    assert site.stamps("public.c") == {batch.batch_id: 3}
    assert status_of(site, batch.batch_id) == "PUBLISHED"
    assert site.newest().rejected_records == 2
    done = site.run(stages=REST)
    assert (done.batch_id, done.status, done.rejected_records) == (
        batch.batch_id,
        "PARTIAL_SUCCESS",
        1,
    )
    assert site.stamps("public.c") == {batch.batch_id: 4}
    assert nothing_waits(site)
    found = proofs.validations(site.connection, batch.batch_id)[0]
    assert (found.src_records, found.tgt_records) == (4, 4)
    assert site.sql(found.checks[0].sql) == [(4,)]
    records = stages.of_batch(site.connection, batch.batch_id)
    assert {record.status for record in records.values()} == {"SUCCESS"}


def test_a_replay_that_fails_validation_leaves_the_batch_as_it_was(site18: MakeSite) -> None:
    site = site18(DDL, TABLES, **WAP)
    batch = site.load(FILES | {"c.csv": FILES["c.csv"] + "13,9,10.0.0.3,1\n"})
    before = site.rows("public.c")
    mend(site)
    replay(site)
    for name in waiting_tables(site):
        site.sql(f'UPDATE batch_staging."{name}" SET amount = 5')
    with (
        site.work() as (connection, work),
        pytest.raises(ValidationError, match="Nothing was replayed"),
    ):
        require_valid(validate(connection, work))
    now = site.newest()
    assert (now.batch_id, now.status, now.rejected_records) == (
        batch.batch_id,
        "PARTIAL_SUCCESS",
        1,
    )
    assert site.rows("public.c") == before
    assert nothing_waits(site)
    replay(site)
    assert site.run(stages=REST).status == "SUCCESS"
    assert site.stamps("public.c") == {batch.batch_id: 4}


def test_a_feed_that_says_otherwise_meanwhile_publishes_at_once_and_forgets_what_waits(
    site18: MakeSite,
) -> None:
    site = site18(DDL, TABLES, **WAP)
    site.deliver(FILES | {"c.csv": FILES["c.csv"] + "13,9,10.0.0.3,1\n"})
    batch = site.run(stages=FIRST)
    site.feed = site.feed.model_copy(update={"publish": "direct"})
    assert site.run(stages=["bulk_write"]).status == "PUBLISHED"
    assert nothing_waits(site)
    assert site.run(stages=REST).status == "PARTIAL_SUCCESS"
    # What waits is published by validate, whatever the feed says by then.
    mend(site)
    site.feed = site.feed.model_copy(update={"publish": "after_validation"})
    replay(site)
    site.feed = site.feed.model_copy(update={"publish": "direct"})
    assert site.run(stages=REST).status == "SUCCESS"
    assert site.stamps("public.c") == {batch.batch_id: 4}


def test_a_rollback_takes_what_waits_along(site18: MakeSite) -> None:
    site = site18(DDL, TABLES, **WAP)
    batch = site.load(FILES | {"c.csv": FILES["c.csv"] + "13,9,10.0.0.3,1\n"})
    mend(site)
    replay(site)
    take_back(site, batch.batch_id)
    assert nothing_waits(site)
    assert site.stamps("public.p") == {None: 1}
    assert site.stamps("public.c") == {}


@pytest.mark.parametrize("audit", ["file", "row"])
def test_lines_of_json_with_columns_of_their_own_wait_with_their_defaults(
    site18: MakeSite, audit: str
) -> None:
    ddl = """
    CREATE TABLE t (id integer PRIMARY KEY, kind text DEFAULT 'plain', doc jsonb,
        at timestamptz DEFAULT clock_timestamp(), import_batch_id uuid)
    """
    site = site18(ddl, **WAP, audit=audit)
    lines = [
        {"id": 1, "kind": "x", "doc": {"a": 1}},
        {"id": 2},
        {"id": 3, "at": "2024-05-01T00:00Z"},
    ]
    site.deliver({"a.jsonl": "".join(f"{json.dumps(line)}\n" for line in lines)})
    batch = site.run(stages=FIRST)
    (waiting,) = waiting_tables(site)
    before = site.sql(f'SELECT id, kind, doc, at FROM batch_staging."{waiting}" ORDER BY id')
    assert site.run(stages=REST).status == "SUCCESS"
    # A default is taken once, and what was validated is what is published.
    assert site.sql("SELECT id, kind, doc, at FROM t ORDER BY id") == before
    rows = (
        "SELECT count(*) FROM batch_audit.crc32_audit WHERE entity_type = 'row' AND batch_id = %s"
    )
    assert site.count(rows, batch.batch_id) == (3 if audit == "row" else 0)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"on_validation_failure": "roll_back"}, "nothing is visible"),
        ({"tables": "none"}, "nothing that `publish` could be about"),
        (
            {"tables": [{"table": "public.t", "write": "none", "batch_column": "job"}]},
            "nothing is written",
        ),
    ],
)
def test_what_cannot_be_is_said_when_the_feed_is_read(
    site18: MakeSite, more: dict[str, Any], message: str
) -> None:
    feed = site18("").feed.model_dump(mode="json", by_alias=True, exclude_unset=True)
    feed.pop("thresholds")
    with pytest.raises(ValueError, match=message):
        type(site18("").feed).model_validate(feed | {"publish": "after_validation"} | more)
