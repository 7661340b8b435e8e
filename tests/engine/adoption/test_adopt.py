"""`db adopt`: an import history of another system becomes batches of the ledger, while it is in use."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from batch_pipelines.engine.adoption.adopt import Adopted, adopt
from batch_pipelines.engine.adoption.give_back import give_back
from batch_pipelines.engine.adoption.records import Options
from batch_pipelines.engine.adoption.standing import standings
from batch_pipelines.engine.adoption.track import track
from batch_pipelines.engine.digests.sql import table_digest
from batch_pipelines.engine.errors import AdoptionError
from batch_pipelines.engine.failpoints import armed
from batch_pipelines.engine.ledger import batches
from tests.engine.adoption.support import QUICK, column_type, indexes, writing

if TYPE_CHECKING:
    from batch_pipelines.engine.postgres.database import Connection, Database

NOTHING = Options()
NAMESPACE = uuid.UUID("143bae25-27d1-562e-91b2-0fefd4ff2eb2")
HISTORY = """
CREATE TABLE import_history (
    id serial PRIMARY KEY, job_id varchar(60) NOT NULL, status varchar(20) NOT NULL,
    started_at timestamp NOT NULL DEFAULT now(), completed_at timestamp, total_rows int,
    failed_rows int, error_message text, rolled_back_at timestamptz, created_by int);
INSERT INTO import_history (job_id, status, started_at, completed_at, total_rows, failed_rows)
SELECT CASE n % 2 WHEN 0 THEN 'job-' || n ELSE md5(n::text)::uuid::text END,
    (ARRAY['completed', 'failed', 'Rolled Back', 'processing'])[n % 4 + 1],
    '2025-12-01'::timestamp + n * interval '1 minute',
    '2025-12-01'::timestamp + n * interval '2 minutes',
    n, n % 3
FROM generate_series(1, 400) n;
"""
SHAPE = """
SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull FROM pg_attribute a
WHERE attrelid = 'import_history'::regclass AND attnum > 0 AND NOT attisdropped
UNION ALL SELECT tgname, 'trigger', true FROM pg_trigger WHERE tgrelid = 'import_history'::regclass
UNION ALL SELECT conname, pg_get_constraintdef(oid), convalidated FROM pg_constraint
WHERE conrelid = 'import_history'::regclass AND contype <> 'n'
UNION ALL SELECT 'batches', count(*)::text, true FROM batch_audit.import_history
ORDER BY 1
"""


def go(database: Database, options: Options = NOTHING) -> Adopted:
    return adopt(database, "public.import_history", options, by="a test", pace=QUICK)


@pytest.mark.versions
def test_a_history_is_adopted_and_given_back(database: Database, db: Connection) -> None:
    db.execute(HISTORY)
    before = db.execute(SHAPE).fetchall()
    done = go(database)
    assert (done.batches, done.unfinished, done.feed) == (300, 100, "adopted")
    assert column_type(db, "import_history", "batch_id") == "uuid not null"
    ((definition,),) = db.execute(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'u'"
        " AND conrelid = 'import_history'::regclass"
    ).fetchall()
    assert definition == "UNIQUE (batch_id)"
    for job_id, batch_id in db.execute("SELECT job_id, batch_id::text FROM import_history"):
        named = job_id.startswith("job-")
        assert batch_id == (str(uuid.uuid5(NAMESPACE, job_id)) if named else job_id)
    found = batches.history(db, limit=1000)
    assert {(b.status, b.adopted_from) for b in found} == {
        (state, "public.import_history") for state in ("SUCCESS", "FAILED", "ROLLED_BACK")
    }
    one = batches.find(db, "adopted/job-4")
    assert (one.job_id, one.status, one.source_records, one.rejected_records) == (
        "job-4",
        "SUCCESS",
        4,
        1,
    )
    assert one.started_at.isoformat() == "2025-12-01T00:04:00+00:00"
    assert one.error_details is None
    (standing,) = standings(db)
    assert (standing.state, standing.left) == ("done", ("100 jobs have not ended",))

    # The other system knows nothing of it, and goes on.
    db.execute("INSERT INTO import_history (job_id, status) VALUES ('job-new', 'ok')")
    db.execute("UPDATE import_history SET status = 'completed' WHERE job_id = 'job-8'")
    db.execute("UPDATE import_history SET rolled_back_at = now() WHERE job_id = 'job-12'")
    (standing,) = standings(db)
    assert (standing.state, standing.left, standing.next) == (
        "half done",
        ("1 jobs that have ended are not in the ledger",),
        "batch-pipelines db adopt public.import_history",
    )
    assert go(database).batches == 1
    assert batches.find(db, "adopted/job-new").status == "SUCCESS"
    assert batches.find(db, "adopted/job-12").status == "ROLLED_BACK"
    assert go(database).batches == 0

    give_back(database, "public.import_history", pace=QUICK)
    assert db.execute(SHAPE).fetchall() == before
    assert standings(db) == ()


def test_a_batch_id_that_is_complete_is_recognised(database: Database, db: Connection) -> None:
    """Given a varchar(100) batch id, filled, unique and not null, only the trigger is new."""
    db.execute(HISTORY)
    db.execute(
        "ALTER TABLE import_history ADD batch_id varchar(100) UNIQUE;"
        "UPDATE import_history SET batch_id = job_id;"
        "ALTER TABLE import_history ALTER batch_id SET NOT NULL"
    )
    other = str(uuid.uuid4())
    db.execute("UPDATE import_history SET batch_id = %s WHERE job_id = 'job-4'", (other,))
    before = db.execute(SHAPE).fetchall()
    done = go(database)
    assert [what for what, _ in done.steps] == [
        "have a trigger fill it from job_id from now on",
        "look for ids that stand twice or are missing",
        "write the jobs that have ended into the ledger",
    ]
    assert done.batches == 300
    assert batches.find(db, "adopted/job-4").batch_id == other
    assert batches.find(db, "adopted/job-400").batch_id == str(uuid.uuid5(NAMESPACE, "job-400"))
    db.execute("INSERT INTO import_history (job_id, status) VALUES ('job-new', 'ok')")
    assert go(database).batches == 1
    give_back(database, "public.import_history", pace=QUICK)
    db.execute("DELETE FROM import_history WHERE job_id = 'job-new'")
    assert db.execute(SHAPE).fetchall() == before


def test_a_half_migrated_batch_id_is_completed_and_given_back(
    database18: Database,
) -> None:
    with database18.connect("test") as db:
        db.execute(HISTORY)
        db.execute("ALTER TABLE import_history ADD batch_id varchar(100)")
        before = db.execute(SHAPE).fetchall()
        assert go(database18).batches == 300
        assert column_type(db, "import_history", "batch_id") == "character varying(100) not null"
        give_back(database18, "public.import_history", pace=QUICK)
        assert db.execute(SHAPE).fetchall() == before


def test_an_id_that_stands_twice_is_reported_with_its_rows(
    database: Database, db: Connection
) -> None:
    db.execute(HISTORY)
    db.execute(
        "UPDATE import_history SET job_id = 'job-2', error_message = 'secret' WHERE id IN (7, 9)"
    )
    db.execute("UPDATE import_history SET job_id = '' WHERE id = 11")
    for _ in range(2):
        with pytest.raises(AdoptionError) as raised:
            go(database)
        assert (
            "job_id job-2 stands in 3 rows (id=2; id=7; id=9); job_id is missing in rows (id=11)."
            in str(raised.value)
        )
        assert "secret" not in str(raised.value)
        assert indexes(db, "import_history", "batch_id") == []
        assert batches.history(db) == []
        (standing,) = standings(db)
        assert standing.state == "half done"
        assert standing.next == "batch-pipelines db adopt public.import_history"
    db.execute(
        "UPDATE import_history SET job_id = 'x' || id, batch_id = NULL WHERE id IN (7, 9, 11)"
    )
    assert go(database).batches == 300


def test_an_id_written_twice_meanwhile_is_reported_too(database18: Database) -> None:
    """Given a second row of an id just before the unique index, when built, the rows are named."""
    with database18.connect("test") as db:
        db.execute(HISTORY)
        insert = "INSERT INTO import_history (job_id, status) VALUES ('job-2', 'ok')"
        with (
            armed("adoption.index", lambda _: db.execute(insert)),
            pytest.raises(AdoptionError, match="job-2 stands in 2 rows"),
        ):
            go(database18)
        assert [valid for _, valid in indexes(db, "import_history", "batch_id")] == [False]
        db.execute("DELETE FROM import_history WHERE id > 400")
        assert go(database18).batches == 300
        assert [valid for _, valid in indexes(db, "import_history", "batch_id")] == [True]


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (
            "UPDATE import_history SET status = 'weird' WHERE id = 3",
            Options(),
            r"status has words that say no state: weird\. Say .* `--status weird=SUCCESS`",
        ),
        (
            "ALTER TABLE import_history RENAME job_id TO j",
            Options(),
            "no column is known to be its job_id: say `--column job_id=NAME`",
        ),
        ("", Options(columns={"job_id": "nothing"}), "there is no column nothing for job_id"),
        (
            "",
            Options(columns={"job": "id"}),
            "`--column job=` is not known; there are job_id, status",
        ),
        (
            "",
            Options(columns={"started_at": "id"}),
            "id is of type integer; started_at has to be a time",
        ),
        ("", Options(states={"x": "GOOD"}), "`--status x=GOOD`: states are SUCCESS"),
        ("", Options(feed="No"), "'No' is no name of a feed"),
        ("ALTER TABLE import_history ADD batch_id int", Options(), "batch_id is of type integer"),
    ],
)
def test_what_is_no_history_is_refused_before_anything_is_changed(
    database18: Database, change: str, options: Options, message: str
) -> None:
    with database18.connect("test") as db:
        db.execute((HISTORY + change).encode())
        before = db.execute(SHAPE).fetchall()
        with pytest.raises(AdoptionError, match=message):
            go(database18, options)
        assert db.execute(SHAPE).fetchall() == before
        assert standings(db) == ()


def test_columns_and_words_are_mapped_and_remembered(database18: Database) -> None:
    with database18.connect("test") as db:
        db.execute(
            'CREATE TABLE import_history (nr bigint, "how %s" text, begun date, what text);'
            "INSERT INTO import_history VALUES (1, 'gut', '2024-01-01', 'users'),"
            " (0, 'gut', 'infinity', ''), (2, 'gut', '2024-01-02', 'users'),"
            " (3, 'schlecht', '2024-01-03', 'users')"
        )
        columns = {
            "job_id": "nr",
            "status": "how %s",
            "started_at": "begun",
            "partition_key": "what",
        }
        options = Options(columns, {"Gut": "SUCCESS", "schlecht": "PARTIAL_SUCCESS"}, "inventory")
        assert go(database18, options).batches == 4
        found = [(b.name, b.attempt, b.job_id, b.status) for b in batches.history(db)]
        assert found.pop(0)[:3] == ("inventory/0", 1, "0")
        assert sorted(found) == [
            ("inventory/users", 1, "1", "SUCCESS"),
            ("inventory/users", 2, "2", "SUCCESS"),
            ("inventory/users", 3, "3", "PARTIAL_SUCCESS"),
        ]
        db.execute("INSERT INTO import_history VALUES (4, 'gut', '2024-01-04', 'users')")
        db.execute("INSERT INTO import_history VALUES (5, 'bald', '2024-01-05', 'users')")
        with pytest.raises(AdoptionError, match="bald"):
            go(database18)
        assert go(database18, Options(states={"bald": "IN_PROGRESS"})).batches == 1
        assert batches.find(db, "inventory/users").attempt == 4


def test_nothing_of_ours_that_was_rolled_back_is_forgotten(database18: Database) -> None:
    with database18.connect("test") as db:
        db.execute(HISTORY)
        go(database18)
        db.execute(
            "UPDATE batch_audit.import_history SET status = 'ROLLED_BACK', rolled_back_at = now()"
            " WHERE job_id = 'job-4'"
        )
        assert go(database18).batches == 0
        with pytest.raises(AdoptionError, match="1 of its batches were rolled back here"):
            give_back(database18, "public.import_history", pace=QUICK)


def test_a_role_that_knows_nothing_of_the_ledger_goes_on_writing(database18: Database) -> None:
    with database18.connect("test") as db:
        db.execute(HISTORY)
        go(database18)
        db.execute("CREATE ROLE app NOLOGIN; GRANT ALL ON import_history TO app")
        db.execute("GRANT ALL ON SEQUENCE import_history_id_seq TO app")
        try:
            with db.transaction():
                db.execute("SET LOCAL ROLE app")
                db.execute("INSERT INTO import_history (job_id, status) VALUES ('n', 'pending')")
            found = db.execute(
                "SELECT batch_id::text FROM import_history WHERE job_id = 'n'"
            ).fetchone()
            assert found == (str(uuid.uuid5(NAMESPACE, "n")),)
        finally:
            db.execute("DROP OWNED BY app; DROP ROLE app")


def test_writers_wait_for_no_more_than_a_moment(database18: Database) -> None:
    """Given a writer of every row in turn, when the history is adopted, it is never held up long."""
    with database18.connect("test") as db:
        db.execute(HISTORY)
        db.execute(
            "INSERT INTO import_history (job_id, status) SELECT 'j' || n, 'ok'"
            " FROM generate_series(1, 20000) n"
        )
        update = "UPDATE import_history SET failed_rows = %s WHERE id = %s"
        with writing(database18, update, lambda n: (n, n * 37 % 20000 + 1), 0.002) as waits:
            go(database18)
        assert waits.errors == []
        assert max(waits.seconds) < 1
        assert len(waits.seconds) > 20


OLD_ROWS = """
CREATE TABLE t (a int PRIMARY KEY, b jsonb, c numeric(6, 2), import_batch_id varchar(100));
INSERT INTO t SELECT n, '{"a": 1}', n / 7.0, CASE WHEN n % 10 > 0 THEN 'job-' || n / 100 * 4 END
FROM generate_series(1, 999) n;
"""
BALANCES = """
SELECT h.job_id, b.target_table, b.inserted, b.columns, b.digest_sum::bigint, b.digest_moment
FROM batch_audit.batch_table b JOIN batch_audit.import_history h USING (batch_id) ORDER BY 1
"""


@pytest.mark.parametrize("history_first", [True, False])
def test_what_adopted_batches_have_in_tracked_tables_is_written_down(
    database: Database, db: Connection, *, history_first: bool
) -> None:
    """Given rows that carry ids as text, when both are taken over, the ledger knows whose they are."""
    db.execute(HISTORY)
    db.execute(OLD_ROWS)

    def convert() -> None:
        track(database, "public.t", by="a test", convert=True, pace=QUICK)

    for step in [lambda: go(database), convert][:: 1 if history_first else -1]:
        step()
    found = db.execute(BALANCES).fetchall()
    # All of them are SUCCESS: 4, 8 ... 36; of job-0 there is none.
    assert [(job, table, rows) for job, table, rows, *_ in found] == sorted(
        (f"job-{n * 4}", "public.t", 90) for n in range(1, 10)
    )
    assert all(columns == ["a", "b", "c", "import_batch_id_text"] for *_, columns, _, _ in found)
    batch = batches.find(db, "adopted/job-8")
    stamped = sql.SQL("import_batch_id = {}").format(sql.Literal(batch.batch_id))
    sent: list[str | sql.Composable] = ["a", sql.SQL("b::text"), "c", "import_batch_id_text"]
    digest = table_digest(db, sql.Identifier("t"), sent, stamped)
    assert ("job-8", 90, digest.total, digest.moment) in [
        (job, rows, total, int(moment)) for job, _, rows, _, total, moment in found
    ]
    assert [s.state for s in standings(db)] == ["done", "done"]
    give_back(database, "public.t", keep_column=True)
    assert db.execute(BALANCES).fetchall() == []


@pytest.mark.versions
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=200))
def test_the_name_based_uuid_is_python_s(database: Database, text: str) -> None:
    with database.connect("test") as db:
        ((found,),) = db.execute("SELECT batch_audit.batch_id_of(%s)", (text,)).fetchall()
    assert found == (uuid.uuid5(NAMESPACE, text) if text else None)


@pytest.mark.parametrize(
    "text",
    [
        "550e8400-e29b-41d4-a716-446655440000",
        "550E8400-E29B-41D4-A716-446655440000",
        "550e8400e29b41d4a716446655440000",
    ],
)
def test_a_uuid_is_itself_however_it_is_written(db: Connection, text: str) -> None:
    ((found,),) = db.execute("SELECT batch_audit.batch_id_of(%s)", (text,)).fetchall()
    assert found == uuid.UUID(text)
