"""A corrected delivery takes the place of the one before: the tables are as if it had come alone.

What a correction would do to rows elsewhere is in `test_losses_and_effects`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batch_pipelines.engine.errors import PublishError
from batch_pipelines.engine.failpoints import armed
from batch_pipelines.engine.ledger import batches, proofs
from tests.support_engine import feed_of
from tests.support_rejects import Bad, check_bad_records

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batch_pipelines.engine.ledger.batches import Batch
    from tests.engine.conftest import MakeSite
    from tests.support_engine import Site

PLAIN = "CREATE TABLE t (id int PRIMARY KEY, name text, import_batch_id uuid);"
REFERRED = PLAIN + "CREATE TABLE elsewhere (t int REFERENCES t);"


def counts(site: Site, batch: Batch) -> tuple[int, int, int, int]:
    """Rows inserted, updated, unchanged and removed in the feed's first table."""
    found = {table.target_table: table for table in proofs.tables(site.connection, batch.batch_id)}
    table = found[site.feed.tables[0].table]
    return table.inserted, table.updated, table.unchanged, table.removed


def refused(site: Site, files: Mapping[str, str]) -> str:
    """Deliver a correction that is refused; the rows and the batch before stay as they were."""
    before, rows = site.newest(), {t.table: site.rows(t.table) for t in site.feed.tables}
    site.deliver(files)
    with pytest.raises(PublishError) as error:
        site.run()
    failed = site.newest()
    assert (failed.status, failed.error_details) == ("FAILED", str(error.value))
    assert batches.by_id(site.connection, before.batch_id) == before
    assert {t.table: site.rows(t.table) for t in site.feed.tables} == rows
    return str(error.value)


# Where nothing refers to the table


@pytest.mark.versions
def test_rows_are_replaced(site: MakeSite) -> None:
    here = site(PLAIN)
    here.sql("INSERT INTO t VALUES (9, 'typed in by hand')")
    other = here.load({"a.csv": "id,name\n5,e\n"}, "other")
    first = here.load({"a.csv": "id,name\n1,a\n2,b\n3,c\n"})
    second = here.load({"a.csv": "id,name\n2,B\n4,d\n"})
    assert here.stamps() == {None: 1, other.batch_id: 1, second.batch_id: 2}
    assert here.sql("SELECT id, name FROM t WHERE id < 5 ORDER BY 1") == [(2, "B"), (4, "d")]
    old = batches.by_id(here.connection, first.batch_id)
    assert (old.status, old.superseded_by) == ("SUPERSEDED", second.batch_id)
    assert second.attempt == first.attempt + 1


@pytest.mark.parametrize("kind", ["text", "jsonb"])
def test_rows_that_are_deleted_and_sent_anew_are_counted(site: MakeSite, kind: str) -> None:
    """What a table held, less what was removed, plus what was inserted, is what it holds."""
    here = site(f"CREATE TABLE t (id int PRIMARY KEY, v {kind}, import_batch_id uuid)")
    here.load({"a.csv": "id,v\n1,1\n2,2\n3,3\n"})
    here.sql("DELETE FROM t WHERE id = 3")
    second = here.load({"a.csv": "id,v\n2,2\n"})
    assert counts(here, second) == (1, 0, 0, 2)


def test_readers_see_the_old_rows_until_the_new_ones_are_there(site18: MakeSite) -> None:
    """At every point of publish another connection sees the batch before; after it, the new one."""
    here = site18(PLAIN)
    first = here.load({"a.csv": "id,name\n1,a\n2,b\n"})
    here.deliver({"a.csv": "id,name\n2,B\n3,c\n"})
    seen: dict[str, dict[str | None, int]] = {}

    def look(place: str) -> None:
        seen[place] = here.stamps()

    with (
        armed("bulk_write.before_check", lambda _: look("check")),
        armed("bulk_write.before_fence", lambda _: look("fence")),
        armed("bulk_write.before_commit", lambda _: look("commit")),
        armed("bulk_write.after_commit", lambda _: look("done")),
    ):
        second = here.run()
    before, after = {first.batch_id: 2}, {second.batch_id: 2}
    assert seen == {"check": before, "fence": before, "commit": before, "done": after}


def test_a_correction_may_be_empty(site18: MakeSite) -> None:
    here = site18(PLAIN)
    here.load({"a.csv": "id,name\n1,a\n"})
    assert here.load({"a.csv": "id,name\n"}).status == "SUCCESS"
    assert here.rows() == []


# Where other rows may refer to it


@pytest.mark.versions
def test_a_keyed_diff_touches_only_what_differs(site: MakeSite) -> None:
    """Given rows elsewhere that refer to a batch's, a correction updates, inserts and deletes."""
    here = site(REFERRED)
    here.load({"a.csv": "id,name\n1,a\n2,b\n3,\n4,d\n"})
    here.sql("INSERT INTO elsewhere VALUES (1), (2), (3)")
    second = here.load({"a.csv": 'id,name\n3,""\n2,b\n1,A\n5,e\n'})
    assert here.sql("SELECT id, name FROM t ORDER BY 1") == [(1, "A"), (2, "b"), (3, ""), (5, "e")]
    assert here.stamps() == {second.batch_id: 4}
    assert counts(here, second) == (1, 2, 1, 1)
    assert second.written_records == 4
    assert here.count("SELECT count(*) FROM elsewhere") == 3


def test_the_same_rows_again_are_only_stamped(site18: MakeSite) -> None:
    here = site18(REFERRED)
    here.load({"a.csv": "id,name\n1,a\n2,\n"})
    again = here.run(force=True)
    assert counts(here, again) == (0, 0, 2, 0)
    assert here.stamps() == {again.batch_id: 2}


def test_a_row_that_others_need_is_not_taken_away(site: MakeSite) -> None:
    here = site(REFERRED)
    here.load({"a.csv": "id,name\n1,a\n2,b\n"})
    here.sql("INSERT INTO elsewhere VALUES (2)")
    message = refused(here, {"a.csv": "id,name\n1,a\n"})
    assert "elsewhere" in message
    assert "elsewhere_t_fkey" in message
    here.sql("TRUNCATE elsewhere")
    assert here.run().status == "SUCCESS"
    assert here.sql("SELECT id FROM t") == [(1,)]


def test_parents_and_children_of_one_feed_are_corrected_together(site18: MakeSite) -> None:
    """Given a correction that moves children to new parents and drops the old ones, all fit."""
    here = site18(
        "CREATE TABLE parent (id int PRIMARY KEY, import_batch_id uuid);"
        "CREATE TABLE child (id int PRIMARY KEY, parent int NOT NULL REFERENCES parent,"
        " import_batch_id uuid);",
        {"public.parent": "p*", "public.child": "c*"},
    )
    here.load({"p.csv": "id\n1\n2\n", "c.csv": "id,parent\n10,1\n11,2\n"})
    batch = here.load({"p.csv": "id\n2\n3\n", "c.csv": "id,parent\n10,3\n12,2\n"})
    assert here.sql("SELECT id FROM parent ORDER BY 1") == [(2,), (3,)]
    assert here.sql("SELECT id, parent FROM child ORDER BY 1") == [(10, 3), (12, 2)]
    assert counts(here, batch) == (1, 0, 1, 1)
    assert here.stamps("parent") == here.stamps("child") == {batch.batch_id: 2}


@pytest.mark.parametrize("ddl", [PLAIN, REFERRED])
@pytest.mark.parametrize(
    "records", ["1,a\n2,x\n2,y\n", "1,A\n7,x\n7,y\n"], ids=["that stays", "that is new"]
)
def test_a_key_that_stands_twice_in_a_correction_is_set_aside(
    site: MakeSite, ddl: str, records: str
) -> None:
    """Also where the key is one that stays: the books would balance with either of the two."""
    here = site(ddl)
    here.load({"a.csv": "id,name\n1,a\n2,b\n"})
    check_bad_records(
        here, {"a.csv": "id,name\n" + records}, Bad("a.csv", 3, "23505", None, "t_pkey")
    )


@pytest.mark.parametrize("ddl", [PLAIN, REFERRED])
def test_a_key_that_another_batch_has_is_set_aside(site18: MakeSite, ddl: str) -> None:
    here = site18(ddl)
    other = here.load({"a.csv": "id,name\n7,g\n"}, "other")
    here.load({"a.csv": "id,name\n1,a\n"})
    check_bad_records(
        here, {"a.csv": "id,name\n1,a\n7,x\n"}, Bad("a.csv", 2, "23505", None, "t_pkey")
    )
    assert here.stamps()[other.batch_id] == 1


def test_a_table_of_nothing_but_its_key(site18: MakeSite) -> None:
    here = site18("CREATE TABLE t (id int PRIMARY KEY, import_batch_id uuid);"
                "CREATE TABLE elsewhere (t int REFERENCES t);")  # fmt: skip
    here.load({"a.csv": "id\n1\n2\n"})
    second = here.load({"a.csv": "id\n2\n3\n"})
    assert here.sql("SELECT id FROM t ORDER BY 1") == [(2,), (3,)]
    assert counts(here, second) == (1, 0, 1, 1)


def test_a_column_that_is_no_longer_delivered_goes_back_to_its_default(site18: MakeSite) -> None:
    here = site18(
        "CREATE TABLE t (id int PRIMARY KEY, name text, kind text DEFAULT 'new', tags text[],"
        " import_batch_id uuid); CREATE TABLE elsewhere (t int REFERENCES t);"
    )
    here.load({"a.csv": "id,name,kind,tags\n1,a,old,{x}\n2,b,old,\n"})
    second = here.load({"a.csv": "id,name\n1,a\n3,c\n"})
    assert here.sql("SELECT id, name, kind, tags FROM t ORDER BY 1") == [
        (1, "a", "new", None), (3, "c", "new", None),
    ]  # fmt: skip
    assert here.stamps() == {second.batch_id: 2}


@pytest.mark.parametrize("ddl", [PLAIN, REFERRED])
def test_a_column_that_the_table_has_lost_is_not_missed(site18: MakeSite, ddl: str) -> None:
    here = site18(ddl + "ALTER TABLE t ADD COLUMN gone text, ADD COLUMN kept text DEFAULT 'x'")
    here.load({"a.csv": "id,name,gone,kept\n1,a,b,c\n"})
    here.sql("ALTER TABLE t DROP COLUMN gone")
    second = here.load({"a.csv": "id,name\n1,a\n"})
    assert here.sql("SELECT id, name, kept FROM t") == [(1, "a", "x")]
    assert here.stamps() == {second.batch_id: 1}


def test_columns_loaded_as_text_are_compared_by_what_they_become(site: MakeSite) -> None:
    here = site(
        "CREATE TABLE t (id int PRIMARY KEY, doc jsonb, raw json, code char(3),"
        " import_batch_id uuid); CREATE TABLE elsewhere (t int REFERENCES t);"
    )
    row = '{},"{{""a"": 1, ""b"": 2}}","{{""a"": 1}}",x\n'
    here.load({"a.csv": "id,doc,raw,code\n" + row.format(1) + row.format(2)})
    same = '1,"{""b"":2,""a"":1}","{""a"": 1}",x  \n'
    other = '2,"{""a"": 1, ""b"": 2}","{""a"":  1}",x\n'
    second = here.load({"a.csv": "id,doc,raw,code\n" + same + other})
    assert counts(here, second) == (0, 1, 1, 0)
    assert here.sql("SELECT raw::text FROM t ORDER BY id") == [('{"a": 1}',), ('{"a":  1}',)]


@pytest.mark.parametrize(
    ("ddl", "columns", "remedy"),
    [
        pytest.param("id int UNIQUE", "id", "the table has none", id="no primary key"),
        pytest.param(
            "key int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id int UNIQUE",
            "id",
            "the delivery does not bring it",
            id="a key that is made by the table",
        ),
    ],
)
def test_without_a_key_rows_that_others_may_refer_to_cannot_be_compared(
    site18: MakeSite, ddl: str, columns: str, remedy: str
) -> None:
    here = site18(
        f"CREATE TABLE t ({ddl}, import_batch_id uuid);"
        "CREATE TABLE elsewhere (t int REFERENCES t (id));"
    )
    here.load({"a.csv": f"{columns}\n1\n"})
    message = refused(here, {"a.csv": f"{columns}\n2\n"})
    assert "compared with them by primary key" in message
    assert remedy in message


def test_a_value_that_a_removed_row_had_is_free(site: MakeSite) -> None:
    """Given a unique name under a new key, the correction is what it would be alone."""
    here = site("CREATE TABLE t (id int PRIMARY KEY, name text UNIQUE, import_batch_id uuid);"
                "CREATE TABLE elsewhere (t int REFERENCES t);")  # fmt: skip
    here.load({"a.csv": "id,name\n1,a\n2,b\n"})
    here.load({"a.csv": "id,name\n2,b\n3,a\n"})
    assert here.sql("SELECT id, name FROM t ORDER BY 1") == [(2, "b"), (3, "a")]


def test_two_rows_may_exchange_a_value(site: MakeSite) -> None:
    here = site("CREATE TABLE t (id int PRIMARY KEY, name text UNIQUE, import_batch_id uuid);"
                "CREATE TABLE elsewhere (t int REFERENCES t);")  # fmt: skip
    here.load({"a.csv": "id,name\n1,a\n2,b\n"})
    here.load({"a.csv": "id,name\n1,b\n2,a\n"})
    assert here.sql("SELECT id, name FROM t ORDER BY 1") == [(1, "b"), (2, "a")]


def test_two_rows_that_others_refer_to_cannot(site18: MakeSite) -> None:
    """They may neither go for a moment nor have one value both: the correction is refused."""
    here = site18("CREATE TABLE t (id int PRIMARY KEY, name text UNIQUE, import_batch_id uuid);"
                  "CREATE TABLE elsewhere (t int REFERENCES t);")  # fmt: skip
    here.load({"a.csv": "id,name\n1,a\n2,b\n"})
    here.sql("INSERT INTO elsewhere VALUES (1), (2)")
    message = refused(here, {"a.csv": "id,name\n1,b\n2,a\n"})
    assert (
        message == "PostgreSQL ended the statement: SQLSTATE 23505, table t, constraint t_name_key."
    )


# Tables that the feed has lost

FAMILY = (
    "CREATE TABLE parent (id int PRIMARY KEY, import_batch_id uuid);"
    "CREATE TABLE child (id int PRIMARY KEY, parent int NOT NULL REFERENCES parent,"
    " import_batch_id uuid);"
)
BOTH = {"public.parent": "p*", "public.child": "c*"}


@pytest.mark.parametrize("kept", BOTH)
def test_rows_in_a_table_that_the_feed_has_lost_go_too(site: MakeSite, kept: str) -> None:
    here = site(FAMILY, BOTH)
    here.sql("INSERT INTO parent VALUES (9)")
    here.load({"p.csv": "id\n1\n2\n", "c.csv": "id,parent\n10,9\n"})
    here.feed = feed_of({kept: BOTH[kept]})
    batch = here.load(
        {"p.csv": "id\n2\n"} if kept == "public.parent" else {"c.csv": "id,parent\n10,9\n"}
    )
    assert batch.status == "SUCCESS"
    lost = next(table for table in BOTH if table != kept)
    assert here.stamps(kept)[batch.batch_id] == 1
    assert here.stamps(lost) == ({None: 1} if lost == "public.parent" else {})
    found = {table.target_table: table for table in proofs.tables(here.connection, batch.batch_id)}
    assert found[lost].removed == (2 if lost == "public.parent" else 1)
    again = here.run(force=True)
    assert again.status == "SUCCESS"


def test_a_lost_table_whose_rows_others_need_is_named(site18: MakeSite) -> None:
    here = site18(FAMILY + "CREATE TABLE mine (p int REFERENCES parent ON DELETE CASCADE)", BOTH)
    here.load({"p.csv": "id\n1\n", "c.csv": "id,parent\n"})
    here.sql("INSERT INTO mine VALUES (1)")
    here.feed = feed_of({"public.child": "c*"})
    here.deliver({"c.csv": "id,parent\n"})
    with pytest.raises(PublishError, match=r"public\.parent: .* public\.mine .* by mine_p_fkey"):
        here.run()
    assert here.count("SELECT count(*) FROM parent") == 1


def test_a_lost_table_that_was_dropped_is_in_nobodys_way(site18: MakeSite) -> None:
    here = site18(FAMILY, BOTH)
    here.load({"p.csv": "id\n1\n", "c.csv": "id,parent\n10,1\n"})
    here.sql("DROP TABLE child")
    here.feed = feed_of({"public.parent": "p*"})
    assert here.load({"p.csv": "id\n2\n"}).status == "SUCCESS"
    assert here.rows("parent") == [('{"id": 2}',)]


# What people have done meanwhile


@pytest.mark.parametrize("ddl", [PLAIN, REFERRED])
def test_rows_that_somebody_deleted_come_back_and_changed_ones_are_as_delivered(
    site18: MakeSite, ddl: str
) -> None:
    here = site18(ddl)
    here.load({"a.csv": "id,name\n1,a\n2,b\n3,c\n"})
    here.sql("DELETE FROM t WHERE id = 1")
    here.sql("UPDATE t SET name = 'by hand' WHERE id = 2")
    second = here.run(force=True)
    assert here.sql("SELECT id, name FROM t ORDER BY 1") == [(1, "a"), (2, "b"), (3, "c")]
    assert here.stamps() == {second.batch_id: 3}


@pytest.mark.parametrize("ddl", [PLAIN, REFERRED])
def test_a_row_that_somebody_took_for_themselves_is_not_overwritten(
    site18: MakeSite, ddl: str
) -> None:
    """Given a row whose stamp a person took away, the record that brings its key is set aside."""
    here = site18(ddl)
    here.load({"a.csv": "id,name\n1,a\n2,b\n"})
    here.sql("UPDATE t SET import_batch_id = NULL WHERE id = 2")
    check_bad_records(
        here, {"a.csv": "id,name\n1,A\n2,B\n"}, Bad("a.csv", 2, "23505", None, "t_pkey")
    )
    assert here.sql("SELECT id, name FROM t ORDER BY 1") == [(1, "A"), (2, "b")]
