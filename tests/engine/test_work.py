"""Which batch a stage works on, whether it does, and how its end is recorded."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import psycopg
import pytest
from dagster._core.errors import DagsterExecutionInterruptedError

from batch_pipelines.engine.errors import (
    BatchError,
    DeliveryError,
    LeaseLostError,
    PublishError,
    StageOrderError,
    ValidationError,
)
from batch_pipelines.engine.failpoints import armed
from batch_pipelines.engine.ledger import batches, stages
from batch_pipelines.engine.ledger.stages import STAGES
from batch_pipelines.engine.work import action, batch_for, explain, recorded
from tests.support_engine import do_stage, new_id
from tests.support_process import At, importing

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.ledger.stages import Stage
    from batch_pipelines.engine.postgres.database import Connection
    from tests.engine.conftest import MakeSite
    from tests.support_engine import Site

DDL = "CREATE TABLE t (a integer PRIMARY KEY, b text, import_batch_id uuid)"
FILE = {"a.csv": "a,b\n1,x\n2,y\n"}
LATER: tuple[Stage, ...] = STAGES[1:]
DOCS = Path(__file__).parents[2] / "docs" / "stages.md"

# State, and what checksum, bulk_write, validate and archive do with such a batch. w: work, W: work if
# the stage before is done, O: work once, r: report, -: refuse.
TABLE = {
    "IN_PROGRESS": "WWW-",
    "FAILED": "WWW-",
    "PUBLISHED": "rrw-",
    "VALIDATION_FAILED": "rrw-",
    "SUCCESS": "rrrO",
    "PARTIAL_SUCCESS": "rrrO",
    "DUPLICATE": "rrrr",
    "SUPERSEDED": "rrrr",
    "ARCHIVED": "rrrr",
    "ROLLED_BACK": "----",
}


# The table stage x state x done


def expected(cell: str, stage: Stage, done: Collection[str]) -> str:
    match cell:
        case "w":
            return "work"
        case "W":
            return "work" if STAGES[STAGES.index(stage) - 1] in done else "refuse"
        case "O":
            return "report" if stage in done else "work"
        case "r":
            return "report"
        case _:
            return "refuse"


@pytest.mark.parametrize("status", TABLE)
@pytest.mark.parametrize("stage", LATER)
def test_every_cell_of_the_table(status: str, stage: Stage) -> None:
    cell = TABLE[status][LATER.index(stage)]
    for bits in range(2 ** len(STAGES)):
        done = {each for place, each in enumerate(STAGES) if bits >> place & 1}
        what, why = action(stage, status, done)
        assert what == expected(cell, stage, done)
        assert (why == "") == (what == "work")


def test_the_table_has_every_state_the_ledger_knows(site18: MakeSite) -> None:
    site = site18(DDL)
    ((check,),) = site.sql(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'c'"
        " AND conrelid = 'batch_audit.import_history'::regclass"
        " AND pg_get_constraintdef(oid) LIKE '%ROLLED_BACK%'"
    )
    assert set(re.findall(r"'([A-Z_]+)'", check)) == set(TABLE)


def test_the_documented_table_is_the_same() -> None:
    words = {"work (again)": "w", "work": "w", "work, once": "O", "report": "r", "refuse": "-"}
    words |= {f"work, if {stage} is done": "W" for stage in ("ingest", "checksum", "bulk_write")}
    text = DOCS.read_text(encoding="utf-8")
    found = {}
    head, *rows = re.findall(
        r"^\| (.*) \|$", text[text.index("## The later stages") :], re.MULTILINE
    )
    assert head.split(" | ") == ["state of the batch", *LATER]
    for row in rows[1:]:
        states, *cells = row.split(" | ")
        for state in re.findall(r"`(\w+)`", states):
            found[state] = "".join(words[cell] for cell in cells)
    assert found == TABLE


# Which batch


def test_a_stage_without_a_batch_is_refused(site18: MakeSite) -> None:
    site = site18(DDL)
    for stage in LATER:
        with site.work() as (connection, work), pytest.raises(StageOrderError, match="no batch"):
            batch_for(connection, work, stage)
    assert site.history() == []


def test_a_run_of_later_stages_is_attached_to_the_newest_batch_of_its_partition(
    site18: MakeSite,
) -> None:
    site = site18(DDL)
    mine = site.load(FILE)
    site.load({"a.csv": "a,b\n7,z\n"}, "second")
    duplicate = site.load(FILE)
    assert (duplicate.status, duplicate.duplicate_of) == ("DUPLICATE", mine.batch_id)
    with site.work() as (connection, work):
        batch, to_do = batch_for(connection, work, "archive")
        assert (batch.batch_id, to_do) == (mine.batch_id, False)
        assert batches.runs(connection, mine.batch_id)[-1] == work.run_id
        attached = batches.of_run(connection, work.run_id)
    assert attached is not None
    assert attached.batch_id == mine.batch_id


def test_a_damaged_delivery_mended_by_the_one_in_force_leaves_the_partition_done(
    site18: MakeSite,
) -> None:
    """Given good, damaged and the good one again, stages alone find the batch in force."""
    site = site18(DDL)
    good = site.load(FILE)
    with pytest.raises(DeliveryError):
        site.load({"a.csv": "a,b\n1,z\n", "a.csv.crc32c": "00000000"})
    again = site.load(FILE)
    assert [batch.status for batch in site.history()] == ["SUCCESS", "FAILED", "DUPLICATE"]
    assert site.newest() == good
    for stage in LATER:
        with site.work() as (connection, work):
            batch, to_do = batch_for(connection, work, stage)
        assert (batch.batch_id, to_do) == (good.batch_id, False)
    last = batches.last_attempt(site.connection, site.feed.feed, "first")
    assert last == again


def test_a_duplicate_of_another_partition_is_not_worked_on_from_here(site18: MakeSite) -> None:
    site = site18(DDL, identity="feed")
    site.deliver(FILE, "other")
    other = site.run("other", stages=STAGES[:3])
    twin = site.load(FILE)
    assert (twin.status, twin.duplicate_of) == ("DUPLICATE", other.batch_id)
    with site.work() as (connection, work):
        batch, to_do = batch_for(connection, work, "validate")
    assert (batch.batch_id, to_do) == (twin.batch_id, False)


def test_a_run_keeps_to_its_own_batch(site18: MakeSite) -> None:
    site = site18(DDL)
    first, second = new_id(), new_id()
    site.deliver(FILE)
    site.run(run_id=first)
    site.deliver({"a.csv": "a,b\n1,z\n"})
    site.run(run_id=second)
    with site.work(run_id=first) as (connection, work):
        batch, to_do = batch_for(connection, work, "validate")
    assert (batch.batch_id, batch.status, to_do) == (first, "SUPERSEDED", False)


def test_a_refused_run_is_attached_to_nothing(site18: MakeSite) -> None:
    site = site18(DDL)
    site.deliver(FILE)
    batch = site.run(stages=STAGES[:1])
    with site.work() as (connection, work):
        with pytest.raises(
            StageOrderError, match=r"^orders/first: bulk_write cannot work on batch"
        ):
            batch_for(connection, work, "bulk_write")
        assert batches.of_run(connection, work.run_id) is None
    assert site.newest() == batch


# Retries


def test_a_retry_resumes_a_failed_batch_once_the_database_is_mended(site18: MakeSite) -> None:
    site = site18(DDL + "; ALTER TABLE t ADD CONSTRAINT small CHECK (a < 2)")
    site.deliver(FILE)
    first, second = new_id(), new_id()
    with pytest.raises(PublishError, match="small"):
        site.run(run_id=first)
    failed = site.newest()
    assert (failed.batch_id, failed.status) == (first, "FAILED")
    assert failed.completed_at is not None
    site.sql("ALTER TABLE t DROP CONSTRAINT small")
    resumed = site.run(run_id=second, stages=STAGES[2:])
    assert (resumed.batch_id, resumed.status, resumed.attempt) == (first, "SUCCESS", 1)
    assert resumed.error_details is None
    assert len(site.history()) == 1
    assert batches.runs(site.connection, first) == [first, second]
    records = stages.of_batch(site.connection, first)
    assert {name: record.run_id for name, record in records.items()} == {
        "ingest": first, "checksum": first, "bulk_write": second, "validate": second,
        "archive": second,
    }  # fmt: skip
    assert {record.status for record in records.values()} == {"SUCCESS"}
    assert site.stamps() == {first: 2}


@pytest.mark.parametrize(
    ("point", "stage"),
    [("checksum.read", "checksum"), ("bulk_write.before_fence", "bulk_write"),
     ("archive.written", "archive")],
)  # fmt: skip
def test_a_retry_from_the_failed_stage_resumes_the_batch(
    site18: MakeSite, point: str, stage: Stage
) -> None:
    site = site18(DDL)
    site.deliver(FILE)
    first, second = new_id(), new_id()

    def fail(_: object) -> NoReturn:
        raise OSError(28, "No space left on device", "/somewhere")

    with armed(point, fail), pytest.raises(OSError, match="No space"):
        site.run(run_id=first)
    record = stages.of_batch(site.connection, first)[stage]
    assert (record.status, record.run_id) == ("FAILED", first)
    assert record.error_details == "The file system refused: No space left on device (/somewhere)."
    visible = stage == "archive"
    assert site.newest().status == ("SUCCESS" if visible else "FAILED")
    assert site.stamps() == ({first: 2} if visible else {})
    resumed = site.run(run_id=second, stages=STAGES[STAGES.index(stage) :])
    assert (resumed.batch_id, resumed.status) == (first, "SUCCESS")
    assert batches.runs(site.connection, first) == [first, second]
    record = stages.of_batch(site.connection, first)[stage]
    assert (record.status, record.run_id, record.error_details) == ("SUCCESS", second, None)
    assert site.stamps() == {first: 2}


def die(site: Site, ended: Sequence[Stage], begun: Stage | None = None) -> Batch:
    """Run stages, begin another and be gone: no word to the ledger, and the lease not released."""
    with site.work() as (connection, work):
        for stage in ended:
            do_stage(stage, connection, work)
        if begun is not None:
            stages.start(connection, site.newest().batch_id, begun, work.run_id)
        work.lease._connection.close()
    return site.newest()


@pytest.mark.parametrize("stage", ["checksum", "bulk_write"])
def test_the_batch_of_a_killed_run_is_failed_by_the_next_run_which_completes(
    site18: MakeSite, stage: Stage
) -> None:
    site = site18(DDL)
    site.deliver(FILE)
    dead = die(site, STAGES[: STAGES.index(stage)], begun=stage)
    assert dead.status == "IN_PROGRESS"
    assert (site.settings.staging / dead.batch_id).exists()
    done = site.run()
    assert (done.status, done.attempt) == ("SUCCESS", 2)
    assert done.batch_id != dead.batch_id
    failed = batches.by_id(site.connection, dead.batch_id)
    assert failed.status == "FAILED"
    assert failed.error_details == (
        f"Its run ended without a word; run {done.batch_id} took the partition over."
    )
    record = stages.of_batch(site.connection, dead.batch_id)[stage]
    assert (record.status, record.error_details) == ("FAILED", failed.error_details)
    assert not (site.settings.staging / dead.batch_id).exists()
    assert site.stamps() == {done.batch_id: 2}


def test_a_dead_batch_is_found_behind_a_newer_one(site18: MakeSite) -> None:
    """Given a run that resumed its batch after another had failed, and died, it is failed too."""
    site = site18(DDL + "; ALTER TABLE t ADD CONSTRAINT small CHECK (a < 2)")
    site.deliver(FILE)
    first = new_id()
    for run_id in (first, new_id()):
        with pytest.raises(PublishError, match="small"):
            site.run(run_id=run_id)
    with site.work(run_id=first) as (connection, work):
        stages.start(connection, first, "bulk_write", first)
        batches.resume(connection, first)
        work.lease._connection.close()
    site.sql("ALTER TABLE t DROP CONSTRAINT small")
    done = site.run()
    assert [batch.status for batch in site.history()] == ["FAILED", "FAILED", "SUCCESS"]
    record = stages.of_batch(site.connection, first)["bulk_write"]
    assert record.status == "FAILED"
    assert done.batch_id in (record.error_details or "")


@pytest.mark.parametrize("stage", ["bulk_write", "validate"])
def test_a_published_batch_whose_run_died_is_finished_by_the_next_run(
    site18: MakeSite, stage: Stage
) -> None:
    site = site18(DDL)
    site.deliver(FILE)
    dead = die(site, STAGES[: STAGES.index(stage) + 1])
    assert dead.status == {"bulk_write": "PUBLISHED", "validate": "SUCCESS"}[stage]
    run_id = new_id()
    finished = site.run(run_id=run_id)
    assert (finished.batch_id, finished.status) == (dead.batch_id, "SUCCESS")
    assert batches.runs(site.connection, dead.batch_id) == [dead.batch_id, run_id]
    assert {r.status for r in stages.of_batch(site.connection, dead.batch_id).values()} == {
        "SUCCESS"
    }
    assert [(b.batch_id, b.status, b.duplicate_of) for b in site.history()] == [
        (dead.batch_id, "SUCCESS", None),
        (run_id, "DUPLICATE", dead.batch_id),
    ]
    assert not (site.settings.staging / dead.batch_id).exists()
    assert site.stamps() == {dead.batch_id: 2}


def test_killed_right_after_its_commit_the_stage_has_ended_too(site18: MakeSite) -> None:
    site = site18(DDL)
    site.deliver(FILE)
    run_id = new_id()
    with importing(site, run_id, at=At("bulk_write.after_commit")) as child:
        assert child.outcome() is None
    record = stages.of_batch(site.connection, run_id)["bulk_write"]
    assert (record.status, record.completed_at is None) == ("SUCCESS", False)
    assert site.run().batch_id == run_id
    records = stages.of_batch(site.connection, run_id).values()
    assert {record.status for record in records} == {"SUCCESS"}


def test_what_interrupts_a_run_after_its_commit_does_not_fail_the_stage(site18: MakeSite) -> None:
    site = site18(DDL)
    site.deliver(FILE)
    run_id = new_id()

    def interrupt(_: object) -> NoReturn:
        raise KeyboardInterrupt

    with armed("bulk_write.after_commit", interrupt), pytest.raises(KeyboardInterrupt):
        site.run(run_id=run_id)
    assert site.newest().status == "PUBLISHED"
    assert stages.of_batch(site.connection, run_id)["bulk_write"].status == "SUCCESS"


def test_a_batch_that_failed_validation_is_validated_by_the_next_run(site18: MakeSite) -> None:
    site = site18(DDL)
    site.deliver(FILE)
    batch = site.run(stages=STAGES[:3])
    site.sql("UPDATE t SET b = 'other' WHERE a = 1")
    with pytest.raises(ValidationError):
        site.run(stages=["validate"])
    with pytest.raises(ValidationError):
        site.run()
    assert site.newest().status == "VALIDATION_FAILED"
    site.sql("UPDATE t SET b = 'x' WHERE a = 1")
    again = site.run()
    assert (again.batch_id, again.status) == (batch.batch_id, "SUCCESS")
    assert stages.of_batch(site.connection, batch.batch_id)["archive"].status == "SUCCESS"
    assert len(batches.runs(site.connection, batch.batch_id)) == 4


# How an end is recorded


def start_batch(site: Site, connection: Connection, run_id: str) -> str:
    batches.start(
        connection, site.feed, "first", run_id, requested_by="a test", correlation_id=run_id
    )
    return run_id


def test_a_stage_that_ends_well_is_recorded(site18: MakeSite) -> None:
    site = site18(DDL)
    with site.work() as (connection, work):
        batch_id = start_batch(site, connection, work.run_id)
        with recorded(connection, work, batch_id, "ingest"):
            record = stages.of_batch(site.connection, batch_id)["ingest"]
            assert (record.status, record.run_id) == ("IN_PROGRESS", work.run_id)
            assert record.completed_at is None
        record = stages.of_batch(site.connection, batch_id)["ingest"]
    assert (record.status, record.error_details) == ("SUCCESS", None)
    assert record.completed_at is not None
    assert record.completed_at >= record.started_at
    assert site.newest().status == "IN_PROGRESS"


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (DeliveryError("a.csv: deliver it again."), "a.csv: deliver it again."),
        (KeyboardInterrupt(), "Interrupted."),
        (DagsterExecutionInterruptedError(), "Interrupted."),
        (ValueError("secret"), "Unexpected ValueError; the run's log has its trace."),
    ],
)
def test_what_a_stage_raises_fails_it_and_its_batch(
    site18: MakeSite, error: BaseException, why: str
) -> None:
    site = site18(DDL)
    with site.work() as (connection, work):
        batch_id = start_batch(site, connection, work.run_id)
        with pytest.raises(type(error)), recorded(connection, work, batch_id, "ingest"):
            raise error
    record = stages.of_batch(site.connection, batch_id)["ingest"]
    assert (record.status, record.error_details) == ("FAILED", why)
    batch = site.newest()
    assert (batch.status, batch.error_details) == ("FAILED", why)
    assert batch.completed_at is not None


def test_a_lost_lease_leaves_the_record_to_who_took_over(site18: MakeSite) -> None:
    site = site18(DDL)
    with site.work() as (connection, work):
        batch_id = start_batch(site, connection, work.run_id)
        with pytest.raises(LeaseLostError), recorded(connection, work, batch_id, "ingest"):
            raise LeaseLostError("Somebody else has it.")
    assert site.newest().status == "IN_PROGRESS"
    assert stages.of_batch(site.connection, batch_id)["ingest"].status == "IN_PROGRESS"


@pytest.mark.parametrize("error", [None, OSError(28, "No space left on device")])
def test_a_hung_run_says_nothing_about_a_batch_that_was_taken_over(
    site18: MakeSite, error: OSError | None
) -> None:
    """Given a run that wakes up after another has taken its batch over, the ledger is the other's."""
    site = site18(DDL)
    site.deliver(FILE)
    batch = site.run(stages=STAGES[:1])
    taker = new_id()

    def hang(connection: Connection) -> None:
        site.sql("UPDATE batch_audit.batch_lease SET expires_at = now() - interval '1 second'")
        assert site.run(run_id=taker, stages=LATER).status == "SUCCESS"
        if error is not None:
            raise error
        connection.execute("SELECT 1")

    with (
        site.work() as (connection, hung),
        pytest.raises(LeaseLostError, match=f"run {hung.run_id} no longer holds the lease"),
        recorded(connection, hung, batch.batch_id, "checksum"),
    ):
        hang(connection)
    records = stages.of_batch(site.connection, batch.batch_id)
    assert {record.status for record in records.values()} == {"SUCCESS"}
    assert records["checksum"].run_id == taker
    assert site.newest().status == "SUCCESS"


def fail_after(site: Site, lease_is: str, error: BaseException) -> None:
    site.sql(f"UPDATE batch_audit.batch_lease SET {lease_is}")
    raise error


def test_an_interrupted_run_that_was_taken_over_stays_interrupted(site18: MakeSite) -> None:
    site = site18(DDL)
    with site.work() as (connection, work):
        batch_id = start_batch(site, connection, work.run_id)
        with pytest.raises(KeyboardInterrupt), recorded(connection, work, batch_id, "ingest"):
            fail_after(site, "token = token + 1", KeyboardInterrupt())
    assert site.newest().status == "IN_PROGRESS"
    assert stages.of_batch(site.connection, batch_id)["ingest"].status == "IN_PROGRESS"


def test_an_expired_lease_that_nobody_took_lets_the_reason_be_recorded(site18: MakeSite) -> None:
    site = site18(DDL)
    with site.work() as (connection, work):
        batch_id = start_batch(site, connection, work.run_id)
        with pytest.raises(OSError, match="full"), recorded(connection, work, batch_id, "ingest"):
            fail_after(site, "expires_at = now() - interval '1 second'", OSError(28, "full"))
    assert site.newest().error_details == "The file system refused: full."


@pytest.mark.parametrize("noticed", [True, False])
def test_a_broken_connection_fails_the_stage_over_another(
    site18: MakeSite, *, noticed: bool
) -> None:
    site = site18(DDL)

    def lose(connection: Connection) -> None:
        pid = connection.info.backend_pid
        assert site.sql("SELECT pg_terminate_backend(%s, 5000)", pid) == [(True,)]
        if noticed:
            connection.execute("SELECT 1")

    with site.work() as (connection, work):
        batch_id = start_batch(site, connection, work.run_id)
        with (
            pytest.raises(PublishError) as error,
            recorded(connection, work, batch_id, "ingest"),
        ):
            lose(connection)
    why = "PostgreSQL ended the statement: SQLSTATE 57P01."
    assert str(error.value) in {why, "PostgreSQL ended the statement: the connection was lost."}
    batch = site.newest()
    assert (batch.status, batch.error_details) == ("FAILED", str(error.value))
    record = stages.of_batch(site.connection, batch_id)["ingest"]
    assert (record.status, record.error_details) == ("FAILED", str(error.value))


def test_what_is_visible_is_not_failed(site18: MakeSite) -> None:
    site = site18(DDL)
    site.deliver(FILE)
    batch = site.run(stages=STAGES[:3])
    with (
        site.work() as (connection, work),
        pytest.raises(KeyboardInterrupt),
        recorded(connection, work, batch.batch_id, "validate"),
    ):
        raise KeyboardInterrupt
    assert site.newest() == batch
    record = stages.of_batch(site.connection, batch.batch_id)["validate"]
    assert (record.status, record.error_details) == ("FAILED", "Interrupted.")


# What is told


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        (
            "INSERT INTO t (a, b) VALUES (424242, 'hush')",
            "SQLSTATE 23505, table t, constraint t_pkey",
        ),
        ("INSERT INTO t (b) VALUES ('hush')", "SQLSTATE 23502, table t, column a"),
        (
            "INSERT INTO t (a, b) VALUES (424243, 'hushhush')",
            "SQLSTATE 23514, table t, constraint c",
        ),
        ("SELECT 'hush'::integer", "SQLSTATE 22P02"),
        ("SELECT hush", "SQLSTATE 42703"),
        ("SELECT 424242 / 0", "SQLSTATE 22012"),
        ("DO $$BEGIN RAISE 'hush 424242'; END$$", "SQLSTATE P0001"),
    ],
)
def test_a_drivers_text_is_never_told(site18: MakeSite, statement: str, told: str) -> None:
    site = site18(
        DDL + "; ALTER TABLE t ADD CONSTRAINT c CHECK (b <> 'hushhush');"
        "INSERT INTO t (a, b) VALUES (424242, 'hush')"
    )
    with pytest.raises(psycopg.Error) as error:
        site.sql(statement)
    assert explain(error.value) == f"PostgreSQL ended the statement: {told}."


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (BatchError("As it stands."), "As it stands."),
        (OSError(28, "No space left on device", "/a/b"),
         "The file system refused: No space left on device (/a/b)."),
        (OSError("hush"), "The file system refused: OSError."),
        (KeyboardInterrupt("hush"), "Interrupted."),
        (SystemExit("hush"), "Interrupted."),
        (DagsterExecutionInterruptedError("hush"), "Interrupted."),
        (psycopg.OperationalError("hush"),
         "PostgreSQL ended the statement: the connection was lost."),
        (psycopg.ProgrammingError("hush"),
         "Unexpected ProgrammingError of PostgreSQL's driver; report it as a defect."),
        (psycopg.DataError("hush"),
         "Unexpected DataError of PostgreSQL's driver; report it as a defect."),
        (ValueError("hush"), "Unexpected ValueError; the run's log has its trace."),
        (UnicodeDecodeError("utf-8", b"hush\xff", 4, 5, "hush"),
         "Unexpected UnicodeDecodeError; the run's log has its trace."),
    ],
)  # fmt: skip
def test_other_errors_are_told_without_values(error: BaseException, told: str) -> None:
    assert explain(error) == told
