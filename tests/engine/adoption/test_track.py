"""`db track`: any table gets a nullable, indexed stamp, and no row of it is written."""

from __future__ import annotations

import threading
import time
import uuid
from typing import TYPE_CHECKING

import pytest

from batch_pipelines.engine.adoption.give_back import give_back
from batch_pipelines.engine.adoption.short_locks import Pace
from batch_pipelines.engine.adoption.standing import standings
from batch_pipelines.engine.adoption.track import Tracked, track
from batch_pipelines.engine.errors import AdoptionError, BusyError
from batch_pipelines.engine.failpoints import armed
from tests.engine.adoption.support import QUICK, column_type, indexes, reading

if TYPE_CHECKING:
    from batch_pipelines.engine.postgres.database import Connection, Database

pytestmark = pytest.mark.versions

NAMESPACE = uuid.UUID("143bae25-27d1-562e-91b2-0fefd4ff2eb2")
FOREIGN = "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w;"
PARTITIONED = """
CREATE TABLE t (a int, b int) PARTITION BY RANGE (a);
CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10);
CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (10) TO (100) PARTITION BY LIST (b);
CREATE TABLE t2a PARTITION OF t2 FOR VALUES IN (1);
CREATE TABLE t2b PARTITION OF t2 FOR VALUES IN (2);
INSERT INTO t SELECT n, n % 2 + 1 FROM generate_series(0, 99) n;
"""

_CANCEL = """
SELECT pg_cancel_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND query LIKE 'CREATE%INDEX CONCURRENTLY%'
    AND pid <> pg_backend_pid()
"""


def go(database: Database, name: str = "public.t", *, convert: bool = False) -> Tracked:
    return track(database, name, by="a test", convert=convert, pace=QUICK)


def test_a_table_is_tracked_without_a_row_being_written(database: Database, db: Connection) -> None:
    db.execute('CREATE TABLE "Of it" AS SELECT n AS a FROM generate_series(1, 10000) n')
    file = db.execute("SELECT pg_relation_filenode('\"Of it\"'), pg_relation_size('\"Of it\"')")
    before, rows = file.fetchone(), db.execute('SELECT xmin, ctid, a FROM "Of it"').fetchall()
    done = go(database, "public.Of it")
    assert (done.ready, done.stamp_type, len(done.steps)) == (True, "uuid", 2)
    assert column_type(db, '"Of it"') == "uuid"
    assert [valid for _, valid in indexes(db, '"Of it"')] == [True]
    file = db.execute("SELECT pg_relation_filenode('\"Of it\"'), pg_relation_size('\"Of it\"')")
    assert file.fetchone() == before
    assert db.execute('SELECT xmin, ctid, a FROM "Of it"').fetchall() == rows
    again = go(database, "public.Of it")
    assert (again.ready, again.steps) == (True, ())
    assert len(indexes(db, '"Of it"')) == 1
    assert [(s.table, s.state, s.next) for s in standings(db)] == [("public.Of it", "done", None)]


def test_a_dry_run_changes_nothing(database18: Database) -> None:
    with database18.connect("test") as db:
        db.execute("CREATE TABLE t (a int)")
        planned = track(database18, "public.t", by="a test", dry_run=True, pace=QUICK)
        assert not planned.ready
        assert [what for what, _ in planned.steps] == [
            "add the column import_batch_id uuid, null in every row",
            "build an index on import_batch_id concurrently",
        ]
        assert column_type(db, "t") is None
        assert standings(db) == ()


@pytest.mark.parametrize(
    ("ddl", "name", "message"),
    [
        ("", "t", r"'t' is no table: expected SCHEMA\.TABLE"),
        ("", "a.b.c", "'a.b.c' is no table"),
        (
            "CREATE TABLE orders (a int)",
            "public.order",
            "no table public.order. Is it public.orders",
        ),
        ("", "pg_catalog.pg_class", "in a schema of PostgreSQL's own"),
        ("", "batch_audit.import_history", "in a schema of the ledger's or Dagster's"),
        ("CREATE VIEW t AS SELECT 1 a", "public.t", r"public\.t is a view; expected a table"),
        ("CREATE MATERIALIZED VIEW t AS SELECT 1 a", "public.t", "is a materialized view"),
        ("CREATE SEQUENCE t", "public.t", "is a sequence"),
        ("CREATE TYPE t AS (a int)", "public.t", "is a composite type"),
        (
            FOREIGN + "CREATE FOREIGN TABLE t (a int) SERVER s",
            "public.t",
            "is a foreign table",
        ),
        (
            FOREIGN + "CREATE TABLE t (a int) PARTITION BY LIST (a);"
            "CREATE FOREIGN TABLE t1 PARTITION OF t FOR VALUES IN (1) SERVER s",
            "public.t",
            "has partitions that are foreign tables",
        ),
        (PARTITIONED, "public.t2a", r"is a partition, whose columns are those of public\.t2"),
        (
            "CREATE TABLE t (import_batch_id int)",
            "public.t",
            "import_batch_id is of type integer; expected uuid, or a text type",
        ),
        ("CREATE TABLE t (import_batch_id uuid NOT NULL)", "public.t", "DROP NOT NULL, and try"),
        (
            "CREATE TABLE t (import_batch_id uuid DEFAULT gen_random_uuid())",
            "public.t",
            "has a default, so that rows typed in by hand would claim a batch",
        ),
        ("CREATE TYPE y AS (a int); CREATE TABLE t OF y", "public.t", r"SQLSTATE 42809"),
    ],
)
def test_what_cannot_be_tracked_is_refused(
    database18: Database, ddl: str, name: str, message: str
) -> None:
    with database18.connect("test") as db:
        db.execute(ddl.encode())
        with pytest.raises(AdoptionError, match=message):
            go(database18, name)


def test_somebody_elses_table_is_refused_with_a_remedy(database18: Database) -> None:
    with database18.connect("test") as db:
        db.execute("CREATE TABLE t (a int); CREATE ROLE stranger NOLOGIN")
        try:
            db.execute("GRANT USAGE ON SCHEMA batch_audit TO stranger")
            db.execute("GRANT ALL ON ALL TABLES IN SCHEMA batch_audit TO stranger")
            database = type(database18)(f"{database18.url}&options=-crole%3Dstranger")
            with pytest.raises(
                AdoptionError, match=r"may not add the column\. Connect as the table's"
            ):
                go(database)
        finally:
            db.execute("DROP OWNED BY stranger; DROP ROLE stranger")


def test_a_uuid_that_is_there_is_used(database18: Database) -> None:
    with database18.connect("test") as db:
        db.execute("CREATE TABLE t (import_batch_id uuid)")
        done = go(database18)
        assert (done.ready, [what for what, _ in done.steps]) == (
            True, ["build an index on import_batch_id concurrently"])  # fmt: skip


@pytest.mark.parametrize(
    "index",
    [
        "(import_batch_id)",
        "(import_batch_id, a)",
        "(import_batch_id) WHERE import_batch_id IS NOT NULL",
        "USING brin (import_batch_id uuid_minmax_multi_ops)",
    ],
)
def test_an_index_that_is_there_is_used(database18: Database, index: str) -> None:
    with database18.connect("test") as db:
        db.execute(
            f"CREATE TABLE t (a int, import_batch_id uuid); CREATE INDEX ON t {index}".encode()
        )
        done = go(database18)
        assert (done.ready, done.steps) == (True, ())


@pytest.mark.parametrize("index", ["(a, import_batch_id)", "(import_batch_id) WHERE a > 0"])
def test_an_index_that_does_not_find_every_row_is_not(database18: Database, index: str) -> None:
    with database18.connect("test") as db:
        db.execute(
            f"CREATE TABLE t (a int, import_batch_id uuid); CREATE INDEX ON t {index}".encode()
        )
        assert len(go(database18).steps) == 1
        assert len(indexes(db, "t")) == 2


def test_a_partitioned_table_gets_an_index_on_each_partition(
    database: Database, db: Connection
) -> None:
    db.execute(PARTITIONED)
    db.execute("CREATE INDEX ON t2a (a)")
    assert go(database).ready
    for table in ("t", "t1", "t2", "t2a", "t2b"):
        assert [valid for _, valid in indexes(db, table)] == [True], table
    db.execute("CREATE TABLE t3 PARTITION OF t FOR VALUES FROM (100) TO (200)")
    assert len(indexes(db, "t3")) == 1
    assert go(database).steps == ()


def test_a_partition_that_has_an_index_keeps_it(database18: Database) -> None:
    with database18.connect("test") as db:
        db.execute(PARTITIONED)
        db.execute(
            "ALTER TABLE t ADD import_batch_id uuid; CREATE INDEX mine ON t1 (import_batch_id)"
        )
        assert go(database18).ready
        assert indexes(db, "t1") == [("mine", True)]


def test_an_invalid_index_of_an_earlier_failure_is_built_anew(
    database: Database, db: Connection
) -> None:
    db.execute("CREATE TABLE t (a int, import_batch_id uuid)")

    def cancel() -> None:
        with database.connect("test") as other:
            other.execute(_CANCEL)

    # It waits for the reader's snapshot, with the index made and not valid yet.
    canceller = threading.Timer(1, cancel)
    with (
        reading(database, "t", 30),
        armed("adoption.index", lambda _: canceller.start()),
        pytest.raises(BusyError, match=r"interrupted \(SQLSTATE 57014\)\. Type the same"),
    ):
        go(database)
    ((name, valid),) = indexes(db, "t")
    assert not valid
    (standing,) = standings(db)
    assert (standing.state, standing.next) == ("half done", "batch-pipelines db track public.t")
    assert go(database).ready
    assert indexes(db, "t") == [(name, True)]


def test_an_invalid_index_of_a_partition_is_built_anew(database18: Database) -> None:
    with database18.connect("test") as db:
        db.execute(PARTITIONED)
        with armed("adoption.partition_indexed", _stop), pytest.raises(_StoppedError):
            go(database18)
        db.execute("UPDATE pg_index SET indisvalid = false WHERE indrelid IN ('t1'::regclass)")
        db.execute("CREATE INDEX ON t1 (import_batch_id)")
        db.execute("UPDATE pg_index SET indisvalid = false WHERE indrelid IN ('t1'::regclass)")
        assert go(database18).ready
        assert [valid for _, valid in indexes(db, "t1")] == [True]


def test_a_reader_makes_it_try_again_and_a_patient_one_gets_it(
    database: Database, db: Connection
) -> None:
    """Given a reader that stays, when tracking gives up, it says who holds the table."""
    db.execute("CREATE TABLE t (a int)")
    impatient = Pace(first_pause=0.05, longest_pause=0.05, give_up_after=0.5)
    with reading(database, "t", 30), pytest.raises(BusyError) as raised:
        track(database, "public.t", by="a test", pace=impatient)
    assert "It is held by process" in str(raised.value)
    assert "batch-pipelines a reader, in its transaction for" in str(raised.value)
    assert column_type(db, "t") is None
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        time.sleep(seconds)

    with reading(database, "t", 1):
        patient = Pace(0.05, 0.2, 20, sleep=sleep)
        assert track(database, "public.t", by="a test", pace=patient).ready
    assert waited[:3] == [0.05, 0.1, 0.2]
    assert max(waited) == 0.2


def test_two_at_once_track_it_once(database18: Database) -> None:
    with database18.connect("test") as db:
        db.execute("CREATE TABLE t AS SELECT n AS a FROM generate_series(1, 10000) n")
        found: list[Tracked] = []
        threads = [threading.Thread(target=lambda: found.append(go(database18))) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [one.ready for one in found] == [True] * 3
        assert sorted(len(one.steps) for one in found) == [0, 0, 2]
        assert len(indexes(db, "t")) == 1


# A stamp of another system


def test_a_stamp_of_a_text_type_is_recognised_indexed_and_left(
    database: Database, db: Connection
) -> None:
    db.execute("CREATE TABLE t (a int, import_batch_id varchar(100))")
    done = go(database)
    assert (done.ready, done.stamp_type) == (False, "character varying(100)")
    assert [valid for _, valid in indexes(db, "t")] == [True]
    (standing,) = standings(db)
    assert standing.left == ("its stamp is character varying(100), and feeds write uuid",)
    assert standing.next == "batch-pipelines db track public.t --convert"


OLD = """
CREATE TABLE t (a int PRIMARY KEY, import_batch_id varchar(100));
INSERT INTO t SELECT n, CASE n % 4 WHEN 0 THEN 'job-' || n % 10 WHEN 1 THEN gen_random_uuid()::text
    WHEN 2 THEN '' END FROM generate_series(1, 2000) n;
CREATE INDEX ON t (import_batch_id);
"""


_TYPED = "INSERT INTO t VALUES (0, 'job-x') ON CONFLICT DO NOTHING"


def test_a_stamp_of_a_text_type_is_converted(database: Database, db: Connection) -> None:
    """Given writers of the old stamp, when it is converted, theirs are converted too."""
    db.execute(OLD.encode())
    with armed("adoption.filled", lambda _: db.execute(_TYPED)):
        done = go(database, convert=True)
    assert (done.ready, done.stamp_type) == (True, "uuid")
    assert column_type(db, "t", "import_batch_id_text") == "character varying(100)"
    for stamp, text in db.execute("SELECT import_batch_id::text, import_batch_id_text FROM t"):
        assert stamp == expected(text)
    assert db.execute("SELECT count(import_batch_id) FROM t").fetchone() == (1001,)
    db.execute("UPDATE t SET a = -a, import_batch_id = NULL WHERE a = 0")
    assert go(database, convert=True).steps == ()
    (standing,) = standings(db)
    assert standing.state == "done"

    db.execute("INSERT INTO t VALUES (-1, NULL, gen_random_uuid())")
    with pytest.raises(AdoptionError, match="1 rows carry the id of the batch"):
        give_back(database, "public.t", pace=QUICK)
    give_back(database, "public.t", drop_stamps=True, pace=QUICK)
    assert column_type(db, "t") == "character varying(100)"
    assert column_type(db, "t", "import_batch_id_text") is None
    assert db.execute("SELECT count(*) FROM t WHERE import_batch_id LIKE 'job%'").fetchone() == (
        501,
    )


def test_names_of_any_signs_do(database18: Database) -> None:
    with database18.connect("test") as db:
        db.execute("""CREATE TABLE "50% of 'it'" (import_batch_id text)""")
        db.execute("""INSERT INTO "50% of 'it'" VALUES ('job')""")
        assert go(database18, "public.50% of 'it'", convert=True).ready
        found = db.execute("""SELECT import_batch_id::text FROM "50% of 'it'\"""").fetchone()
        assert found == (expected("job"),)
        assert [s.state for s in standings(db)] == ["done"]


def expected(text: str | None) -> str | None:
    if not text:
        return None
    return str(uuid.uuid5(NAMESPACE, text)) if text.startswith("job") else text


# The way back


def test_what_was_added_is_taken_back(database: Database, db: Connection) -> None:
    db.execute("CREATE TABLE t (a int)")
    go(database)
    give_back(database, "public.t", pace=QUICK)
    assert column_type(db, "t") is None
    assert standings(db) == ()
    with pytest.raises(AdoptionError, match="neither tracked nor adopted"):
        give_back(database, "public.t", pace=QUICK)


def test_a_column_that_was_there_stays(database18: Database) -> None:
    with database18.connect("test") as db:
        db.execute("CREATE TABLE t (a int, import_batch_id uuid)")
        go(database18)
        go(database18)
        give_back(database18, "public.t", pace=QUICK)
        assert column_type(db, "t") == "uuid"
        assert indexes(db, "t") == []


def test_stamps_are_not_lost_unasked(database18: Database) -> None:
    with database18.connect("test") as db:
        db.execute(PARTITIONED)
        go(database18)
        db.execute("UPDATE t SET import_batch_id = gen_random_uuid() WHERE a < 7")
        with pytest.raises(
            AdoptionError, match=r"7 rows carry .* db untrack public\.t --drop-stamps"
        ):
            give_back(database18, "public.t", pace=QUICK)
        give_back(database18, "public.t", keep_column=True, pace=QUICK)
        assert standings(db) == ()
        assert column_type(db, "t") == "uuid"


def test_a_table_that_is_gone_is_named(database18: Database) -> None:
    with database18.connect("test") as db:
        db.execute("CREATE TABLE t (a int)")
        go(database18)
        db.execute("DROP TABLE t")
        (standing,) = standings(db)
        assert standing.state == "changed"
        assert standing.next == "batch-pipelines db untrack public.t --keep-column"
        give_back(database18, "public.t", keep_column=True)
        assert standings(db) == ()


class _StoppedError(Exception):
    """Stands for a process that ends."""


def _stop(_: object) -> None:
    raise _StoppedError
