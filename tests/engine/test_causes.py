"""Each error has a cause, and only what may be gone by itself counts as healing."""

from __future__ import annotations

import errno
import inspect
from typing import TYPE_CHECKING

import psycopg
import pytest

from batch_pipelines.engine import errors
from batch_pipelines.engine.causes import CAUSES, HEALING, cause_of

if TYPE_CHECKING:
    from pathlib import Path

    from batch_pipelines.engine.postgres.database import Connection, Database

pytestmark = pytest.mark.versions

RAISED = {
    "division by zero": ("SELECT 1 / 0", "rows"),
    "value": ("SELECT 'x'::int", "rows"),
    "check": ("CREATE TEMP TABLE c (a int CHECK (a > 0)); INSERT INTO c VALUES (0)", "rows"),
    "no such table": ("SELECT * FROM nowhere", "unexpected"),
    "statement timeout": ("SET statement_timeout = 1; SELECT pg_sleep(5)", "conflict"),
    "read only": (
        "BEGIN READ ONLY; CREATE TABLE batch_audit.x (a int)",
        "database",
    ),
    "session ended": ("SELECT pg_terminate_backend(pg_backend_pid())", "database"),
}


@pytest.mark.parametrize(("statement", "cause"), RAISED.values(), ids=RAISED)
def test_what_postgresql_raises(database18: Database, statement: str, cause: str) -> None:
    with pytest.raises(psycopg.Error) as raised, database18.connect("test") as connection:
        connection.execute(statement.encode())
    assert cause_of(raised.value) == cause


def test_a_lock_that_was_not_to_be_had_and_a_deadlock(database18: Database, db: Connection) -> None:
    with (
        database18.connect("holder") as holder,
        database18.connect("waiter", lock_timeout="1ms") as waiter,
        holder.transaction(),
    ):
        holder.execute("LOCK TABLE batch_audit.batch_lease")
        with pytest.raises(psycopg.errors.LockNotAvailable) as raised:
            waiter.execute("SELECT * FROM batch_audit.batch_lease")
    assert cause_of(raised.value) == "conflict"
    assert cause_of(psycopg.errors.DeadlockDetected()) == "conflict"
    assert cause_of(psycopg.errors.SerializationFailure()) == "conflict"
    assert cause_of(psycopg.errors.TooManyConnections()) == "conflict"
    assert cause_of(psycopg.errors.DiskFull()) == "disk_full"
    assert cause_of(psycopg.errors.CannotConnectNow()) == "database"


def test_a_database_that_is_not_there(database18: Database) -> None:
    gone = type(database18)("postgresql://127.0.0.1:1/nowhere")
    with pytest.raises(errors.SettingsError) as raised:
        gone.connect("test")
    assert cause_of(raised.value) == "database"


@pytest.mark.parametrize(
    ("number", "cause"),
    [
        (errno.ENOSPC, "disk_full"), (errno.EDQUOT, "disk_full"), (errno.EIO, "storage"),
        (errno.ESTALE, "storage"), (errno.ETIMEDOUT, "storage"), (errno.EMFILE, "storage"),
        (errno.ECONNRESET, "storage"),
        (errno.EACCES, "unexpected"), (errno.ENOENT, "unexpected"), (errno.EROFS, "unexpected"),
    ],
)  # fmt: skip
def test_what_the_system_raises(number: int, cause: str) -> None:
    assert cause_of(OSError(number, "it says")) == cause


def test_a_full_disk_is_known_as_such(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space") as raised, open("/dev/full", "wb") as full:  # noqa: PTH123
        full.write(b"x")
    assert cause_of(raised.value) == "disk_full"


def test_an_interrupted_run_is_not_a_defect() -> None:
    assert cause_of(KeyboardInterrupt()) == "interrupted"
    assert cause_of(ZeroDivisionError()) == "unexpected"


def test_each_error_of_ours_has_a_cause_and_what_people_must_mend_heals_not() -> None:
    ours = [
        kind for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.BatchError)
    ]  # fmt: skip
    assert {kind.cause for kind in ours} <= CAUSES
    assert {kind.__name__ for kind in ours if kind.cause in HEALING} == {
        "UnavailableError", "ServerError", "UnreachableError", "StagedCopyError", "BusyError",
        "LeaseLostError", "ConflictError",
    }  # fmt: skip
    assert HEALING < CAUSES
    assert not HEALING & {"delivery", "threshold", "rows", "rules", "contract", "validation"}
    assert not HEALING & {"cancelled", "interrupted", "paused"}
