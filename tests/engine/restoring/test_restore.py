"""Rows of an archived batch come back as they were, all of them, or a plan says why none does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from batch_pipelines.engine.archiving.rows.reading import rows_bag
from batch_pipelines.engine.errors import ArchiveError, BatchError, RestoreError
from batch_pipelines.engine.feeds import Feed
from batch_pipelines.engine.ledger import batches
from batch_pipelines.engine.restoring.plan import RefusedRestoreError
from batch_pipelines.engine.rollback import Request, roll_back
from tests.engine.archiving.test_rows import EVERY_TYPE, VALUES
from tests.engine.restoring.support import bring_back, everything, put_away
from tests.engine.verification.support_verify import verify

if TYPE_CHECKING:
    from tests.engine.conftest import MakeSite
    from tests.support_engine import Site

pytestmark = pytest.mark.versions

DDL = "CREATE TABLE t (id int PRIMARY KEY, note text, import_batch_id uuid)"
ROWS = "id,note\n" + "".join(f"{n},note {n}\n" for n in range(100))
FAMILY = """
CREATE TABLE p (id int PRIMARY KEY, boss int REFERENCES p, import_batch_id uuid);
CREATE TABLE c (id int PRIMARY KEY, p int NOT NULL REFERENCES p, note text DEFAULT 'none',
                import_batch_id uuid)
"""
BEFORE_INSERT = """
CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {} END $$;
CREATE TRIGGER f BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()
"""


def family(make: MakeSite) -> Site:
    return make(FAMILY, {"public.c": "c*", "public.p": "p*"})


def events(site: Site) -> list[tuple[object, ...]]:
    return site.sql(
        "SELECT action, status FROM batch_audit.audit_event WHERE action LIKE 'batch.restore%' "
        "ORDER BY created_at"
    )


def test_every_value_comes_back(site: MakeSite) -> None:
    """Given columns of any type, generated and identity ones, the rows are byte for byte as before."""
    here = site(EVERY_TYPE)
    batch = here.load({"a.csv": "id\n1\n2\n3\n"})
    here.sql(VALUES)
    sent = "SELECT t::text, record_send(t) FROM t ORDER BY id"
    before = here.sql(sent)
    archived = put_away(here, batch)
    assert (archived.status, here.count("SELECT count(*) FROM t")) == ("ARCHIVED", 0)
    restored = bring_back(here, archived)
    assert here.sql(sent) == before
    assert (restored.batch.status, restored.refusal) == ("SUCCESS", None)
    assert restored.plan is not None
    assert "changed since they were loaded" in restored.plan.tables[0].notes[-1]


def test_a_batch_of_several_tables_comes_back_in_one_transaction(site18: MakeSite) -> None:
    """Given tables that refer to each other and to themselves, parents come before children."""
    here = family(site18)
    batch = here.load({"p.csv": "id,boss\n2,1\n1,\n", "c.csv": "id,p\n1,1\n2,2\n"})
    here.sql("INSERT INTO p (id) VALUES (9)")
    before = everything(here, "p", "c")
    archived = put_away(here, batch)
    bring_back(here, archived)
    assert everything(here, "p", "c") == before
    now = batches.by_id(here.connection, batch.batch_id)
    assert now == batch
    assert [step for step, _ in events(here)] == ["batch.restore.started", "batch.restore.done"]
    assert verify(here, now).status == "SUCCESS"
    # It is as any batch in force: it can be taken back, though somebody looks at who wrote its rows.
    feeds = {here.feed.feed: here.feed}
    roll_back(here.database, here.settings, feeds, Request((batch.batch_id,), "again", "a test"))
    assert everything(here, "p", "c") == [[("p", "(9,,)")], []]


def test_restoring_again_changes_nothing(site18: MakeSite) -> None:
    here = site18(DDL)
    batch = here.load({"a.csv": ROWS})
    archived = put_away(here, batch)
    first, again = bring_back(here, archived), bring_back(here, archived)
    assert first.plan is not None
    assert again.plan is None
    assert here.stamps() == {batch.batch_id: 100}


def test_a_dry_run_tells_the_plan_and_changes_nothing(site18: MakeSite) -> None:
    here = site18(DDL)
    archived = put_away(here, here.load({"a.csv": ROWS}))
    planned = bring_back(here, archived, dry_run=True)
    assert planned.plan is not None
    assert [(t.full_name, t.rows) for t in planned.plan.tables] == [("public.t", 100)]
    assert (planned.plan.status, planned.refusal) == ("SUCCESS", None)
    assert batches.by_id(here.connection, archived.batch_id) == archived
    assert (here.rows(), events(here)) == ([], [])


@pytest.mark.parametrize(
    ("meanwhile", "kind", "said"),
    [
        ("INSERT INTO c (id, p) VALUES (1, 9)", "taken", "1 rows have a key (c_pkey)"),
        ("DROP TABLE c", "table", "is gone"),
        ("ALTER TABLE c DROP note", "column", "column note (text) is gone"),
        ("ALTER TABLE c ALTER note TYPE varchar(9)", "column", "was text"),
        ("ALTER TABLE c ADD more int NOT NULL", "column", "column more was added"),
        ("CREATE UNIQUE INDEX ones ON c ((id + 1)) WHERE p > 0; INSERT INTO c VALUES (2, 9)", "taken",
         "(ones)"),
    ],
)  # fmt: skip
def test_what_would_collide_is_refused_with_a_plan(
    site18: MakeSite, meanwhile: str, kind: str, said: str
) -> None:
    here = family(site18)
    archived = put_away(
        here, here.load({"p.csv": "id,boss\n1,\n2,1\n", "c.csv": "id,p\n1,1\n2,2\n"})
    )
    here.sql("INSERT INTO p (id) VALUES (9)")
    here.sql(meanwhile)
    left = here.sql("SELECT * FROM p")
    planned = bring_back(here, archived, dry_run=True)
    assert planned.plan is not None
    assert planned.refusal == planned.plan.refusal()
    assert kind in {obstacle.kind for obstacle in planned.plan.obstacles}
    assert said in str(planned.refusal)
    with pytest.raises(RefusedRestoreError):
        bring_back(here, archived)
    assert here.sql("SELECT * FROM p") == left
    assert batches.by_id(here.connection, archived.batch_id) == archived
    assert events(here)[-1] == ("batch.restore.refused", "FAILED")


def test_rows_whose_parents_are_gone_are_counted(site18: MakeSite) -> None:
    here = family(site18)
    here.sql("INSERT INTO p (id) VALUES (9)")
    archived = put_away(here, here.load({"p.csv": "id,boss\n1,\n", "c.csv": "id,p\n1,1\n2,9\n"}))
    here.sql("DELETE FROM p")
    with pytest.raises(
        RefusedRestoreError, match=r"1 rows refer \(c_p_fkey\) to rows of public\.p"
    ):
        bring_back(here, archived)


def test_a_partition_that_was_delivered_again_keeps_its_newer_batch(site18: MakeSite) -> None:
    here = site18(DDL)
    archived = put_away(here, here.load({"a.csv": ROWS}))
    newer = here.load({"a.csv": "id,note\n1000,new\n"})
    with pytest.raises(RestoreError, match=newer.batch_id):
        bring_back(here, archived)
    assert here.stamps() == {newer.batch_id: 1}


@pytest.mark.parametrize(
    "meanwhile",
    [
        BEFORE_INSERT.format("NEW.note = 'x'; RETURN NEW;"),
        BEFORE_INSERT.format("RETURN NULL;"),
        "ALTER TABLE t ADD CHECK (id <> 50)",
    ],
)
def test_what_does_not_come_back_as_it_was_does_not_come_back(
    site18: MakeSite, meanwhile: str
) -> None:
    """Given triggers or constraints of today that make others of the rows, nothing is changed."""
    here = site18(DDL)
    archived = put_away(here, here.load({"a.csv": ROWS}))
    here.sql(meanwhile)
    with pytest.raises(RestoreError, match="hing was changed"):
        bring_back(here, archived)
    assert here.rows() == []
    assert batches.by_id(here.connection, archived.batch_id) == archived


def test_columns_that_were_added_get_their_defaults_and_triggers_are_named(
    site18: MakeSite,
) -> None:
    here = site18(DDL)
    archived = put_away(here, here.load({"a.csv": ROWS}))
    here.sql(
        "ALTER TABLE t ADD more text DEFAULT 'new'; CREATE TABLE seen (n int);"
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO seen VALUES (1);"
        " RETURN NULL; END $$; CREATE TRIGGER tells AFTER INSERT ON t FOR EACH STATEMENT"
        " EXECUTE FUNCTION f()"
    )
    restored = bring_back(here, archived)
    assert restored.plan is not None
    notes = " ".join(restored.plan.tables[0].notes)
    assert "column more was added" in notes
    assert "trigger tells fires" in notes
    assert here.sql("SELECT DISTINCT more FROM t") == [("new",)]


def test_a_damaged_bag_brings_nothing_back(site18: MakeSite) -> None:
    here = site18(DDL)
    archived = put_away(here, here.load({"a.csv": ROWS}))
    bag = rows_bag(here.connection, here.settings, archived.batch_id)
    assert bag is not None
    path = Path(bag.record.place) / "data/rows/public.t.parquet"
    content = bytearray(path.read_bytes())
    content[100] ^= 4
    path.write_bytes(content)
    with pytest.raises(ArchiveError, match="damaged"):
        bring_back(here, archived)
    assert here.rows() == []


def test_only_an_archived_batch_is_restored(site18: MakeSite) -> None:
    here = site18(DDL)
    old = here.load({"a.csv": ROWS})
    here.load({"a.csv": "id,note\n1,a\n"})
    with pytest.raises(RestoreError, match="has taken its place"):
        bring_back(here, old)
    with pytest.raises(BatchError):
        bring_back(
            here, batches.imagined(Feed.model_validate(here.feed.model_dump()), "x", "0" * 32)
        )
