"""All or nothing: what a batch publishes is visible at once or not at all, and is what was meant."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from batch_pipelines.engine.errors import BatchError, DeliveryError, PublishError
from batch_pipelines.engine.failpoints import armed
from tests.support_rejects import Bad, check_bad_records, tolerate

if TYPE_CHECKING:
    from batch_pipelines.engine.postgres.database import Connection
    from tests.engine.conftest import MakeSite
    from tests.support_engine import Site

_TABLES = """
CREATE TABLE public.parent (id integer PRIMARY KEY, name text NOT NULL, import_batch_id uuid);
CREATE TABLE public.child (
    id integer PRIMARY KEY, parent integer NOT NULL REFERENCES public.parent,
    amount numeric(10,2) CHECK (amount > 0), import_batch_id uuid);
"""
_GOOD = {"parent.csv": "id,name\n1,a\n2,b\n", "child.csv": "id,parent,amount\n1,1,1.50\n2,2,\n"}


def _family(site: MakeSite) -> Site:
    return site(_TABLES, {"public.child": "child.csv", "public.parent": "parent.csv"})


def _nothing_visible(here: Site) -> bool:
    return here.count("SELECT (SELECT count(*) FROM parent) + (SELECT count(*) FROM child)") == 0


def test_parents_and_children_are_published_together(site: MakeSite) -> None:
    here = _family(site)
    batch = here.load(_GOOD)
    assert batch.status == "SUCCESS"
    assert (batch.source_records, batch.written_records) == (4, 4)
    assert here.stamps("public.parent") == here.stamps("public.child") == {batch.batch_id: 2}
    assert here.rows("public.child")[0] == ('{"id": 1, "amount": 1.50, "parent": 1}',)


@pytest.mark.parametrize(
    ("files", "bad"),
    [
        pytest.param(
            {"child.csv": "id,parent,amount\n1,1,1\n2,2,x\n"},
            [Bad("child.csv", 2, "22P02", "amount")],
            id="a wrong type",
        ),
        pytest.param(
            {"child.csv": "id,parent,amount\n1,1,1\n2,,1\n"},
            [Bad("child.csv", 2, "23502", "parent")],
            id="a missing value",
        ),
        pytest.param(
            {"child.csv": "id,parent,amount\n1,1,1\n2,9,1\n"},
            [Bad("child.csv", 2, "23503", "parent", "child_parent_fkey")],
            id="a parent that is not there",
        ),
        pytest.param(
            {"parent.csv": "id,name\n1,a\n2,\n"},
            [
                Bad("parent.csv", 2, "23502", "name"),
                Bad("child.csv", 2, "23503", "parent", "child_parent_fkey"),
            ],
            id="a parent that cannot be read, and so its child",
        ),
        pytest.param(
            {"parent.csv": "id,name\n1,a\n2,b\n1,c\n3,d\n2,e\n"},
            [
                Bad("parent.csv", 3, "23505", None, "parent_pkey"),
                Bad("parent.csv", 5, "23505", None, "parent_pkey"),
            ],
            id="keys of parents twice, of which the first stay with their children",
        ),
        pytest.param(
            {"child.csv": "id,parent,amount\n1,1,1\n2,1,1\n1,2,1\n"},
            [Bad("child.csv", 3, "23505", None, "child_pkey")],
            id="a key twice",
        ),
        pytest.param(
            {"child.csv": "id,parent,amount\n1,1,1\n2,1,-1\n"},
            [Bad("child.csv", 2, "23514", None, "child_amount_check")],
            id="a value that the table refuses",
        ),
        pytest.param(
            {"child.csv": "id,parent,amount\n1,1\n"},
            [Bad("child.csv", 1, "22P04")],
            id="a field too few",
        ),
        pytest.param(
            {
                "parent.csv": "id,name\nx,a\n2,b\n2,c\n3,\n4,d\n",
                "child.csv": "id,parent,amount\n1,1,1\n2,2,-1\n3,4,0\n4,4,1\n4,4,2\n5,2,3\n",
            },
            [
                Bad("parent.csv", 1, "22P02", "id"),
                Bad("parent.csv", 3, "23505", None, "parent_pkey"),
                Bad("parent.csv", 4, "23502", "name"),
                Bad("child.csv", 1, "23503", "parent", "child_parent_fkey"),
                Bad("child.csv", 2, "23514", None, "child_amount_check"),
                Bad("child.csv", 3, "23514", None, "child_amount_check"),
                Bad("child.csv", 5, "23505", None, "child_pkey"),
            ],
            id="all of it at once",
        ),
    ],
)
def test_bad_records_are_set_aside_and_fail_a_feed_that_tolerates_none(
    site: MakeSite, files: dict[str, str], bad: list[Bad]
) -> None:
    check_bad_records(_family(site), _GOOD | files, *bad)


def test_a_renamed_column_fails_the_batch(site18: MakeSite) -> None:
    here = _family(site18)
    tolerate(here)
    here.deliver(_GOOD | {"child.csv": "id,parnt,amount\n1,1,1\n"})
    said = r"child\.csv: column 'parnt' is not in public\.child \(is it 'parent'\?\)"
    with pytest.raises(BatchError, match=said):
        here.run()
    assert _nothing_visible(here)
    assert here.newest().status == "FAILED"
    assert here.load(_GOOD).status == "SUCCESS"


def test_a_key_that_somebody_else_has_is_set_aside(site18: MakeSite) -> None:
    here = _family(site18)
    here.sql("INSERT INTO parent VALUES (2, 'typed in by hand')")
    check_bad_records(here, _GOOD, Bad("parent.csv", 2, "23505", None, "parent_pkey"))
    assert here.stamps("public.parent") == {here.newest().batch_id: 1, None: 1}


@pytest.mark.parametrize("column", ["name", "id"])
def test_a_bit_that_flips_between_parser_and_copy_stops_the_publish(
    site: MakeSite, column: str
) -> None:
    def flip(batch: pa.RecordBatch) -> pa.RecordBatch:
        if column not in batch.schema.names or "name" not in batch.schema.names:
            return batch
        place = batch.schema.get_field_index(column)
        values = batch.column(place)
        if column == "name":
            flipped = pc.replace_substring(values, "b", "c")
        else:
            flipped = pc.bit_wise_xor(values, pa.scalar(64, pa.int32()))
        return batch.set_column(place, batch.schema.field(place), flipped)

    here = site(_TABLES, {"public.parent": "*"})
    here.deliver({"parent.csv": _GOOD["parent.csv"]})
    with armed("bulk_write.parsed", flip), pytest.raises(PublishError, match="digests"):
        here.run()
    assert _nothing_visible(here)
    assert here.run().status == "SUCCESS"


def test_a_bit_that_flips_after_encoding_stops_the_publish(site: MakeSite) -> None:
    def flip(encoded: bytes) -> bytes:
        # The last byte of a row is the stamp's; the text stands before it and its length.
        return encoded.replace(b"b\x00\x00\x00\x10", b"c\x00\x00\x00\x10")

    here = site(_TABLES, {"public.parent": "*"})
    here.deliver({"parent.csv": _GOOD["parent.csv"]})
    with armed("bulk_write.encoded", flip), pytest.raises(PublishError, match="digests"):
        here.run()
    assert _nothing_visible(here)
    assert here.run().status == "SUCCESS"


def test_what_a_trigger_changes_is_not_passed(site: MakeSite) -> None:
    here = _family(site)
    here.sql(
        """
        CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN NEW.name := upper(NEW.name); RETURN NEW; END $$;
        CREATE TRIGGER shout BEFORE INSERT ON parent FOR EACH ROW EXECUTE FUNCTION shout();
        """
    )
    here.deliver(_GOOD)
    with pytest.raises(PublishError, match="those of the source in name; nothing was written"):
        here.run()
    assert _nothing_visible(here)


def test_a_byte_changed_in_landing_is_told_with_both_checksums(site18: MakeSite) -> None:
    here = _family(site18)
    here.deliver({**_GOOD, "child.csv.crc32c": "00000001"})
    with pytest.raises(DeliveryError, match=r"child\.csv: CRC32C is [0-9a-f]{8}, .* 00000001"):
        here.run()
    assert _nothing_visible(here)
    assert here.newest().status == "FAILED"
    found = here.sql(
        "SELECT entity_id, expected_source, expected_crc32 FROM batch_audit.crc32_audit"
        " WHERE status = 'invalid'"
    )
    assert found == [("child.csv", "sidecar", 1)]


def test_a_table_without_a_file_is_refused(site18: MakeSite) -> None:
    here = _family(site18)
    here.load(_GOOD)
    here.deliver({"parent.csv": "id,name\n1,a\n"})
    with pytest.raises(DeliveryError, match=r"has no file child\.csv for public\.child"):
        here.run()
    assert here.count("SELECT count(*) FROM child") == 2


@pytest.mark.versions
def test_a_correction_updates_inserts_restamps_and_deletes(site: MakeSite) -> None:
    here = site(_TABLES, {"public.parent": "*"})
    here.sql("INSERT INTO parent VALUES (9, 'typed in by hand')")
    here.load({"parent.csv": "id,name\n1,a\n2,b\n3,c\n"})
    here.sql("INSERT INTO child VALUES (1, 1, 1)")
    second = here.load({"parent.csv": "id,name\n4,d\n2,changed\n1,a\n"})
    assert here.stamps("public.parent") == {second.batch_id: 3, None: 1}
    balance = here.sql(
        "SELECT inserted, updated, unchanged, removed FROM batch_audit.batch_table"
        " WHERE batch_id = %s",
        second.batch_id,
    )
    assert balance == [(1, 1, 1, 1)]
    assert [batch.status for batch in here.history()] == ["SUPERSEDED", "SUCCESS"]


@pytest.mark.versions
def test_only_a_batch_that_is_most_of_its_table_has_all_of_it_read(site: MakeSite) -> None:
    scans = []

    def look(connection: Connection) -> Connection:
        counted = "SELECT seq_scan, idx_scan FROM pg_stat_xact_user_tables WHERE relname = 'parent'"
        (row,) = connection.execute(counted).fetchall()
        (by_index,) = connection.execute("SHOW enable_indexscan").fetchall()
        scans.append((*row, *by_index))
        return connection

    index = "CREATE INDEX ON public.parent (import_batch_id)"
    here = site(f"{_TABLES}{index}", {"public.parent": "*"})
    many = "".join(f"{number},x\n" for number in range(20_000))
    with armed("bulk_write.before_fence", look):
        here.load({"parent.csv": f"id,name\n{many}"}, "many")
        here.load({"parent.csv": "id,name\n-1,x\n"}, "one")
    assert scans == [(1, 0, "on"), (0, 1, "on")]
