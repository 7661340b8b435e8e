"""The row audit: a line for each record that was loaded, against its stored row, without its values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from batch_pipelines.engine.bulk_write import bulk_write
from batch_pipelines.engine.errors import PublishError
from batch_pipelines.engine.failpoints import armed
from batch_pipelines.engine.writing.row_audit import _places

if TYPE_CHECKING:
    from tests.engine.conftest import MakeSite
    from tests.support_engine import Site

TABLE = "CREATE TABLE t (id int PRIMARY KEY, name text, price numeric(8, 2), import_batch_id uuid)"
A, B = "id,name,price\n1,secret,1.50\n2,,2\n", "id,name,price\n3,c,-7.25\n"
LINES = """
SELECT entity_id, computed_crc32, expected_crc32, expected_source, status, bytes_processed > 0
FROM batch_audit.crc32_audit WHERE entity_type = 'row' AND batch_id = %s ORDER BY entity_id
"""


def lines(site: Site, batch_id: str) -> list[tuple[object, ...]]:
    return site.sql(LINES, batch_id)


@pytest.mark.versions
def test_each_record_has_a_line_with_its_place_and_the_checksum_of_its_key(site: MakeSite) -> None:
    """Given a feed that asks for it, each line holds what was parsed against what is stored."""
    orders = site(TABLE, None, audit="row")
    batch = orders.load({"a.csv": A, "b.csv": B})
    found = lines(orders, batch.batch_id)
    places = [str(line[0]).rsplit("#", 1)[0] for line in found]
    assert places == ["public.t#a.csv#1", "public.t#a.csv#2", "public.t#b.csv#1"]
    assert all(line[1] == line[2] and line[3:] == ("readback", "valid", True) for line in found)
    assert not any("secret" in str(line) for line in found)
    if orders.connection.info.server_version < 180_000:
        return
    by_server = orders.sql(
        "SELECT to_hex(crc32c(record_send(ROW(id)))), crc32c(record_send(ROW(id, name, price)))"
        " FROM public.t ORDER BY id"
    )
    keys = [str(line[0]).rsplit("#", 1)[1].lstrip("0") for line in found]
    assert by_server == [(key, line[1]) for key, line in zip(keys, found, strict=True)]


def test_rows_are_no_files_in_the_views(site18: MakeSite) -> None:
    orders = site18(TABLE, None, audit="row")
    batch = orders.load({"a.csv": A, "b.csv": B})
    for view, column in (("batch_integrity", "total_files"), ("batch_throughput", "file_count")):
        question = f"SELECT {column} FROM batch_audit.{view} WHERE batch_id = %s"
        assert orders.count(question, batch.batch_id) == 2


def test_by_default_there_are_none(site18: MakeSite) -> None:
    orders = site18(TABLE)
    assert lines(orders, orders.load({"a.csv": A}).batch_id) == []


def test_equal_records_without_a_key_have_a_line_each(site: MakeSite) -> None:
    orders = site("CREATE TABLE t (id int, import_batch_id uuid)", None, audit="row")
    batch = orders.load({"a.csv": "id\n7\n7\n8\n7\n"})
    found = lines(orders, batch.batch_id)
    assert [line[0] for line in found] == [f"public.t#a.csv#{n}" for n in (1, 2, 3, 4)]
    assert len({line[1] for line in found}) == 2
    assert {line[4] for line in found} == {"valid"}


def test_rows_that_are_stored_by_conversion_are_recorded(site18: MakeSite) -> None:
    """Where every column is sent as text, nothing foretells the stored form."""
    orders = site18("CREATE TABLE t (doc jsonb, import_batch_id uuid)", None, audit="row")
    batch = orders.load({"a.csv": 'doc\n"{""b"": 1, ""a"":2}"\n'})
    ((_, computed, *rest),) = lines(orders, batch.batch_id)
    assert computed
    assert rest == [None, None, "recorded", False]


def test_records_that_are_set_aside_have_none_until_they_are_replayed(site18: MakeSite) -> None:
    orders = site18(TABLE, None, audit="row", thresholds={"rejected_rows": 5})
    orders.sql("ALTER TABLE t ADD CONSTRAINT few CHECK (id < 3)")
    batch = orders.load({"a.csv": A, "b.csv": B})
    assert len(lines(orders, batch.batch_id)) == 2
    orders.sql("ALTER TABLE t DROP CONSTRAINT few")
    with orders.work() as (connection, work):
        bulk_write(connection, work, replay=True)
    found = lines(orders, batch.batch_id)
    assert [str(line[0]).split("#")[1:3] for line in found] == [
        ["a.csv", "1"], ["a.csv", "2"], ["b.csv", "1"]
    ]  # fmt: skip
    assert {line[4] for line in found} == {"valid"}


def test_upserted_and_corrected_rows_are_audited_as_they_are_stored(site18: MakeSite) -> None:
    orders = site18(TABLE, None, audit="row")
    (table,) = orders.feed.tables
    upserted = (table.model_copy(update={"write": "upsert"}),)
    orders.feed = orders.feed.model_copy(update={"tables": upserted})
    orders.load({"a.csv": A})
    last = orders.load({"a.csv": "id,name,price\n1,other,1.50\n2,,2\n9,n,0\n"}, key="second")
    assert [line[4] for line in lines(orders, last.batch_id)] == ["valid"] * 3


def test_a_stored_row_that_differs_fails_the_batch_and_is_named(site18: MakeSite) -> None:
    orders = site18(TABLE, None, audit="row")
    orders.deliver({"a.csv": A, "b.csv": B})

    def flip(marks: np.ndarray) -> np.ndarray:
        return np.where(np.arange(len(marks)) == 1, marks ^ np.uint64(1), marks)

    with (
        armed("row_audit.read_back", flip),
        pytest.raises(PublishError, match=r"1 stored rows are not .* of a\.csv, record 2; nothing"),
    ):
        orders.run()
    assert orders.stamps() == {}
    assert lines(orders, orders.newest().batch_id) == []


def test_for_equal_marks_there_is_a_place_each() -> None:
    ours = np.array([5, 3, 5, 9, 5], np.uint64)
    stored = np.array([3, 5, 5, 8], np.uint64)
    places = _places(ours, stored)
    assert places[:3].tolist() == [1, 0, 2]
    assert places[3] == 4  # Behind the end: there is none.
    assert places[4] == 3  # What stands there is another: there is no third.
