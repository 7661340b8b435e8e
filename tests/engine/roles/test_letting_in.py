"""Letting the pipelines in to the embedded server, as a user who is a writer and no more."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from batch_pipelines.engine.postgres.database import Database
from batch_pipelines.engine.roles.letting_in import give_database, let_in
from tests.support_databases import IS_GIVEN, fresh

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.postgres.server import EmbeddedServer

NEVER = [
    "DELETE FROM batch_audit.audit_event",
    "UPDATE batch_audit.audit_event SET action = 'other'",
    "TRUNCATE batch_audit.import_history",
    "ALTER TABLE batch_audit.import_reject DISABLE TRIGGER ALL",
    "SELECT raw FROM batch_audit.import_reject",
    "CREATE TABLE batch_audit.mine (x int)",
    "CREATE TABLE public.mine (x int)",
    "DROP TABLE public.before",
    "ALTER TABLE public.before ADD COLUMN x int",
    "TRUNCATE public.before",
    "SET ROLE batch_owner",
    "SET ROLE postgres",
    "CREATE SCHEMA mine",
    "CREATE DATABASE mine",
]


@pytest.fixture
def login(embedded: EmbeddedServer) -> Iterator[str]:
    """A user as the embedded server makes one."""
    name = f"batch_pipelines_test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(embedded.url("postgres"), autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {name} LOGIN".encode())
        yield name
        admin.execute(f"DROP ROLE {name}".encode())


@pytest.fixture
def owner(database18: Database, login: str) -> Iterator[Connection]:
    """The owner of a database with a ledger and a table, and with rows that wait to be published."""
    if IS_GIVEN:
        pytest.skip("of the embedded server, and another one is given")
    with database18.connect("test") as connection:
        connection.execute("CREATE TABLE public.before (id serial, note text)")
        connection.execute("CREATE TABLE batch_staging.waits (x int)")
        yield connection
        connection.execute(f"DROP OWNED BY {login}".encode())


def as_user(database: Database, login: str) -> Database:
    return Database(make_conninfo(database.url, user=login))


def test_the_pipelines_load_tables_that_were_there_and_tables_to_come(
    owner: Connection, database18: Database, login: str
) -> None:
    let_in(owner, login)
    owner.execute("CREATE SCHEMA shop; CREATE TABLE shop.later (id int PRIMARY KEY, note text)")

    with as_user(database18, login).connect("test") as pipelines:
        for table in ("public.before", "shop.later"):
            for statement in (
                "INSERT INTO {} (id, note) VALUES (1, 'a')", "UPDATE {} SET note = 'b'",
                "SELECT * FROM {}", "DELETE FROM {}", "ANALYZE {}",
            ):  # fmt: skip
                pipelines.execute(statement.format(table).encode())
        pipelines.execute("INSERT INTO public.before (note) VALUES ('by its sequence')")
        pipelines.execute("DROP TABLE batch_staging.waits")
        for statement in NEVER:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                pipelines.execute(statement.encode())


def test_who_is_in_is_let_in_once(owner: Connection, login: str) -> None:
    """Given who is in, when the next command begins, it takes back nothing that the owner changed."""
    let_in(owner, login)
    owner.execute(f"REVOKE DELETE ON public.before FROM {login}".encode())
    let_in(owner, login)
    may = owner.execute("SELECT has_table_privilege(%s, 'public.before', 'DELETE')", (login,))
    assert may.fetchone() == (False,)


def test_dagsters_storage_of_before_becomes_theirs(embedded: EmbeddedServer, login: str) -> None:
    with fresh(embedded.url("postgres")) as url:
        with Database(url).connect("test") as connection:
            connection.execute(
                "CREATE TABLE runs (id bigserial); CREATE VIEW seen AS SELECT id FROM runs"
            )
            give_database(connection, login)
            give_database(connection, login)
        with as_user(Database(url), login).connect("test") as pipelines:
            pipelines.execute("INSERT INTO runs DEFAULT VALUES")
            pipelines.execute("ALTER TABLE runs ADD COLUMN tag text")
            pipelines.execute("CREATE TABLE more (x int); DROP VIEW seen")
