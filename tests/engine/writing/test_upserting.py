"""Upsert: rows are updated by key, what was there is kept, and a correction takes it into account."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from batch_pipelines.engine.errors import PublishError
from batch_pipelines.engine.ledger import proofs, rejects

if TYPE_CHECKING:
    from tests.engine.conftest import MakeSite
    from tests.support_engine import Site

DDL = """
CREATE TABLE t (id int PRIMARY KEY, code text UNIQUE, note jsonb, price numeric(6,2),
                import_batch_id uuid);
CREATE INDEX ON t (import_batch_id);
"""


def upserting(make: MakeSite, **more: object) -> Site:
    tables = [{"table": "public.t", "write": "upsert", **more}]
    site = make(DDL, tables=None, thresholds={})
    site.feed = site.feed.model_validate({**site.feed.model_dump(), "tables": tables})
    return site


def balance(site: Site, batch_id: str) -> tuple[int, ...]:
    (found,) = proofs.tables(site.connection, batch_id)
    return (
        found.inserted,
        found.updated,
        found.unchanged,
        found.rejected,
        found.skipped,
        found.removed,
    )


def images(site: Site, batch_id: str) -> list[tuple[object, ...]]:
    return site.sql(
        "SELECT row_key ->> 'id', image ->> 'code', image ->> 'price', previous_batch_id::text"
        " FROM batch_audit.row_before_image WHERE batch_id = %s ORDER BY 1",
        batch_id,
    )


def test_rows_are_updated_by_key_and_kept_as_they_were(site: MakeSite) -> None:
    here = upserting(site)
    here.sql(
        "INSERT INTO t VALUES (1, 'a', '{\"k\": 1}', 1.5), (2, 'b', NULL, 2), (9, 'z', NULL, 9)"
    )
    first = here.load({"a.csv": "id,code,price\n1,a,7.00\n2,b,2.00\n3,c,3\n"})
    assert first.status == "SUCCESS"
    assert balance(here, first.batch_id) == (1, 1, 1, 0, 0, 0)
    assert here.stamps() == {first.batch_id: 3, None: 1}
    # A column that is not delivered stays as it is.
    assert here.sql("SELECT note, price FROM t WHERE id = 1") == [({"k": 1}, 7)]
    assert images(here, first.batch_id) == [("1", "a", "1.50", None), ("2", "b", "2.00", None)]


def test_another_batch_overwrites_and_keeps_whose_row_it_was(site18: MakeSite) -> None:
    here = upserting(site18)
    first = here.load({"a.csv": "id,code,price\n1,a,1\n2,b,2\n"}, key="one")
    second = here.load({"a.csv": "id,code,price\n2,b,5\n3,c,3\n"}, key="two")
    assert balance(here, second.batch_id) == (1, 1, 0, 0, 0, 0)
    assert images(here, second.batch_id) == [("2", "b", "2.00", first.batch_id)]
    assert here.stamps() == {first.batch_id: 1, second.batch_id: 2}


@pytest.mark.versions
def test_a_correction_puts_back_what_it_does_not_overwrite(site: MakeSite) -> None:
    here = upserting(site)
    here.sql("INSERT INTO t VALUES (1, 'a', NULL, 1), (2, 'b', NULL, 2)")
    first = here.load({"a.csv": "id,code,price\n1,a,10\n2,b,20\n3,c,30\n4,d,40\n"})
    second = here.load({"a.csv": "id,code,price\n1,a,11\n3,c,30\n5,e,50\n"})
    assert here.sql("SELECT id, price::int, import_batch_id::text FROM t ORDER BY id") == [
        (1, 11, second.batch_id), (2, 2, None), (3, 30, second.batch_id), (5, 50, second.batch_id),
    ]  # fmt: skip
    # The image is the one from before the first batch.
    assert images(here, second.batch_id) == [("1", "a", "1.00", None)]
    assert here.sql(
        "SELECT status FROM batch_audit.import_history WHERE batch_id = %s", first.batch_id
    ) == [("SUPERSEDED",)]
    assert balance(here, second.batch_id)[:3] == (2, 1, 0)


def test_a_correction_puts_back_the_columns_it_does_not_bring(site: MakeSite) -> None:
    here = upserting(site)
    here.sql("INSERT INTO t VALUES (1, 'a', NULL, 1), (2, 'b', NULL, 2)")
    here.load({"a.csv": "id,code,price\n1,a,10\n3,c,30\n"})
    second = here.load({"a.csv": "id,code\n1,x\n2,y\n3,z\n"})
    assert here.sql("SELECT id, code, price::int FROM t ORDER BY id") == [
        (1, "x", 1), (2, "y", 2), (3, "z", None),
    ]  # fmt: skip
    assert images(here, second.batch_id) == [("1", "a", "1.00", None), ("2", "b", "2.00", None)]
    assert balance(here, second.batch_id)[:3] == (1, 2, 0)


def lines(*records: dict[str, object]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


@pytest.mark.versions
def test_each_record_updates_what_it_brings(site: MakeSite) -> None:
    """Given records of different columns, an absent one stays as it is, or takes the default."""
    here = upserting(site)
    here.sql(
        "ALTER TABLE t ADD COLUMN kind text NOT NULL DEFAULT 'plain', ADD COLUMN n int NOT NULL;"
        "INSERT INTO t (id, code, note, price, kind, n)"
        " VALUES (1, 'a', '1', 1, 'odd', 1), (2, 'b', '2', 2, 'odd', 2), (3, 'c', '3', 3, 'odd', 3)"
    )
    batch = here.load({"a.jsonl": lines(
        {"id": 1, "price": 10},
        {"id": 2, "code": None, "note": None},
        {"id": 3},
        {"id": 4, "n": 4, "note": {"k": 1}},
        {"id": 5, "code": "e"},  # nothing in n, and no row to keep
        {"id": 6, "n": 6, "kind": None},
        {"id": 7, "n": 7, "code": "a"},  # the key of 1, which keeps it
    )})  # fmt: skip
    assert here.sql("SELECT id, code, note, price::int, kind, n FROM t ORDER BY id") == [
        (1, "a", 1, 10, "odd", 1), (2, None, None, 2, "odd", 2), (3, "c", 3, 3, "odd", 3),
        (4, None, {"k": 1}, None, "plain", 4),
    ]  # fmt: skip
    assert {
        r.record_number: (r.sqlstate, r.column_name, r.constraint_name)
        for r in rejects.of_batch(here.connection, batch.batch_id)
    } == {5: ("23502", "n", None), 6: ("23502", "kind", None), 7: ("23505", None, "t_code_key")}
    assert balance(here, batch.batch_id) == (1, 2, 1, 3, 0, 0)
    assert [image[0] for image in images(here, batch.batch_id)] == ["1", "2", "3"]
    assert {
        (tuple(s.columns), s.entries) for s in proofs.signatures(here.connection, batch.batch_id)
    } == {
        (("id", "price"), 1), (("id", "code", "note"), 1), (("id",), 1), (("id", "note", "n"), 1),
    }  # fmt: skip
    (own,) = proofs.tables(here.connection, batch.batch_id)
    assert (own.columns, own.filled) == (["id"], ["code", "note", "price", "kind", "n"])


def test_a_constraint_sees_the_row_that_comes_of_it(site: MakeSite) -> None:
    here = upserting(site)
    here.sql(
        "ALTER TABLE t ADD CONSTRAINT dear CHECK (price > 5 OR code <> 'dear');"
        "INSERT INTO t VALUES (1, 'dear', NULL, 6), (2, 'cheap', NULL, 2)"
    )
    batch = here.load(
        {"a.jsonl": lines({"id": 1, "price": 4}, {"id": 2, "code": "dear"}, {"id": 2, "price": 7})}
    )
    found = rejects.of_batch(here.connection, batch.batch_id)
    assert [(r.record_number, r.sqlstate) for r in found] == [(1, "23514"), (2, "23514")]
    assert here.sql("SELECT code, price::int FROM t ORDER BY id") == [("dear", 6), ("cheap", 7)]


def test_a_correction_of_records_with_different_columns(site: MakeSite) -> None:
    """Given a corrected delivery, what only the earlier one brought goes back to what it was."""
    here = upserting(site)
    here.sql("INSERT INTO t VALUES (1, 'a', NULL, 1), (2, 'b', NULL, 2), (3, 'c', NULL, 3)")
    here.load({"a.jsonl": lines(
        {"id": 1, "price": 10}, {"id": 2, "code": "x"}, {"id": 4, "price": 4, "code": "d"},
    )})  # fmt: skip
    here.sql("UPDATE t SET price = 30 WHERE id = 3")
    second = here.load({"a.jsonl": lines(
        {"id": 1, "code": "y"}, {"id": 3, "code": "z"}, {"id": 4, "code": "d"},
        {"id": 2, "price": 20},
    )})  # fmt: skip
    assert here.sql("SELECT id, code, price::int FROM t ORDER BY id") == [
        (1, "y", 1), (2, "b", 20), (3, "z", 30), (4, "d", None),
    ]  # fmt: skip
    assert images(here, second.batch_id) == [
        ("1", "a", "1.00", None), ("2", "b", "2.00", None), ("3", "c", "30.00", None),
    ]  # fmt: skip
    assert here.stamps() == {second.batch_id: 4}
    assert balance(here, second.batch_id)[:3] == (1, 3, 0)


def test_a_stored_row_that_is_not_what_was_staged_fails_the_batch(site: MakeSite) -> None:
    here = upserting(site)
    here.sql(
        "CREATE FUNCTION shift() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN NEW.price := NEW.price + 1; RETURN NEW; END $$;"
        "CREATE TRIGGER shift BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION shift()"
    )
    with pytest.raises(PublishError, match="stored rows differ from those that were staged"):
        here.load({"a.jsonl": lines({"id": 1, "price": 1}, {"id": 2, "code": "b"})})
    assert here.rows() == []


def test_a_value_that_another_row_has_is_a_reject(site: MakeSite) -> None:
    here = upserting(site)
    here.sql("INSERT INTO t VALUES (1, 'a', NULL, 1), (2, 'b', NULL, 2)")
    batch = here.load({"a.csv": "id,code,price\n1,b,10\n2,b,20\n2,b,30\n3,a,1\n4,d,4\n"})
    found = {
        r.record_number: r.constraint_name
        for r in rejects.of_batch(here.connection, batch.batch_id)
    }
    assert found == {1: "t_code_key", 3: "t_pkey", 4: "t_code_key"}
    assert here.sql("SELECT id, code, price::int FROM t ORDER BY id") == [
        (1, "a", 1), (2, "b", 20), (4, "d", 4),
    ]  # fmt: skip


def test_a_named_key(site18: MakeSite) -> None:
    here = upserting(site18, key=["code"])
    here.sql("INSERT INTO t VALUES (1, 'a', NULL, 1)")
    batch = here.load({"a.csv": "id,code,price\n7,a,10\n"})
    assert balance(here, batch.batch_id) == (0, 1, 0, 0, 0, 0)
    assert here.sql("SELECT id, code, price::int FROM t") == [(7, "a", 10)]


@pytest.mark.parametrize("taken", ["in the table", "in the batch"])
def test_conflicts_are_skipped_and_counted_or_fail(site: MakeSite, taken: str) -> None:
    here = upserting(site, write="insert", conflict="skip")
    if taken == "in the table":
        here.sql("INSERT INTO t VALUES (1, 'a', NULL, 1)")
        content = "id,code,price\n1,x,10\n2,b,2\nx,c,3\n"
    else:
        content = "id,code,price\n2,b,2\n2,c,3\nx,c,3\n"
    batch = here.load({"a.csv": content})
    assert (batch.status, batch.skipped_records, batch.rejected_records) == (
        "PARTIAL_SUCCESS",
        1,
        1,
    )
    assert balance(here, batch.batch_id) == (1, 0, 0, 1, 1, 0)
    assert [r.record_number for r in rejects.of_batch(here.connection, batch.batch_id)] == [3]

    tables = [{"table": "public.t", "conflict": "fail"}]
    here.feed = here.feed.model_validate({**here.feed.model_dump(), "tables": tables})
    with pytest.raises(PublishError, match=r"a\.csv, record \d .* the feed says `conflict: fail`"):
        here.load({"a.csv": content + "7,g,7\n"}, key="other")
