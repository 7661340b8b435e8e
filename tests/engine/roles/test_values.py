"""Values of rows that were set aside: who may see them does so only after an entry that stays."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import psycopg
import pytest

from batch_pipelines.engine.ledger import values
from batch_pipelines.engine.postgres.database import Database
from tests.support_databases import IS_GIVEN, as_viewer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batch_pipelines.engine.postgres.database import Connection

pytestmark = pytest.mark.versions

READ = "SELECT convert_from(raw, 'UTF8') FROM batch_audit.opened_reject"
OPEN = "SELECT batch_audit.open_values(%s, 'look', 'ada')"
_BATCH = """
INSERT INTO batch_audit.import_history (batch_id, job_id, feed, feed_version, partition_key, status,
    attempt, requested_by, correlation_id)
VALUES (%(id)s::uuid, %(id)s::uuid, 'f', 1, %(id)s::text, 'FAILED', 1, 'x', 'tie')
"""
_REJECT = """
INSERT INTO batch_audit.import_reject (batch_id, feed, target_table, file_name, record_number, raw,
    sqlstate, message, breaches)
VALUES (%s, 'f', 'public.t', 'a.csv', 1, %s, '22P02', 'no number', '[]')
"""


@pytest.fixture
def batches(db: Connection) -> tuple[str, str]:
    """Two batches, each with a reject."""
    ids = (str(uuid.uuid4()), str(uuid.uuid4()))
    for batch_id, raw in zip(ids, (b"secret", b"other"), strict=True):
        db.execute(_BATCH, {"id": batch_id})
        db.execute(_REJECT, (batch_id, raw))
    return ids


@pytest.fixture
def viewer(database: Database, batches: tuple[str, str]) -> Iterator[Connection]:
    """Who may see values."""
    if IS_GIVEN:
        pytest.skip(
            "nobody may log in to a server that was given whom its administrator does not know"
        )
    with Database(as_viewer(database.url)).connect("test") as connection:
        yield connection


def events(db: Connection) -> list[tuple[str, ...]]:
    found = db.execute(
        "SELECT principal_id, action, status, resource_id, correlation_id, session_context->>'login' "
        "FROM batch_audit.audit_event"
    )
    return found.fetchall()


def refused(connection: Connection, query: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(query.encode())


def test_nothing_is_shown_before_an_entry_and_then_of_that_batch_alone(
    viewer: Connection, db: Connection, batches: tuple[str, str]
) -> None:
    refused(viewer, READ)
    refused(viewer, "SELECT raw FROM batch_audit.import_reject")
    with values.opened(viewer, batches[0], "look", "ada"):
        assert viewer.execute(READ).fetchall() == [("secret",)]
        assert events(db) == [
            ("ada", "values.read", "SUCCESS", batches[0], "tie", "batch_pipelines_test_viewer")
        ]
    refused(viewer, READ)


def test_an_entry_that_is_taken_back_shows_nothing(
    viewer: Connection, db: Connection, batches: tuple[str, str]
) -> None:
    """Given a look in one transaction, which could be taken back after it, nothing is seen."""
    with viewer.transaction(force_rollback=True):
        viewer.execute(OPEN, (batches[0],))
        with pytest.raises(psycopg.errors.InsufficientPrivilege), viewer.transaction():
            viewer.execute(READ)
    refused(viewer, READ)
    assert events(db) == []


def test_what_one_session_has_opened_no_other_sees(
    viewer: Connection, database: Database, db: Connection, batches: tuple[str, str]
) -> None:
    with values.opened(viewer, batches[0], "look", "ada"):
        ((opening,),) = viewer.execute("SELECT current_setting('batch_pipelines.opening')")
        with Database(as_viewer(database.url)).connect("test") as other:
            refused(other, READ)
            other.execute("SELECT set_config('batch_pipelines.opening', %s, false)", (opening,))
            refused(other, READ)
        refused(viewer, "SELECT * FROM batch_audit.values_opening")


def test_a_condition_that_tells_what_it_is_given_is_told_nothing_of_other_batches(
    viewer: Connection, db: Connection, batches: tuple[str, str]
) -> None:
    viewer.execute(
        "CREATE FUNCTION pg_temp.tell(bytea) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS "
        "$$ BEGIN RAISE NOTICE '%', convert_from($1, 'UTF8'); RETURN true; END $$"
    )
    told: list[str | None] = []
    viewer.add_notice_handler(lambda notice: told.append(notice.message_primary))
    with values.opened(viewer, batches[0], "look", "ada"):
        viewer.execute("SELECT FROM batch_audit.opened_reject WHERE pg_temp.tell(raw)")
    assert told == ["secret"]
