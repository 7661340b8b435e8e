"""The chain of the audit trail: nothing forks it, and nothing is changed behind its back."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from batch_pipelines.engine.audit import anchors
from batch_pipelines.engine.audit.verify import examine, verify_audit
from batch_pipelines.engine.ledger import events
from batch_pipelines.engine.ledger.events import Event
from tests.support_soak import short_or_long

if TYPE_CHECKING:
    from pathlib import Path

    from batch_pipelines.engine.postgres.database import Connection, Database

_AT_ONCE, _EACH = 16, 40
_ENTRIES = 60
_SQL_HASH = """
SELECT count(*) FROM batch_audit.audit_event WHERE hash = batch_audit.event_hash(seq, prev_hash,
    created_at, principal_id, action, status, resource_type, resource_id, correlation_id,
    session_context, compliance_context, details)
"""
_TRUNCATE_MONTH = """
DO $$ BEGIN
    EXECUTE format('TRUNCATE batch_audit.%I',
        'audit_event_' || to_char(now() AT TIME ZONE 'UTC', 'YYYY_MM'));
END $$
"""
_SEALS_AGAIN = """
DO $$
DECLARE
    previous record;
    entry record;
BEGIN
    SELECT seq, hash INTO previous FROM batch_audit.audit_event WHERE seq < %s
        ORDER BY seq DESC LIMIT 1;
    FOR entry IN SELECT * FROM batch_audit.audit_event WHERE seq >= %s ORDER BY seq LOOP
        UPDATE batch_audit.audit_event e SET prev_hash = previous.hash,
            hash = batch_audit.event_hash(e.seq, previous.hash, e.created_at, e.principal_id, e.action,
                e.status, e.resource_type, e.resource_id, e.correlation_id, e.session_context,
                e.compliance_context, e.details)
        WHERE e.seq = entry.seq RETURNING e.seq, e.hash INTO previous;
    END LOOP;
    UPDATE batch_audit.audit_head SET seq = previous.seq, hash = previous.hash;
END $$
"""


def event(number: int) -> Event:
    return Event(
        f"someone {number % 3}", f"thing.{number % 5}.done", "SUCCESS", "thing", str(number),
        correlation_id=None if number % 2 else f"c{number}",
        details={"records": number, "share": number / 7, "note": 'a "quoted" ü', "none": None},
        session_context={"program": "test"} if number % 4 else {},
    )  # fmt: skip


def fill(connection: Connection, count: int) -> None:
    with connection.transaction():
        for number in range(count):
            events.append(connection, event(number))


def unprotected(connection: Connection) -> None:
    """What a superuser can do: switch off what stands in the way of tampering."""
    connection.execute("ALTER TABLE batch_audit.audit_event DISABLE TRIGGER append_only")
    connection.execute("ALTER TABLE batch_audit.audit_head DISABLE TRIGGER ALL")


def protect(connection: Connection) -> None:
    """And on again, so that only what was done tells of it."""
    connection.execute("ALTER TABLE batch_audit.audit_event ENABLE ALWAYS TRIGGER append_only")
    for trigger in ("append_only", "step_on"):
        connection.execute(
            f"ALTER TABLE batch_audit.audit_head ENABLE ALWAYS TRIGGER {trigger}".encode()
        )


@pytest.mark.versions
def test_an_entry_is_chained_when_its_transaction_commits(db: Connection, tmp_path: Path) -> None:
    fill(db, 3)
    with db.transaction(force_rollback=True):
        events.append(db, event(3))
    fill(db, 1)
    found = verify_audit(db, tmp_path)
    assert (found.status, found.entries, found.last, found.exposed) == ("SUCCESS", 4, 4, 4)
    # The same hashes by SQL and by Python: neither has the other's mistake.
    assert db.execute(_SQL_HASH).fetchall() == [(4,)]


def test_whoever_works_long_after_an_entry_keeps_nobody_waiting(
    db: Connection, database: Database
) -> None:
    with database.connect("other", lock_timeout="60s") as other, db.transaction():
        events.append(db, event(1))
        fill(other, 1)
    found = db.execute("SELECT seq, resource_id FROM batch_audit.audit_event ORDER BY seq")
    assert found.fetchall() == [(1, "0"), (2, "1")]


def test_appending_from_16_connections_at_once_forks_nothing(
    database: Database, db: Connection, tmp_path: Path
) -> None:
    def work(worker: int) -> None:
        with database.connect("worker") as connection:
            for number in range(_EACH):
                with connection.transaction():
                    events.append(connection, event(worker * _EACH + number))
                    if number % 8 == 0:
                        events.append(connection, event(number))
                if number % 10 == 0:
                    with connection.transaction(force_rollback=True):
                        events.append(connection, event(number))

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(work, range(_AT_ONCE)))
    found = verify_audit(db, tmp_path)
    assert found.findings == ()
    assert found.entries == found.last == _AT_ONCE * (_EACH + _EACH // 8)


@pytest.mark.versions
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE batch_audit.audit_event SET status = 'x'",
        "DELETE FROM batch_audit.audit_event",
        "TRUNCATE batch_audit.audit_event",
        _TRUNCATE_MONTH,
        "UPDATE batch_audit.audit_head SET seq = 0",
        "UPDATE batch_audit.audit_head SET seq = seq, hash = sha256(hash)",
        "UPDATE batch_audit.audit_head SET seq = seq + 1, ledger_id = gen_random_uuid()",
        "DELETE FROM batch_audit.audit_head",
    ],
)
def test_it_is_append_only_even_where_plain_triggers_do_not_fire(
    db: Connection, statement: str
) -> None:
    fill(db, 2)
    db.execute("SET session_replication_role = replica")
    with pytest.raises(
        psycopg.errors.InsufficientPrivilege, match=r"is append-only|goes on by one"
    ):
        db.execute(statement.encode())
    fill(db, 1)
    assert db.execute("SELECT count(*) FROM batch_audit.audit_event").fetchone() == (3,)


@pytest.mark.versions
def test_a_new_month_is_as_protected_as_the_first(db: Connection, tmp_path: Path) -> None:
    db.execute("SELECT batch_audit.ensure_audit_month('2031-01-05')")
    db.execute("SELECT batch_audit.ensure_audit_month('2031-01-05')")
    assert verify_audit(db, tmp_path).findings == ()
    db.execute("ALTER TABLE batch_audit.audit_event_2031_01 DISABLE TRIGGER append_only_truncate")
    (found,) = verify_audit(db, tmp_path).findings
    assert (found.kind, "audit_event_2031_01" in found.message) == ("unprotected", True)


def _edit(db: Connection, chosen: random.Random) -> None:
    column, value = chosen.choice([
        ("principal_id", "'nobody'"), ("action", "'x.done'"), ("status", "'FAILED'"),
        ("resource_type", "'y'"), ("resource_id", "'999'"), ("correlation_id", "'z'"),
        ("session_context", "'{\"a\": 1}'"), ("compliance_context", "'{}'"),
        ("details", "details || '{\"records\": -1}'"), ("details", "details - 'none'"),
        ("created_at", "created_at - interval '1 microsecond'"),
        ("hash", "sha256(hash)"), ("prev_hash", "sha256(prev_hash)"),
    ])  # fmt: skip
    seq = chosen.randint(1, _ENTRIES)
    statement = f"UPDATE batch_audit.audit_event SET {column} = {value} WHERE seq = {seq}"
    db.execute(statement.encode())


def _delete(db: Connection, chosen: random.Random) -> None:
    first = chosen.randint(1, _ENTRIES)
    last = first + chosen.choice([0, 0, 0, 3])
    db.execute("DELETE FROM batch_audit.audit_event WHERE seq BETWEEN %s AND %s", (first, last))


def _reorder(db: Connection, chosen: random.Random) -> None:
    one, other = chosen.sample(range(1, _ENTRIES + 1), 2)
    db.execute("UPDATE batch_audit.audit_event SET seq = -seq WHERE seq = ANY(%s)", ([one, other],))
    db.execute(
        "UPDATE batch_audit.audit_event SET seq = CASE seq WHEN %s THEN %s ELSE %s END WHERE seq < 0",
        (-one, other, one),
    )


def _truncate(db: Connection, chosen: random.Random) -> None:
    kept = chosen.randint(0, _ENTRIES - 1)
    db.execute("DELETE FROM batch_audit.audit_event WHERE seq > %s", (kept,))
    if chosen.random() < 0.5 and kept:
        db.execute(
            "UPDATE batch_audit.audit_head h SET seq = e.seq, hash = e.hash"
            " FROM batch_audit.audit_event e WHERE e.seq = %s",
            (kept,),
        )


def _forge(db: Connection, chosen: random.Random) -> None:
    """An edit, and all hashes from there on made anew: the chain holds again, by itself."""
    seq = chosen.randint(1, _ENTRIES)
    db.execute(
        "UPDATE batch_audit.audit_event SET principal_id = 'somebody else' WHERE seq = %s", (seq,)
    )
    db.execute((_SEALS_AGAIN % (seq, seq)).encode() if seq > 1 else _reseal_all(db))


def _reseal_all(db: Connection) -> bytes:
    begin = "SELECT 0::bigint AS seq, sha256(uuid_send(ledger_id)) AS hash INTO previous"
    statement = _SEALS_AGAIN % (1, 1)
    start = statement.index("SELECT seq, hash INTO previous")
    end = statement.index("LIMIT 1;") + len("LIMIT 1;")
    return f"{statement[:start]}{begin} FROM batch_audit.audit_head;{statement[end:]}".encode()


@short_or_long("times", 100, 1000)
def test_whatever_a_superuser_changes_of_what_is_anchored_is_found(
    times: int, database18: Database, tmp_path: Path
) -> None:
    chosen = random.Random(times)  # noqa: S311  # the same ones each time
    with database18.connect("test") as db:
        fill(db, _ENTRIES)
        anchors.drop(db, tmp_path)
        fill(db, 5)
        assert verify_audit(db, tmp_path).status == "SUCCESS"
        unprotected(db)
        missed = []
        for number in range(times):
            tamper: Any = chosen.choice([_edit, _delete, _reorder, _truncate, _forge])
            with db.transaction(force_rollback=True):
                before = content(db)
                tamper(db, chosen)
                assert content(db) != before
                protect(db)
                found = examine(db, tmp_path)
                if found.status != "FAILED" or found.findings[0].seq is None:
                    missed.append((number, tamper.__name__))
        assert missed == []


def content(db: Connection) -> list[tuple[Any, ...]]:
    return db.execute("SELECT * FROM batch_audit.audit_event ORDER BY seq").fetchall()


@pytest.mark.versions
def test_the_first_entry_that_does_not_hold_is_named(db: Connection, tmp_path: Path) -> None:
    fill(db, 20)
    unprotected(db)
    db.execute("UPDATE batch_audit.audit_event SET status = 'FAILED' WHERE seq IN (7, 12)")
    db.execute("DELETE FROM batch_audit.audit_event WHERE seq = 15")
    protect(db)
    found = verify_audit(db, tmp_path)
    assert [(each.seq, each.kind) for each in found.findings] == [
        (7, "edited"), (12, "edited"), (15, "gap"),
    ]  # fmt: skip


def test_without_an_anchor_a_chain_made_anew_holds_and_the_exposure_is_told(
    db: Connection, tmp_path: Path
) -> None:
    fill(db, 10)
    anchors.drop(db, tmp_path)
    fill(db, 5)
    unprotected(db)
    db.execute("UPDATE batch_audit.audit_event SET principal_id = 'somebody else' WHERE seq = 12")
    db.execute((_SEALS_AGAIN % (12, 12)).encode())
    protect(db)
    found = verify_audit(db, tmp_path)
    assert (found.status, found.anchored, found.exposed) == ("SUCCESS", 10, 5)
