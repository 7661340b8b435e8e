"""Given batches of all kinds, when one is taken back, then the tables are as if it had never been."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batch_pipelines.engine.errors import RollbackError
from batch_pipelines.engine.ledger import batches, rollbacks
from batch_pipelines.engine.rollback import verify
from batch_pipelines.engine.rollback.takeback import RefusedError
from tests.support_engine import KEY
from tests.support_rollback import content, planned, take_back, upserting

if TYPE_CHECKING:
    from tests.engine.conftest import MakeSite
    from tests.support_engine import Site

FAMILY = """
CREATE TABLE parents (id int PRIMARY KEY, name text, import_batch_id uuid);
CREATE TABLE children (id int PRIMARY KEY, parent int REFERENCES parents, note text DEFAULT 'none',
    import_batch_id uuid);
CREATE INDEX ON parents (import_batch_id);
CREATE INDEX ON children (import_batch_id);
"""
BOTH = {"public.parents": "p*", "public.children": "c*"}
ITEMS = """
CREATE TABLE items (id int PRIMARY KEY, code text UNIQUE, price numeric(8,2), note text,
    import_batch_id uuid);
CREATE INDEX ON items (import_batch_id);
"""


def items(make: MakeSite, **more: object) -> Site:
    site = make(ITEMS, {"public.items": "*"}, thresholds={})
    site.feed = upserting(site.feed, {"table": "public.items", "write": "upsert"}, **more)
    return site


def family(first: int, count: int) -> dict[str, str]:
    numbers = range(first, first + count)
    return {
        "p.csv": "id,name\n" + "".join(f"{n},name {n}\n" for n in numbers),
        "c.csv": "id,parent\n" + "".join(f"{n},{n}\n" for n in numbers),
    }


def test_inserted_rows_of_all_tables_go(site: MakeSite) -> None:
    here = site(FAMILY, BOTH)
    here.sql("INSERT INTO parents VALUES (1000, 'by hand')")
    other = here.load(family(100, 5), key="other")
    before = content(here, "parents", "children")
    batch = here.load(family(1, 10))
    found = planned(here, batch.batch_id)
    assert found.refusal is None
    assert [(t.target_table, t.delete) for t in found.plans[0].tables] == [
        ("public.parents", 10), ("public.children", 10),
    ]  # fmt: skip
    assert here.count("SELECT count(*) FROM parents") == 16
    done = take_back(here, batch.batch_id)
    assert content(here, "parents", "children") == before
    assert [(t.target_table, t.deleted) for t in done.done[0].tables] == [
        ("public.parents", 10), ("public.children", 10),
    ]  # fmt: skip
    now = batches.by_id(here.connection, batch.batch_id)
    assert (now.status, now.rolled_back_by, now.rollback_reason) == (
        "ROLLED_BACK", "a tester", "a test",
    )  # fmt: skip
    assert now.rolled_back_at is not None
    assert verify(here.connection, batch.batch_id).failed == ()
    assert batches.by_id(here.connection, other.batch_id).status == "SUCCESS"
    events = here.sql(
        "SELECT action, status, principal_id FROM batch_audit.audit_event"
        " WHERE resource_id = %s AND action LIKE 'batch.rollback.%%' ORDER BY seq",
        batch.batch_id,
    )
    assert events == [
        ("batch.rollback.started", "IN_PROGRESS", "a tester"),
        ("batch.rollback.done", "SUCCESS", "a tester"),
    ]


def test_it_is_done_once(site18: MakeSite) -> None:
    here = site18(FAMILY, BOTH)
    batch = here.load(family(1, 3))
    take_back(here, batch.batch_id)
    again = take_back(here, batch.batch_id)
    assert (again.done, [b.batch_id for b in again.already]) == ((), [batch.batch_id])


def test_the_same_delivery_can_be_imported_again(site18: MakeSite) -> None:
    here = site18(FAMILY, BOTH)
    batch = here.load(family(1, 3))
    whole = content(here, "parents", "children")
    take_back(here, batch.batch_id)
    again = here.load(family(1, 3))
    assert (again.status, again.duplicate_of) == ("SUCCESS", None)
    assert str(content(here, "parents", "children")).replace(again.batch_id, "x") == str(
        whole
    ).replace(batch.batch_id, "x")


def test_an_upsert_gives_back_what_it_overwrote(site: MakeSite) -> None:
    here = items(site)
    here.sql("INSERT INTO items VALUES (1, 'a', 1.5, 'note'), (2, NULL, 2, NULL), (9, 'z', 9, 'z')")
    before = content(here, "items")
    batch = here.load({"a.csv": "id,code,price\n1,b,7\n2,d,8\n3,c,3\n"})
    assert here.stamps("items") == {batch.batch_id: 3, None: 1}
    found = planned(here, batch.batch_id).plans[0].tables[0]
    assert (found.delete, found.restore) == (1, 2)
    done = take_back(here, batch.batch_id).done[0].tables[0]
    assert (done.deleted, done.restored, done.differing) == (1, 2, 0)
    assert content(here, "items") == before
    assert here.count("SELECT count(*) FROM batch_audit.row_before_image") == 0


def test_a_later_upsert_stands_in_the_way_goes_too_or_stays(site18: MakeSite) -> None:
    here = items(site18)
    here.sql("INSERT INTO items VALUES (1, 'a', 1, 'x')")
    untouched = content(here, "items")
    first = here.load({"a.csv": "id,price\n1,10\n2,20\n3,30\n"}, key="one")
    second = here.load({"a.csv": "id,price\n1,11\n2,22\n"}, key="two")
    with pytest.raises(RefusedError, match=second.batch_id) as refused:
        take_back(here, first.batch_id)
    assert "--cascade" in str(refused.value)
    assert batches.by_id(here.connection, first.batch_id).status == "SUCCESS"
    # A dry run of a cascade tells of both, and does neither.
    found = planned(here, first.batch_id, cascade=True)
    assert [p.batch.batch_id for p in found.plans] == [second.batch_id, first.batch_id]
    assert here.stamps("items") == {first.batch_id: 1, second.batch_id: 2}
    take_back(here, first.batch_id, keep_touched=True)
    assert here.sql("SELECT id, price::int FROM items ORDER BY id") == [(1, 11), (2, 22)]
    # Nothing of the first comes back with the second's rollback.
    take_back(here, second.batch_id)
    assert content(here, "items") == untouched


def test_a_cascade_takes_newer_batches_first(site18: MakeSite) -> None:
    here = items(site18)
    here.sql("INSERT INTO items VALUES (1, 'a', 1, 'x')")
    untouched = content(here, "items")
    ids = [
        here.load({"a.csv": f"id,price\n1,1{n}\n{n},2\n"}, key=f"k{n}").batch_id for n in (5, 6, 7)
    ]
    apart = here.load({"a.csv": "id,price\n100,1\n"}, key="apart").batch_id
    done = take_back(here, ids[0], cascade=True)
    assert [d.batch.batch_id for d in done.done] == ids[::-1]
    here.sql("DELETE FROM items WHERE id = 100")
    assert content(here, "items") == untouched
    assert batches.by_id(here.connection, apart).status == "SUCCESS"


def test_batches_that_depend_on_each_other_are_refused_by_a_cascade(site18: MakeSite) -> None:
    here = items(site18)
    here.sql("ALTER TABLE items ADD COLUMN part_of int REFERENCES items")
    first = here.load({"a.csv": "id,price\n1,10\n3,30\n"}, key="one").batch_id
    second = here.load({"a.csv": "id,price\n1,11\n2,22\n"}, key="two").batch_id
    here.sql("UPDATE items SET part_of = 2 WHERE id = 3")
    before = content(here, "items")
    for batch, other in ((first, second), (second, first)):
        with pytest.raises(
            RefusedError, match=f"batch {batch} and are depended on by it"
        ) as refused:
            take_back(here, batch, cascade=True)
        assert f"Batch {other}" in str(refused.value)
        assert planned(here, batch, cascade=True).refusal is not None
    assert content(here, "items") == before
    take_back(here, second, keep_touched=True)
    assert batches.by_id(here.connection, second).status == "ROLLED_BACK"


@pytest.mark.parametrize("brought", ["id,code,price,note", "id,price"])
def test_a_row_changed_by_hand_is_never_taken(site: MakeSite, brought: str) -> None:
    here = items(site)
    values = {"id": "{}", "code": "c{}", "price": "{}0", "note": "n"}
    line = ",".join(values[name] for name in brought.split(","))
    rows = "".join(line.replace("{}", str(n)) + "\n" for n in (1, 2, 3))
    batch = here.load({"a.csv": f"{brought}\n{rows}"})
    # Writing the same again is no change, though PostgreSQL takes it for one.
    here.sql("UPDATE items SET price = price WHERE id = 1")
    assert planned(here, batch.batch_id).refusal is None
    here.sql("UPDATE items SET note = '77' WHERE id = 2")
    for cascade in (False, True):
        with pytest.raises(RefusedError, match="changed by hand") as refused:
            take_back(here, batch.batch_id, cascade=cascade)
        assert "--cascade" not in str(refused.value)
    done = take_back(here, batch.batch_id, keep_touched=True)
    left = here.sql("SELECT id, import_batch_id FROM items ORDER BY id")
    # Of a column that was not brought, no single row's digest is known.
    assert left == ([(2, None)] if "note" in brought else [(1, None), (2, None)])
    assert done.done[0].tables[0].kept == len(left)
    assert verify(here.connection, batch.batch_id).failed == ()


def test_a_hand_edit_below_a_later_upsert_is_kept(site18: MakeSite) -> None:
    here = items(site18)
    first = here.load({"a.csv": "id,code,price,note\n1,a,10,n\n2,b,20,n\n"}, key="one")
    here.sql("UPDATE items SET note = 'by hand' WHERE id = 1")
    second = here.load({"a.csv": "id,code,price,note\n1,a,11,m\n2,b,21,m\n"}, key="two")
    take_back(here, first.batch_id, keep_touched=True)
    take_back(here, second.batch_id)
    assert here.sql("SELECT id, note, import_batch_id FROM items") == [(1, "by hand", None)]


def test_rows_outside_that_refer_stand_in_the_way(site18: MakeSite) -> None:
    for action in ("NO ACTION", "CASCADE", "SET NULL", "SET DEFAULT", "RESTRICT"):
        here = site18(
            FAMILY.replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS")
            + "DROP TABLE IF EXISTS outside; CREATE TABLE outside (id int PRIMARY KEY, parent int"
            f" DEFAULT 0 REFERENCES parents ON DELETE {action});",
            BOTH,
        )
        batch = here.load(family(1, 3), key=action.replace(" ", "_"))
        here.sql("INSERT INTO outside VALUES (1, 2)")
        with pytest.raises(RefusedError, match="refer to rows that go"):
            take_back(here, batch.batch_id)
        done = take_back(here, batch.batch_id, keep_touched=True)
        assert here.sql("SELECT id, import_batch_id FROM parents") == [(2, None)]
        assert [t.kept for t in done.done[0].tables] == [1, 0]
        assert here.sql("SELECT id, parent FROM outside") == [(1, 2)]
        here.sql("TRUNCATE outside, children, parents")


def test_owned_children_go_with_their_parents(site18: MakeSite) -> None:
    here = site18(
        FAMILY
        + "CREATE TABLE badges (parent int REFERENCES parents, badge text);"
        + "CREATE TABLE stamps (parent int REFERENCES parents);",
        BOTH,
    )
    here.feed = upserting(
        here.feed,
        {
            "table": "public.parents",
            "files": "p*",
            "owned_children": ["public.badges", "public.nobody"],
        },
        {"table": "public.children", "files": "c*"},
    )
    other = here.load(family(100, 1), key="other")
    batch = here.load(family(1, 3))
    here.sql("INSERT INTO badges VALUES (1, 'a'), (1, 'b'), (2, 'c'), (100, 'd')")
    (found,) = planned(here, batch.batch_id).plans
    assert [table.owned for table in found.tables] == [3, 0]
    assert any("public.nobody is declared as owned" in note for note in found.notes)
    done = take_back(here, batch.batch_id)
    assert [t.owned for t in done.done[0].tables] == [3, 0]
    assert here.sql("SELECT * FROM badges") == [(100, "d")]
    here.sql("INSERT INTO stamps VALUES (100)")
    with pytest.raises(RefusedError, match="stamps refer"):
        take_back(here, other.batch_id)


@pytest.mark.versions
def test_a_correction_taken_back_puts_the_earlier_batch_in_force(site: MakeSite) -> None:
    here = site(FAMILY, BOTH)
    first = here.load(family(1, 5))
    before = content(here, "parents", "children")
    second = here.load(family(3, 6))
    done = take_back(here, second.batch_id)
    assert done.done[0].reinstated == first.batch_id
    assert content(here, "parents", "children") == before
    now = batches.by_id(here.connection, first.batch_id)
    assert (now.status, now.superseded_by) == ("SUCCESS", None)
    assert here.load(family(1, 5)).duplicate_of == first.batch_id
    # And so it can be taken back itself.
    assert planned(here, first.batch_id).refusal is None
    take_back(here, first.batch_id)
    assert content(here, "parents", "children") == {"parents": [], "children": []}


def test_both_at_once(site18: MakeSite) -> None:
    here = site18(FAMILY, BOTH)
    first = here.load(family(1, 5))
    second = here.load(family(3, 6))
    done = take_back(here, first.batch_id, second.batch_id)
    assert [d.batch.batch_id for d in done.done] == [second.batch_id, first.batch_id]
    assert content(here, "parents", "children") == {"parents": [], "children": []}
    with here.database.connect("test") as connection:
        assert rollbacks.since(connection, first.started_at, ["ROLLED_BACK"]) == [
            second.batch_id, first.batch_id,
        ]  # fmt: skip


def test_a_corrected_upsert_taken_back(site18: MakeSite) -> None:
    here = items(site18)
    here.sql("INSERT INTO items VALUES (1, 'a', 1, 'x'), (2, 'b', 2, 'x')")
    untouched = content(here, "items")
    first = here.load({"a.csv": "id,code,price\n1,f,10\n2,b,20\n3,c,30\n4,d,40\n"})
    before = content(here, "items")
    second = here.load({"a.csv": "id,code,price\n1,g,11\n3,c,31\n5,f,50\n"})
    take_back(here, second.batch_id)
    assert content(here, "items") == before
    take_back(here, first.batch_id)
    assert content(here, "items") == untouched


def test_unique_values_that_moved_within_a_correction_move_back(site18: MakeSite) -> None:
    here = site18(ITEMS + "CREATE TABLE uses (item int REFERENCES items);", {"public.items": "*"})
    here.load({"a.csv": "id,code\n1,a\n2,b\n3,c\n4,d\n"})
    here.sql("INSERT INTO uses VALUES (4)")
    before = content(here, "items")
    second = here.load({"a.csv": "id,code\n1,b\n2,a\n4,d\n5,c\n"})
    take_back(here, second.batch_id)
    assert content(here, "items") == before


def test_without_the_superseded_rows_it_cannot_be_done(site18: MakeSite) -> None:
    here = site18(FAMILY, BOTH, rollback={"superseded_rows": 9})
    first = here.load(family(1, 5))
    second = here.load(family(3, 6))
    found = planned(here, second.batch_id)
    assert found.refusal is not None
    assert first.batch_id in found.refusal
    assert "were not kept" in found.refusal
    with pytest.raises(RefusedError):
        take_back(here, second.batch_id)


def test_no_key_no_matter(site18: MakeSite) -> None:
    here = site18("CREATE TABLE t (a int, b text, import_batch_id uuid);")
    here.load({"a.csv": "a,b\n1,x\n1,x\n2,y\n"})
    before = content(here, "t")
    second = here.load({"a.csv": "a,b\n1,x\n3,z\n"})
    take_back(here, second.batch_id)
    assert content(here, "t") == before


def test_a_batch_that_was_adopted_goes_by_its_rows_stamps(site18: MakeSite) -> None:
    here = site18(FAMILY, BOTH)
    batch = here.load(family(1, 3))
    here.sql("DELETE FROM batch_audit.batch_table")
    found = planned(here, batch.batch_id).plans[0]
    assert [(t.target_table, t.delete) for t in found.tables] == [
        ("public.parents", 3), ("public.children", 3),
    ]  # fmt: skip
    assert any("no digest is known" in note for note in found.notes)
    take_back(here, batch.batch_id)
    assert content(here, "parents", "children") == {"parents": [], "children": []}


def test_circles_and_self_references(site18: MakeSite) -> None:
    here = site18(
        "CREATE TABLE a (id int PRIMARY KEY, b int, boss int REFERENCES a ON DELETE RESTRICT,"
        " import_batch_id uuid);"
        "CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a, import_batch_id uuid);"
        "ALTER TABLE a ADD FOREIGN KEY (b) REFERENCES b DEFERRABLE INITIALLY DEFERRED;",
        {"public.a": "a*", "public.b": "b*"},
    )
    batch = here.load({"a.csv": "id,b,boss\n1,1,2\n2,1,1\n", "b.csv": "id,a\n1,1\n2,2\n"})
    take_back(here, batch.batch_id)
    assert content(here, "a", "b") == {"a": [], "b": []}


def test_what_is_in_no_state_to_be_taken_back_says_why(site18: MakeSite) -> None:
    here = site18(FAMILY, BOTH)
    first = here.load(family(1, 2))
    twin = here.load(family(1, 2))
    second = here.load(family(1, 3))
    for batch, why in ((twin, "wrote nothing"), (first, "has taken its place")):
        with pytest.raises(RollbackError, match=why):
            take_back(here, batch.batch_id)
    assert batches.by_id(here.connection, second.batch_id).status == "SUCCESS"


def test_the_plan_names_what_stays(site18: MakeSite) -> None:
    here = site18(
        "CREATE TABLE t (id serial PRIMARY KEY, v int, import_batch_id uuid);"
        "CREATE TABLE log (v int);"
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN INSERT INTO log VALUES (new.v); RETURN new; END $$;"
        "CREATE TRIGGER noted AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION note();"
    )
    batch = here.load({"a.csv": "v\n1\n2\n"})
    notes = planned(here, batch.batch_id).plans[0].notes
    assert any("sequence of id" in note for note in notes)
    assert any("trigger noted" in note for note in notes)


@pytest.mark.parametrize(
    ("change", "back"),
    [("RENAME size TO amount", "RENAME amount TO size"), ("DROP size", "ADD size int")],
)
@pytest.mark.parametrize("write", ["insert", "upsert"])
def test_rows_do_not_come_back_without_a_value_that_they_had(
    site18: MakeSite, write: str, change: str, back: str
) -> None:
    """Given a column that was renamed or dropped, what it held is not blanked without a word."""
    here = site18("CREATE TABLE t (id int PRIMARY KEY, size int, import_batch_id uuid)")
    here.feed = upserting(here.feed, {"table": "public.t", "files": "*", "write": write})
    here.load({"a.csv": "id,size\n1,1\n2,2\n"})
    later = here.load({"a.csv": "id,size\n1,5\n"}, KEY if write == "insert" else "later")
    here.sql(f"ALTER TABLE t {change}")
    before = content(here, "t")
    with pytest.raises(
        RefusedError, match=r"columns that the table has no more \(size\); add them"
    ):
        take_back(here, later.batch_id, keep_touched=True)
    assert content(here, "t") == before
    here.sql(f"ALTER TABLE t {back}")
    if change.startswith("RENAME"):
        take_back(here, later.batch_id)
        assert here.rows() == [('{"id": 1, "size": 1}',), ('{"id": 2, "size": 2}',)]
