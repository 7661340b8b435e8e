"""A thousand differences of each kind: all found, all named, whatever the table went through before."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from typing import TYPE_CHECKING

import hypothesis
import pytest
from hypothesis import strategies as st
from psycopg import sql

from batch_pipelines.engine.digests.as_sent import as_sent
from batch_pipelines.engine.digests.recorded import digest_today
from batch_pipelines.engine.digests.sides import BatchRows
from batch_pipelines.engine.ledger import proofs
from batch_pipelines.engine.postgres.programs import binaries
from tests.debian_postgres import debian_binaries
from tests.engine.verification.support_verify import counts, named, verify_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from batch_pipelines.engine.ledger.batches import Batch
    from tests.engine.conftest import MakeSite
    from tests.support_engine import Site

ROWS, EACH = 3_000, 1_000
DDL = """
CREATE TABLE t (id integer PRIMARY KEY, a integer NOT NULL, b varchar(4) NOT NULL, c numeric(10,2),
    d timestamptz, e text, import_batch_id uuid)
"""
HEAD = "id,a,b,c,d,e\n"
# Each value of b is four characters and each of a four bytes: swapping them keeps every length.
RECORDS = [
    f"{n},{n * 7919},{n:04d},{n}.25,2024-01-01 00:00:00+00,text {n % 13}\n"
    for n in range(1, ROWS + 1)
]
FILES = {
    "a.csv": HEAD + "".join(RECORDS[: ROWS // 2]),
    "b.csv": HEAD + "".join(RECORDS[ROWS // 2 :]),
}

# SQL, the kind of the rows that differ, and the columns in which they do; ids 1 to EACH.
CHANGES = {
    "changed cells": ("UPDATE t SET a = a # 64 WHERE id <= {n}", "changed", ["a"]),
    "changed texts": ("UPDATE t SET e = e || ' ' WHERE id <= {n}", "changed", ["e"]),
    "deleted rows": ("DELETE FROM t WHERE id <= {n}", "missing", None),
    "duplicated rows": (
        "ALTER TABLE t DROP CONSTRAINT t_pkey; INSERT INTO t SELECT * FROM t WHERE id <= {n}",
        "duplicated", None,
    ),
    "cells swapped between two rows": (
        "UPDATE t SET a = o.a FROM t o WHERE t.id <= {n} AND o.id = 1 + (t.id - 1 # 1)", "changed",
        ["a"],
    ),
    "texts of equal width swapped": (
        "UPDATE t SET b = o.b FROM t o WHERE t.id <= {n} AND o.id = 1 + (t.id - 1 # 1)", "changed",
        ["b"],
    ),
    "rows swapped under their keys": (
        "UPDATE t SET (a, b, c) = (o.a, o.b, o.c) FROM t o WHERE t.id <= {n} AND o.id = 1 + (t.id-1#1)",
        "changed", ["a", "b", "c"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_a_thousand_are_found_and_named(site18: MakeSite, what: str) -> None:
    here = site18(DDL)
    assert_found(here, here.load(FILES), what)


def assert_found(here: Site, batch: Batch, what: str) -> None:
    assert verify_table(here, batch).status == "SUCCESS"
    change, kind, columns = CHANGES[what]
    here.sql(change.format(n=EACH))
    found = verify_table(here, batch)
    assert found.exception is None
    order = ("changed", "missing", "added", "duplicated")
    assert counts(found) == tuple(EACH if each == kind else 0 for each in order)
    assert named(found.details, kind) == {str(n): columns for n in range(1, EACH + 1)}
    assert {(row.file_name, row.record) for row in found.details} == {
        ("a.csv", n) for n in range(1, EACH + 1)
    }


def column_added(here: Site) -> Site:
    here.sql("ALTER TABLE t ADD COLUMN added text DEFAULT 'x'")
    return here


def types_changed(here: Site) -> Site:
    here.sql(
        "ALTER TABLE t ALTER c TYPE numeric(14,4), ALTER d TYPE timestamp, ALTER e TYPE varchar(50)"
    )
    return here


def restored(here: Site) -> Site:
    """Dump the database, drop the schemas, and restore it."""
    url, folder = here.owner.url, here.settings.root / "dump"
    is_new = here.connection.info.server_version >= 180000
    programs = binaries() if is_new else debian_binaries("15")
    assert programs is not None
    run = [str(programs / "pg_dump"), "--format=directory", "--file", str(folder), "--dbname", url]
    subprocess.run(run, check=True, capture_output=True)
    here.sql("DROP TABLE t; DROP SCHEMA batch_audit, batch_staging CASCADE")
    run = [str(programs / "pg_restore"), "--exit-on-error", "--dbname", url, str(folder)]
    subprocess.run(run, check=True, capture_output=True)
    shutil.rmtree(folder)
    return here


@pytest.mark.parametrize("event", [column_added, types_changed, restored])
def test_the_same_after_the_table_was_altered_or_restored(
    site: MakeSite, event: Callable[[Site], Site]
) -> None:
    """Given the table went through that, each kind of difference is found, one after the other."""
    here = site(DDL)
    batch = here.load(FILES)
    event(here)
    here.sql("CREATE TABLE kept AS SELECT * FROM t")
    for what in CHANGES:
        assert_found(here, batch, what)
        here.sql("TRUNCATE t; INSERT INTO t SELECT * FROM kept")
        here.sql("ALTER TABLE t DROP CONSTRAINT IF EXISTS t_pkey, ADD PRIMARY KEY (id)")


def test_a_value_that_the_type_of_then_does_not_have_is_a_change(site18: MakeSite) -> None:
    here = site18(DDL)
    batch = here.load(FILES)
    here.sql("ALTER TABLE t ALTER a TYPE bigint; UPDATE t SET a = 5000000000 WHERE id = 17")
    assert named(verify_table(here, batch).details, "changed") == {"17": ["a"]}


def test_a_column_that_was_dropped_leaves_the_rows_unproven(site18: MakeSite) -> None:
    here = site18(DDL)
    batch = here.load(FILES)
    here.sql("ALTER TABLE t DROP c")
    found = verify_table(here, batch)
    assert (found.status, found.actual_rows) == ("UNVERIFIED", ROWS)
    assert found.exception == "column c is no longer in the table, so rows were only counted"
    here.sql("DELETE FROM t WHERE id = 5")
    found = verify_table(here, batch)
    assert (found.status, named(found.details, "missing")) == ("FAILED", {"5": None})


def test_every_single_swap_is_seen_by_the_digest(site18: MakeSite) -> None:
    """Given a thousand swaps of equal width, each by itself, each changes the digest."""
    here = site18(DDL)
    batch = here.load({"f.csv": HEAD + "".join(RECORDS[:100])})
    (balance,) = proofs.tables(here.connection, batch.batch_id)
    columns = as_sent(here.connection, "public.t", balance.columns, balance.column_types or [])
    rows = BatchRows(batch.batch_id, "public.t", columns)
    recorded, _ = digest_today(here.connection, rows)
    seen = 0
    with here.connection.transaction(force_rollback=True):
        for n in range(EACH):
            one, other = 1 + n % 100, 1 + (n + 1 + n // 100) % 100
            here.connection.execute(
                sql.SQL(
                    "UPDATE t SET {c} = o.{c} FROM t o WHERE (t.id, o.id) IN ((%s, %s), (%s, %s))"
                ).format(c=sql.Identifier("ab"[n % 2])),
                (one, other, other, one),
            )
            now, _ = digest_today(here.connection, rows)
            seen += now != recorded
            recorded = now
    assert seen == EACH


CELLS = st.tuples(st.integers(1, 12), st.sampled_from("abe"))
EDITS = st.lists(
    st.one_of(
        st.tuples(st.just("change"), CELLS),
        st.tuples(st.sampled_from(["delete", "copy", "restamp"]), st.integers(1, 12)),
        st.tuples(st.just("insert"), st.integers(100, 103)),
    ),
    max_size=6,
)


def test_whatever_is_done_to_the_rows_the_counts_are_those_of_a_model(site18: MakeSite) -> None:
    """Given any edits of a table without key, what is missing and added is what the multisets lack."""
    here = site18("CREATE TABLE t (id integer, a integer, b text, e text, import_batch_id uuid)")
    records = [(1 + n % 8, n % 3, "b", "e") for n in range(12)]
    text = "id,a,b,e\n" + "".join(",".join(map(str, record)) + "\n" for record in records)
    batch = here.load({"f.csv": text})
    here.sql("CREATE TABLE kept AS SELECT * FROM t")
    written = Counter(records)

    @hypothesis.settings(max_examples=25, deadline=None)
    @hypothesis.given(EDITS)
    def check(edits: list[tuple[str, object]]) -> None:
        here.sql("TRUNCATE t; INSERT INTO t SELECT * FROM kept")
        for kind, argument in edits:
            edit(here, batch, kind, argument)
        now = Counter(
            tuple(row)
            for row in here.sql(
                f"SELECT id, a, b, e FROM t WHERE import_batch_id = '{batch.batch_id}'"
            )
        )
        missing, surplus = written - now, now - written
        found = verify_table(here, batch)
        duplicated = sum(number for row, number in surplus.items() if row in written)
        assert counts(found) == (0, missing.total(), surplus.total() - duplicated, duplicated)
        assert (found.status == "SUCCESS") == (written == now)
        told = Counter(records[row.record - 1] for row in found.details
                       if row.kind == "missing" and row.record is not None)  # fmt: skip
        assert told == missing

    check()


def edit(here: Site, batch: Batch, kind: str, argument: object) -> None:
    match kind, argument:
        case "change", (int(row), str(column)):
            value = "a + 1" if column == "a" else f"{column} || 'x'"
            here.sql(f"UPDATE t SET {column} = {value} WHERE ctid = (SELECT ctid FROM t"
                     f" ORDER BY id, a, ctid OFFSET {row} - 1 LIMIT 1)")  # fmt: skip
        case "delete", row:
            here.sql(f"DELETE FROM t WHERE ctid = (SELECT ctid FROM t OFFSET {row} - 1 LIMIT 1)")
        case "copy", row:
            here.sql(f"INSERT INTO t SELECT * FROM t OFFSET {row} - 1 LIMIT 1")
        case "restamp", row:
            here.sql(f"UPDATE t SET import_batch_id = NULL"
                     f" WHERE ctid = (SELECT ctid FROM t OFFSET {row} - 1 LIMIT 1)")  # fmt: skip
        case _, row:
            here.sql(f"INSERT INTO t VALUES ({row}, 1, 'n', 'n', '{batch.batch_id}')")
