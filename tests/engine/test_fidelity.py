"""How true each column keeps what is sent is said by its types, and before anything is published."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from batch_pipelines.engine.bulk_write import bulk_write
from batch_pipelines.engine.catalog import read_table
from batch_pipelines.engine.errors import PublishError
from batch_pipelines.engine.fidelity import fidelity_of_text
from batch_pipelines.engine.ledger import columns, proofs
from batch_pipelines.engine.ledger.stages import STAGES
from batch_pipelines.engine.rehearsal import rehearse

if TYPE_CHECKING:
    from tests.engine.conftest import MakeSite
    from tests.support_engine import Content, Site

DDL = """
CREATE TABLE t (id integer PRIMARY KEY, r real, d double precision, n numeric(10,2), u numeric,
    z timestamptz, c char(5), j jsonb, k json, v text, import_batch_id uuid)
"""
FILE: dict[str, Content] = {
    "f.csv": "id,r,d,n,u,z,c,j,k,v\n1,0.1,0.1,1.5,1.50,2024-01-01 05:00+02,ab,{},{},x\n"
}
OF_TEXT = {
    "id": "exact", "r": "lossy", "d": "normalised", "n": "normalised", "u": "normalised",
    "z": "normalised", "c": "normalised", "j": "normalised", "k": "exact", "v": "exact",
}  # fmt: skip


def kinds(here: Site, batch_id: str) -> dict[str, str]:
    return {
        each.column: each.kind for each in columns.of_batch(here.connection, batch_id)["public.t"]
    }


def test_each_column_is_told_before_the_publish(site18: MakeSite) -> None:
    here = site18(DDL)
    here.deliver(FILE)
    batch = here.run(stages=STAGES[:2])
    told: list[str] = []

    def refuse(text: str, /) -> None:
        told.append(text)
        raise PublishError("not now")

    with here.work(notice=refuse) as (connection, work), pytest.raises(PublishError):
        bulk_write(connection, work)
    assert told == [
        "public.t: column r is lossy: decimals are rounded to the nearest of 24 bits, some 7 digits"
    ]
    assert kinds(here, batch.batch_id) == OF_TEXT
    assert here.rows() == []


def test_the_check_of_a_lossy_column_is_unverified_and_the_batch_a_success(
    site18: MakeSite,
) -> None:
    here = site18(DDL)
    batch = here.load(FILE)
    assert batch.status == "SUCCESS"
    (found,) = proofs.validations(here.connection, batch.batch_id)
    assert {c.name: c.expected for c in found.checks if c.status == "UNVERIFIED"} == {
        "coverage.r": "as sent"
    }
    assert found.status == "UNVERIFIED"


def test_values_that_have_a_type_are_kept_or_refused(site18: MakeSite) -> None:
    """Given a file with types, nothing is lossy: what does not come back is set aside."""
    here = site18(DDL)
    of_file = {
        "id": pa.array([1], pa.int32()), "r": pa.array([0.5], pa.float32()),
        "d": pa.array([0.1], pa.float64()), "n": pa.array([1], pa.decimal128(10, 2)),
        "z": pa.array([0], pa.timestamp("us", "UTC")),
    }  # fmt: skip
    batch = here.load({"f.parquet": pa.table(of_file)})
    assert set(kinds(here, batch.batch_id).values()) == {"exact"}
    other = {
        "id": pa.array([2], pa.int64()), "r": pa.array([0.5], pa.float64()),
        "n": pa.array([1], pa.decimal128(10, 1)), "z": pa.array([0], pa.timestamp("us", "Europe/Paris")),
    }  # fmt: skip
    batch = here.load({"f.parquet": pa.table(other)}, "other")
    assert kinds(here, batch.batch_id) == {
        "id": "exact", "r": "exact", "n": "normalised", "z": "normalised"
    }  # fmt: skip


def test_columns_that_some_records_leave_out_or_postgresql_computes_are_no_success(
    site18: MakeSite,
) -> None:
    here = site18(
        "CREATE TABLE t (id integer PRIMARY KEY, a integer DEFAULT 7,"
        " b integer GENERATED ALWAYS AS (id + 1) STORED, later date, import_batch_id uuid)"
    )
    batch = here.load({"f.jsonl": '{"id": 1, "a": 2}\n{"id": 2}\n'})
    assert kinds(here, batch.batch_id) == {"id": "exact", "a": "filled", "b": "computed"}
    (found,) = proofs.validations(here.connection, batch.batch_id)
    assert {c.name: c.status for c in found.checks if c.name.startswith("coverage")} == {
        "coverage.a": "UNVERIFIED", "coverage.b": "UNVERIFIED"
    }  # fmt: skip
    assert batch.status == "SUCCESS"


def test_a_rehearsal_tells_it_and_keeps_nothing(site18: MakeSite) -> None:
    here = site18(DDL)
    here.deliver(FILE)
    with here.work() as (connection, work):
        found = rehearse(connection, work)
    assert {each.column: each.kind for each in found.fidelity["public.t"]} == OF_TEXT
    assert here.count("SELECT count(*) FROM batch_audit.batch_column") == 0


def test_before_postgresql_16_jsonb_loses_what_cannot_be_seen(site18: MakeSite) -> None:
    here = site18(DDL)
    table = read_table(here.connection, here.feed, "public.t")
    (j,) = [each for each in fidelity_of_text(table, (), 150_000) if each.column == "j"]
    assert j.kind == "lossy"
    changed = fidelity_of_text(table, ("r",), 180_000)
    assert {each.kind for each in changed if each.column == "r"} == {"server_changed"}
