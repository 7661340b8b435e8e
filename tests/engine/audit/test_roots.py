"""Roots of details: over columns that are listed, so that a migration breaks none from before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batch_pipelines.engine.audit.verify import verify_audit

if TYPE_CHECKING:
    from pathlib import Path

    from batch_pipelines.engine.postgres.database import Connection
    from tests.engine.conftest import MakeSite

DDL = "CREATE TABLE t (id int PRIMARY KEY, v text, import_batch_id uuid)"
# Computed from another column, which is listed.
DERIVED = {("import_reject", "raw_bytes")}
HOW = (
    "A column of a detail table is in no root. Have a migration give `detail_columns` the next version, "
    "which lists it (lists that are there are never changed), and have `detail_root(uuid)` take that; "
    "or, where it is derived from others, say so here."
)
_COLUMNS = """
SELECT relname, attname FROM pg_class c JOIN pg_attribute a ON attrelid = c.oid
WHERE relnamespace = 'batch_audit'::regnamespace AND attnum > 0 AND NOT attisdropped
    AND relname IN (SELECT detail FROM batch_audit.detail_columns(1))
"""
_LISTED = """
SELECT detail, column_name FROM batch_audit.detail_columns(%s), unnest(columns) AS column_name
"""
_NEWEST = """
SELECT max(n) FROM generate_series(1, 100) AS n
WHERE EXISTS (SELECT FROM batch_audit.detail_columns(n))
"""


def test_every_column_of_a_detail_table_is_in_the_newest_list(db: Connection) -> None:
    ((newest,),) = db.execute(_NEWEST).fetchall()
    listed = {(table, column) for table, column in db.execute(_LISTED, (newest,))}
    there = {(table, column) for table, column in db.execute(_COLUMNS)}
    assert there - DERIVED == listed, HOW


def test_a_migration_that_adds_columns_breaks_no_root_from_before(
    site18: MakeSite, tmp_path: Path
) -> None:
    here = site18(DDL, thresholds={"rejected_rows": "50%"})
    here.load({"a.csv": "id,v\n1,one\nx,bad\n"}, "before")
    details = [name for (name,) in here.sql("SELECT detail FROM batch_audit.detail_columns(1)")]
    for name in [*details, "row_event"]:
        here.sql(f"ALTER TABLE batch_audit.{name} ADD extra text NOT NULL DEFAULT 'x'")
    assert verify_audit(here.connection, tmp_path).findings == ()
    # And one that gives the lists their next version: roots of old and of new batches hold.
    ((body, newest),) = here.sql(
        "SELECT pg_get_functiondef('batch_audit.detail_columns(integer)'::regprocedure), n.max FROM ("
        + _NEWEST
        + ") AS n"
    )
    following = newest + 1
    one = "(1, NULL::integer, 'import_file',"
    assert one in str(body)
    more = f"({following}, NULL::integer, 'import_file', '{{extra,batch_id}}'), "
    changed = str(body).replace(one, more + one.replace("NULL", str(newest)))
    changed = changed.replace(f"BETWEEN 1 AND {newest}", f"BETWEEN 1 AND {following}")
    here.connection.execute(changed.encode())
    here.sql(f"""
        CREATE OR REPLACE FUNCTION batch_audit.detail_root(batch uuid) RETURNS jsonb
        LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
            SELECT batch_audit.detail_root(batch, {following})
        $$
    """)
    here.load({"a.csv": "id,v\n3,three\n"}, "after")
    ((root,),) = here.sql(
        "SELECT details -> 'root' FROM batch_audit.audit_event WHERE action = 'batch.ended'"
        " ORDER BY seq DESC LIMIT 1"
    )
    assert (root["columns"], root["import_file"]["rows"]) == (following, 1)
    assert verify_audit(here.connection, tmp_path).findings == ()
    here.sql("UPDATE batch_audit.import_file SET extra = 'y'")
    (finding,) = verify_audit(here.connection, tmp_path).findings
    assert (finding.kind, "after" in finding.message) == ("root", True)
