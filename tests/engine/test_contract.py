"""A feed's contract: what becomes of a delivery that brings other columns than the one before it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from pydantic import ValidationError

from batch_pipelines.engine.bulk_write import bulk_write
from batch_pipelines.engine.contract import Contract
from batch_pipelines.engine.errors import (
    ContractError,
    FeedError,
    PublishError,
    ThresholdError,
)
from batch_pipelines.engine.failpoints import armed
from batch_pipelines.engine.feed_parts.tolerance import Thresholds
from batch_pipelines.engine.feeds import Feed
from batch_pipelines.engine.ledger import batches, proofs, rejects, signatures
from batch_pipelines.engine.rehearsal import rehearse
from batch_pipelines.engine.validate import require_valid, validate
from tests.support_engine import feed_of
from tests.support_rejects import raw

if TYPE_CHECKING:
    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.ledger.signatures import SignatureEvent
    from batch_pipelines.engine.postgres.database import Connection
    from tests.engine.conftest import MakeSite
    from tests.support_engine import Content, Site

DDL = """
CREATE TABLE t (id int PRIMARY KEY, name text, n bigint, import_batch_id uuid);
CREATE INDEX ON t (import_batch_id);
"""
KINDS = ("csv", "parquet", "jsonl")


def content(kind: str, *records: dict[str, object]) -> Content:
    """Write records as a file; of CSV and Parquet, each has a place for the keys of all."""
    if kind == "jsonl":
        return "".join(f"{json.dumps(record)}\n" for record in records)
    names = [*dict.fromkeys(name for record in records for name in record)]
    if kind == "parquet":
        return pa.table({name: [record.get(name) for record in records] for name in names})
    rows = [",".join(str(record.get(name, "")) for name in names) for record in records]
    return "\n".join([",".join(names), *rows, ""])


def load(site: Site, key: str, kind: str, *records: dict[str, object]) -> Batch:
    return site.load({f"a.{kind}": content(kind, *records)}, key)


def event(site: Site, batch: Batch) -> SignatureEvent:
    (found,) = signatures.events(site.connection, batch.batch_id)
    return found


def told(
    found: SignatureEvent,
) -> tuple[str, int | None, int | None, list[tuple[str, ...]]]:
    changes: list[tuple[str, ...]] = [
        (c.kind, c.column, c.verdict, c.policy) for c in found.changes
    ]
    return found.verdict, found.previous_version, found.version, changes


def contracted(site: Site, **contract: str) -> Site:
    """Give the site's feed another contract."""
    site.feed = site.feed.model_copy(update={"contract": Contract.model_validate(contract)})
    return site


def site_of(make: MakeSite, **contract: str) -> Site:
    return make(DDL, thresholds={}, contract=contract)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_columns_are_the_same_version(site: MakeSite, kind: str) -> None:
    here = site_of(site)
    first = load(here, "a", kind, {"id": 1, "name": "x"})
    assert told(event(here, first)) == ("compatible", None, 1, [])
    again = load(here, "b", kind, {"name": "y", "id": 2})
    assert told(event(here, again)) == ("same", 1, 1, [])
    assert event(here, again).signature_hash == event(here, first).signature_hash
    ((columns, batch_id),) = here.sql(
        "SELECT columns, batch_id::text FROM batch_audit.feed_signature"
    )
    assert batch_id == first.batch_id
    assert [(c["target"], c["target_type"]) for c in columns] == [
        ("id", "integer"),
        ("name", "text"),
    ]
    wanted = {"csv": {"text"}, "jsonl": {"text"}, "parquet": {"int64", "string"}}
    assert {c["type"] for c in columns} == wanted[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_word_columns_with_a_place_may_come_and_go(site18: MakeSite, kind: str) -> None:
    here = site_of(site18)
    load(here, "a", kind, {"id": 1, "name": "x"})
    more = load(here, "b", kind, {"id": 2, "name": "x", "n": 1})
    assert told(event(here, more)) == ("compatible", 1, 2, [("added", "n", "compatible", "evolve")])
    fewer = load(here, "c", kind, {"id": 3})
    assert told(event(here, fewer)) == ("compatible", 2, 3, [
        ("missing", "n", "compatible", "evolve"), ("missing", "name", "compatible", "evolve"),
    ])  # fmt: skip
    assert len(here.rows()) == 3


@pytest.mark.parametrize("contract", [{}, {"extra_column": "evolve"}])
@pytest.mark.parametrize("kind", KINDS)
def test_an_extra_column_without_a_place_is_never_given_one(
    site18: MakeSite, kind: str, contract: dict[str, str]
) -> None:
    here = site_of(site18, **contract)
    load(here, "a", kind, {"id": 1, "name": "x"})
    if kind == "jsonl" and not contract:
        # There each record has columns of its own, and is set aside by itself.
        batch = load(here, "b", kind, {"id": 2, "name": "x"}, {"id": 3, "x y": 2})
        assert (batch.written_records, batch.rejected_records) == (1, 1)
        policy = [("added", "x y", "breaking", "quarantine")]
        assert told(event(here, batch)) == ("breaking", 1, 1, policy)
        return
    with pytest.raises(FeedError) as error:
        load(here, "b", kind, {"id": 2, "name": "x", "x y": 2})
    wanted = "bigint" if kind == "parquet" else "text"
    said = str(error.value)
    assert f"a.{kind}: column 'x y' is not in public.t. Correct the file's columns" in said
    statement = "ALTER TABLE " + said.partition("ALTER TABLE ")[2].partition(";")[0]
    assert statement == f'ALTER TABLE "public"."t" ADD COLUMN "x y" {wanted}'
    failed = here.newest("b")
    assert failed.status == "FAILED"
    assert told(event(here, failed)) == (
        "breaking",
        1,
        None,
        [("added", "x y", "breaking", "evolve")],
    )

    here.sql(statement)
    batch = here.run("b")
    assert batch.status == "SUCCESS"
    assert told(event(here, batch)) == (
        "compatible",
        1,
        2,
        [("added", "x y", "compatible", "evolve")],
    )
    assert here.count('SELECT "x y"::int FROM t WHERE id = 2') == 2


@pytest.mark.parametrize("extra", ["n", "x"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_frozen_extra_column_fails_the_batch(site18: MakeSite, kind: str, extra: str) -> None:
    here = site_of(site18, extra_column="freeze")
    load(here, "a", kind, {"id": 1, "name": "x"})
    with pytest.raises(ContractError, match=rf"freezes version 1 .*: column '{extra}' is extra"):
        load(here, "b", kind, {"id": 2, "name": "x", extra: 2})
    verdict = "breaking" if extra == "x" else "compatible"
    (refused,) = signatures.events(here.connection, here.newest("b").batch_id)
    assert told(refused) == (verdict, 1, None, [("added", extra, verdict, "freeze")])
    assert here.count("SELECT count(*) FROM batch_audit.feed_signature") == 1
    # Once it is taken on, it is frozen as it is now.
    if extra == "n":
        assert contracted(here).run("b").status == "SUCCESS"
        contracted(here, extra_column="freeze")
        assert load(here, "c", kind, {"id": 3, "name": "x", "n": 3}).status == "SUCCESS"


@pytest.mark.parametrize("kind", KINDS)
def test_an_ignored_extra_column_is_not_loaded_and_stays_so(site: MakeSite, kind: str) -> None:
    here = site_of(site, extra_column="ignore")
    load(here, "a", kind, {"id": 1, "name": "x"})
    records = ({"id": 2, "x": 2, "name": "y"}, {"id": 3, "x": 3, "name": "z"})
    here.deliver({f"a.{kind}": content(kind, *records)}, "b")
    batch = here.run("b", stages=["ingest", "checksum", "bulk_write"])
    assert (batch.written_records, batch.rejected_records) == (2, 0)
    assert told(event(here, batch)) == ("breaking", 1, 1, [("added", "x", "breaking", "ignore")])
    # A table that gets the column later does not make the rows wrong.
    here.sql("ALTER TABLE t ADD COLUMN x int DEFAULT 9")
    assert here.run("b", stages=["validate", "archive"]).status == "SUCCESS"
    # The next one fills it.
    after = load(here, "c", kind, {"id": 4, "x": 4, "name": "y"})
    assert told(event(here, after)) == (
        "compatible",
        1,
        2,
        [("added", "x", "compatible", "evolve")],
    )
    assert here.sql("SELECT id, x FROM t WHERE id > 1 ORDER BY 1") == [(2, 9), (3, 9), (4, 4)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_quarantined_extra_column_sets_aside_what_brings_a_value(
    site: MakeSite, kind: str
) -> None:
    here = site_of(site, extra_column="quarantine")
    first = load(here, "a", kind, {"id": 1, "name": "x"}, {"id": 2, "x": 7}, {"id": 3, "name": "z"})
    assert (first.status, first.written_records, first.rejected_records) == (
        "PARTIAL_SUCCESS",
        2,
        1,
    )
    assert told(event(here, first)) == (
        "breaking",
        None,
        1,
        [("added", "x", "breaking", "quarantine")],
    )
    (reject,) = rejects.of_batch(here.connection, first.batch_id)
    assert (reject.record_number, reject.sqlstate) == (2, "22P04")
    (record,) = raw(here, first.batch_id)
    assert b"7" in record

    here.sql("ALTER TABLE t ADD COLUMN x int DEFAULT 9")
    before = proofs.tables(here.connection, first.batch_id)
    with here.work("a") as (connection, work):
        bulk_write(connection, work, replay=True)
        require_valid(validate(connection, work))
    (after,) = proofs.tables(here.connection, first.batch_id)
    assert here.sql("SELECT id, x FROM t ORDER BY id") == [(1, 9), (2, 7), (3, 9)]
    # Earlier rows have no say in it, so the digest covers the columns that it did.
    assert (after.columns, after.filled) == (before[0].columns, sorted({*before[0].filled, "x"}))
    stored = here.count(
        "SELECT count(*) FROM batch_audit.validation_summary s, jsonb_array_elements(s.checks) c "
        "WHERE c ->> 'name' = 'aggregates.x'"
    )
    assert stored == 0
    assert (here.newest("a").status, here.newest("a").rejected_records) == ("SUCCESS", 0)


def test_an_empty_field_is_no_value_of_an_unknown_column(site18: MakeSite) -> None:
    here = site18(
        DDL, thresholds={}, contract={"extra_column": "quarantine"},
        format={"empty": "text", "null_words": ["NULL"]},
    )  # fmt: skip
    batch = here.load({"a.csv": 'id,x,name\n1,,a\n2,"",b\n3,NULL,c\n4, ,d\n'})
    assert [r.record_number for r in rejects.of_batch(here.connection, batch.batch_id)] == [2, 4]
    assert (batch.status, batch.written_records) == ("PARTIAL_SUCCESS", 2)


def test_values_that_cannot_be_read_make_a_column_no_less_unwanted(site18: MakeSite) -> None:
    here = site_of(site18, extra_column="quarantine")
    batch = here.load({"a.csv": b'id,x\n1,\n2,\xff\n3,"a\nb"\nq,1\n5,0x10\n6\n'})
    found = rejects.of_batch(here.connection, batch.batch_id)
    assert [r.record_number for r in found] == [2, 3, 4, 5, 6]
    assert batch.written_records == 1
    assert batch.status == "PARTIAL_SUCCESS"


@pytest.mark.parametrize("kind", KINDS)
def test_a_frozen_missing_column_fails_the_batch(site18: MakeSite, kind: str) -> None:
    here = site_of(site18, missing_column="freeze")
    load(here, "a", kind, {"id": 1, "name": "x"})
    said = r"column 'name' is missing .* `contract: \{missing_column: evolve\}`"
    with pytest.raises(ContractError, match=said):
        load(here, "b", kind, {"id": 2})
    with pytest.raises(ContractError, match=r"write `format: \{columns: \{nmae: name\}\}`"):
        load(here, "c", kind, {"id": 3, "nmae": "y"})
    # The remedy that it names is one.
    renamed = here.feed.format.model_copy(update={"columns": {"nmae": "name"}})
    here.feed = here.feed.model_copy(update={"format": renamed})
    batch = here.run("c")
    assert told(event(here, batch)) == (
        "compatible",
        1,
        2,
        [("renamed", "name", "compatible", "evolve")],
    )


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_missing_column_that_is_needed_is_always_refused(site18: MakeSite, kind: str) -> None:
    here = site_of(site18)
    load(here, "a", kind, {"id": 1, "name": "x"})
    with pytest.raises(ContractError, match=r"column 'id' is absent, but public\.t needs"):
        load(here, "b", kind, {"name": "x"})
    assert told(event(here, here.newest("b"))) == (
        "breaking", 1, None, [("missing", "id", "breaking", "evolve")],
    )  # fmt: skip


def numbers(kind: pa.DataType, *values: object) -> dict[str, Content]:
    ids = pa.array(range(1, len(values) + 1), pa.int32())
    return {"a.parquet": pa.table({"id": ids, "n": pa.array(values, kind)})}


@pytest.mark.versions
def test_a_wider_type_that_fits_is_compatible(site: MakeSite) -> None:
    here = site_of(site)
    here.load(numbers(pa.int32(), 1), "a")
    here.sql("DELETE FROM t")
    batch = here.load(numbers(pa.int64(), 2), "b")
    assert told(event(here, batch)) == (
        "compatible",
        1,
        2,
        [("retyped", "n", "compatible", "evolve")],
    )
    (change,) = event(here, batch).changes
    assert (change.before, change.after) == ("int32 -> bigint", "int64 -> bigint")


def test_another_layout_of_the_same_type_is_the_same(site18: MakeSite) -> None:
    here = site_of(site18)
    names = pa.array(["x"])
    for key, column in enumerate([names, names.cast(pa.large_string()), names.dictionary_encode()]):
        table = pa.table({"id": pa.array([key], pa.int32()), "name": column})
        batch = here.load({"a.parquet": table}, f"k{key}")
        assert event(here, batch).version == 1


@pytest.mark.parametrize(
    ("policy", "written"), [("evolve", 3), ("quarantine", 1), ("ignore", 3), ("freeze", None)]
)
def test_a_changed_type_of_another_family(
    site18: MakeSite, policy: str, written: int | None
) -> None:
    here = site_of(site18, changed_type=policy)
    here.load(numbers(pa.int64(), 1), "a")
    here.sql("DELETE FROM t")
    files = numbers(pa.string(), "1", None, "2")
    if written is None:
        said = (
            r"column 'n' is string -> bigint where it was int64 -> bigint\. .*changed_type: evolve"
        )
        with pytest.raises(ContractError, match=said):
            here.load(files, "b")
        return
    batch = here.load(files, "b")
    assert batch.status == ("PARTIAL_SUCCESS" if policy == "quarantine" else "SUCCESS")
    assert batch.written_records == written
    version = 2 if policy == "evolve" else 1
    assert told(event(here, batch)) == (
        "breaking",
        1,
        version,
        [("retyped", "n", "breaking", policy)],
    )
    values = {"evolve": [1, None, 2], "quarantine": [None], "ignore": [None] * 3}
    assert [n for (n,) in here.sql("SELECT n FROM t ORDER BY id")] == values[policy]


def test_what_was_set_aside_for_its_type_is_replayed_once_it_is_taken_on(site18: MakeSite) -> None:
    here = site_of(site18, changed_type="quarantine")
    here.load(numbers(pa.int64(), 1), "a")
    here.sql("DELETE FROM t")
    here.load(numbers(pa.string(), "1", None, "2"), "b")
    contracted(here, changed_type="evolve")
    with here.work("b") as (connection, work):
        bulk_write(connection, work, replay=True)
        require_valid(validate(connection, work))
    assert here.sql("SELECT id, n FROM t ORDER BY id") == [(1, 1), (2, None), (3, 2)]


def test_what_a_batch_has_taken_on_is_not_frozen_for_its_replay(site18: MakeSite) -> None:
    here = site_of(site18)
    load(here, "a", "csv", {"id": 1, "name": "x"})
    load(here, "b", "csv", {"id": 2, "n": 1}, {"id": "3 4", "n": 1})
    contracted(here, extra_column="freeze", missing_column="freeze", changed_type="freeze")
    here.sql("ALTER TABLE t ALTER id TYPE text")
    with here.work("b") as (connection, work):
        bulk_write(connection, work, replay=True)
        require_valid(validate(connection, work))
    assert [i for (i,) in here.sql("SELECT id FROM t ORDER BY 1")] == ["1", "2", "3 4"]


def test_a_correction_may_bring_other_columns(site: MakeSite) -> None:
    here = site_of(site, extra_column="ignore", missing_column="freeze")
    load(here, "a", "csv", {"id": 1})
    load(here, "a", "csv", {"id": 1, "name": "x", "odd": 1}, {"id": 2, "name": "y", "odd": 2})
    batch = load(here, "a", "csv", {"id": 2, "name": "z", "n": 3})
    assert told(event(here, batch)) == (
        "compatible",
        2,
        3,
        [("added", "n", "compatible", "evolve")],
    )
    assert here.sql("SELECT id, name, n FROM t") == [(2, "z", 3)]
    with pytest.raises(ContractError, match="column 'n' is missing"):
        load(here, "a", "csv", {"id": 2, "name": "z"})


def test_a_wider_column_of_the_table_is_its_owners_doing(site18: MakeSite) -> None:
    here = site_of(site18, changed_type="freeze")
    load(here, "a", "csv", {"id": 1})
    here.sql("ALTER TABLE t ALTER id TYPE bigint")
    batch = load(here, "b", "csv", {"id": 2})
    assert told(event(here, batch)) == (
        "compatible",
        1,
        2,
        [("retyped", "id", "compatible", "evolve")],
    )


@pytest.mark.parametrize("status", ["ROLLED_BACK", "FAILED"])
def test_a_batch_that_is_not_there_sets_no_version(site18: MakeSite, status: str) -> None:
    here = site_of(site18)
    load(here, "a", "csv", {"id": 1})
    if status == "FAILED":
        here.feed = here.feed.model_copy(update={"thresholds": Thresholds(rejected_rows=(0,))})
        with pytest.raises(ThresholdError):
            load(here, "b", "csv", {"id": "x", "n": 9})
    else:
        batch = load(here, "b", "csv", {"id": 2, "n": 9})
        gone = "UPDATE batch_audit.import_history SET status = 'ROLLED_BACK' WHERE batch_id = %s"
        here.sql(gone, batch.batch_id)
    found = signatures.in_force(here.connection, "orders")
    assert found["public.t"].number == 1
    later = load(here, "c", "csv", {"id": 3})
    assert told(event(here, later)) == ("same", 1, 1, [])
    # The numbers of versions that were are not given again.
    more = load(here, "d", "csv", {"id": 4, "name": "x"})
    assert event(here, more).version == (3 if status == "ROLLED_BACK" else 2)


def interrupted(site: Site, key: str, by: str) -> Batch:
    """Publish a partition; before it is told to the ledger, another one is published."""
    waiting = [by]

    def other(connection: Connection) -> Connection:
        if waiting:
            site.run(waiting.pop(), stages=["bulk_write"])
        return connection

    for each in (key, by):
        site.run(each, stages=["ingest", "checksum"])
    with armed("bulk_write.before_check", other):
        return site.run(key, stages=["bulk_write"])


def test_batches_at_once_are_compared_with_one_another(site18: MakeSite) -> None:
    here = site_of(site18)
    here.deliver({"a.csv": "id\n1\n"}, "a")
    here.deliver({"a.csv": "id,n\n2,1\n"}, "b")
    batch = interrupted(here, "a", by="b")
    assert told(event(here, here.newest("b"))) == ("compatible", None, 1, [])
    assert told(event(here, batch)) == (
        "compatible",
        1,
        2,
        [("missing", "n", "compatible", "evolve")],
    )


def test_what_another_batch_has_frozen_meanwhile_is_refused(site18: MakeSite) -> None:
    here = site_of(site18, missing_column="freeze")
    here.deliver({"a.csv": "id\n1\n"}, "a")
    here.deliver({"a.csv": "id,n\n2,1\n"}, "b")
    with pytest.raises(PublishError, match="another batch brought other columns to public"):
        interrupted(here, "a", by="b")
    assert [r for (r,) in here.sql("SELECT id FROM t")] == [2]
    with pytest.raises(ContractError, match="column 'n' is missing"):
        here.run("a", stages=["bulk_write"])


def test_a_table_without_a_record_says_nothing_of_its_columns(site18: MakeSite) -> None:
    here = site18(
        "CREATE TABLE p (id int PRIMARY KEY, import_batch_id uuid);"
        "CREATE TABLE q (id int PRIMARY KEY, import_batch_id uuid);"
    )
    here.feed = Feed.model_validate({
        "feed": "orders", "source": {"path": "landing/{batch}/*"},
        "format": {"table_field": "table"}, "contract": {"missing_column": "freeze"},
        "tables": [{"table": "public.p", "match": "p"}, {"table": "public.q", "match": "q"}],
    })  # fmt: skip
    both = here.load({"a.jsonl": '{"table": "p", "id": 1}\n{"table": "q", "id": 1}\n'}, "a")
    assert len(signatures.events(here.connection, both.batch_id)) == 2
    one = here.load({"a.jsonl": '{"table": "p", "id": 2}\n{"table": "x", "odd": 1}\n'}, "b")
    (only,) = signatures.events(here.connection, one.batch_id)
    assert told(only) == ("same", 1, 1, [])
    assert only.target_table == "public.p"


def test_a_name_that_postgresql_cannot_keep_harms_nothing(site18: MakeSite) -> None:
    here = site_of(site18)
    batch = here.load({"a.jsonl": '{"id": 1}\n{"id": 2, "a\\u0000b": 1}\n'})
    assert (batch.written_records, batch.rejected_records) == (1, 1)
    (change,) = event(here, batch).changes
    assert "\0" not in change.column


@pytest.mark.parametrize("kind", KINDS)
def test_a_rehearsal_tells_the_verdict_and_keeps_it_to_itself(site18: MakeSite, kind: str) -> None:
    here = site_of(site18, extra_column="ignore")
    load(here, "a", kind, {"id": 1, "name": "x"})
    here.deliver({f"a.{kind}": content(kind, {"id": 2, "name": "x", "x": 1})}, "b")
    with here.work("b") as (connection, work):
        (found,) = rehearse(connection, work).comparisons
    assert (found.verdict, found.previous, *found.left_out) == ("breaking", 1, "x")
    assert here.count("SELECT count(*) FROM batch_audit.signature_event") == 1
    contracted(here, extra_column="freeze")
    with here.work("b") as (connection, work), pytest.raises(ContractError, match="'x' is extra"):
        rehearse(connection, work)
    assert here.count("SELECT count(*) FROM batch_audit.signature_event") == 1


def test_a_table_has_the_last_word(site18: MakeSite) -> None:
    feed = Feed.model_validate(
        {
            "feed": "orders", "source": {"path": "landing/{batch}/*"},
            "contract": {"extra_column": "freeze", "missing_column": "freeze"},
            "tables": [{"table": "public.t", "contract": {"extra_column": "ignore"}}],
        }
    )  # fmt: skip
    assert feed.contract_of("public.t") == Contract(extra_column="ignore", missing_column="freeze")


@pytest.mark.parametrize("policy", ["quarantine", "ignore"])
def test_what_makes_no_sense_is_refused(policy: str) -> None:
    with pytest.raises(
        ValidationError, match="must be evolve or freeze: what does not come cannot"
    ):
        feed_of({"public.t": "*"}, contract={"missing_column": policy})


def test_a_wrong_delimiter_is_no_breach_of_the_contract(site18: MakeSite) -> None:
    here = site_of(site18, extra_column="freeze", missing_column="freeze")
    load(here, "a", "csv", {"id": 1, "name": "x"})
    with pytest.raises(FeedError, match=r"fit public\.t with the delimiter ';'"):
        here.load({"a.csv": "id;name\n2;y\n"}, "b")


def test_the_view_has_a_row_for_each_change(site18: MakeSite) -> None:
    here = site_of(site18, extra_column="ignore")
    batch = load(here, "a", "csv", {"id": 1, "x": 1, "y": 2})
    assert here.sql(
        'SELECT kind, "column", before, after, verdict, policy FROM batch_audit.signature_change '
        "WHERE batch_id = %s ORDER BY 2",
        batch.batch_id,
    ) == [
        ("added", "x", None, "text -> no column", "breaking", "ignore"),
        ("added", "y", None, "text -> no column", "breaking", "ignore"),
    ]
    assert batches.by_id(here.connection, batch.batch_id).status == "SUCCESS"
