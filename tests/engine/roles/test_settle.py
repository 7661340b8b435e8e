"""Roles belong to a server, grants to a database: several ledgers share them, and nobody is robbed."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg
import pytest

from batch_pipelines.engine.errors import SettingsError
from batch_pipelines.engine.postgres.database import Database
from batch_pipelines.engine.postgres.migrate import downgrade, revisions, upgrade
from batch_pipelines.engine.roles.grants import ROLES
from batch_pipelines.engine.roles.settle import FIRST_REVISION, ensure_roles, is_settled
from tests.conftest import fresh_database
from tests.debian_postgres import DebianServer, debian_binaries

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.postgres.server import EmbeddedServer

pytestmark = pytest.mark.versions

BEFORE = revisions()[revisions().index(FIRST_REVISION) - 1]
MIGRATOR = "batch_pipelines_test_migrator"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A server on which nobody has made our roles."""
    binaries = debian_binaries("15")
    if binaries is None:
        pytest.skip("no binaries of PostgreSQL 15 on this machine")
    with DebianServer(binaries, {"fsync": "off"}) as url:
        yield url


def roles(url: str) -> set[str]:
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT rolname FROM pg_roles WHERE rolname ~ '^batch_'")
        return {str(name) for (name,) in found}


def of_database(url: str, name: str) -> Database:
    return Database(url.replace("@/postgres", f"@/{name}"))


def settled(database: Database) -> bool:
    with database.connect("test") as connection:
        return is_settled(connection)


def test_databases_that_make_the_roles_at_once_all_have_them(server: str) -> None:
    def go(number: int) -> None:
        with psycopg.connect(server, autocommit=True, application_name=str(number)) as connection:
            ensure_roles(connection)

    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            list(pool.map(go, range(8)))
            assert roles(server) == set(ROLES)
            with psycopg.connect(server) as connection:
                connection.execute("DROP ROLE " + ", ".join(ROLES))


def test_ledgers_of_a_server_share_roles_which_go_with_the_last_one(server: str) -> None:
    names = [f"ledger_{n}" for n in range(3)]
    databases = [of_database(server, name) for name in names]
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {names[0]}")
        upgrade(databases[0])
        for name in names[1:]:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {names[0]}")
    assert all(map(settled, databases))
    assert roles(server) == set(ROLES)

    downgrade(databases[0], "base")
    downgrade(databases[1], BEFORE)
    assert roles(server) == set(ROLES)
    assert all(map(settled, databases[2:]))
    upgrade(databases[1])
    assert settled(databases[1])

    with databases[2].connect("test") as connection:
        connection.execute(
            "CREATE TABLE public.t (x int); GRANT SELECT ON public.t TO batch_reader"
        )
    for database in databases[1:]:
        downgrade(database, "base")
    assert roles(server) == {"batch_reader"}, "the site has granted it something"


@contextmanager
def migrating(admin: Connection, url: str, rights: str) -> Iterator[Database]:
    """A database of a user who may migrate, and has no other rights than these."""
    name = admin.info.dbname
    admin.execute(f"CREATE ROLE {MIGRATOR} LOGIN {rights}".encode())
    admin.execute(f"ALTER DATABASE {name} OWNER TO {MIGRATOR}".encode())
    try:
        yield Database(url.replace("postgres@", f"{MIGRATOR}@"))
    finally:
        admin.execute(f"ALTER DATABASE {name} OWNER TO CURRENT_USER".encode())
        admin.execute(f"REASSIGN OWNED BY {MIGRATOR} TO CURRENT_USER".encode())
        admin.execute(f"DROP OWNED BY {MIGRATOR}; DROP ROLE {MIGRATOR}".encode())


def test_who_may_make_roles_need_not_be_a_superuser(server: str) -> None:
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("CREATE DATABASE own")
    own = of_database(server, "own")
    with own.connect("test") as admin, migrating(admin, own.url, "CREATEROLE") as database:
        upgrade(database)
        assert settled(database)
        downgrade(database, BEFORE)
        upgrade(database)
        assert settled(database)
        downgrade(database, "base")


@pytest.mark.parametrize("rights", ["NOCREATEROLE", "CREATEROLE"])
def test_an_administrator_is_told_what_to_type(embedded: EmbeddedServer, rights: str) -> None:
    """Given roles that somebody else has made, when they may not be used, nothing is changed."""
    with fresh_database(embedded) as url, Database(url).connect("test") as admin:
        ensure_roles(admin)
        with migrating(admin, url, rights) as database:
            with pytest.raises(SettingsError, match="Nothing was changed") as refused:
                upgrade(database)
            assert admin.execute("SELECT to_regnamespace('batch_audit')").fetchone() == (None,)
            typed = re.search(r"type, once: (.*;) Then run", str(refused.value))
            assert typed is not None
            admin.execute(typed[1].encode())
            upgrade(database)
            assert settled(database)
            downgrade(database, "base")


def test_what_was_granted_behind_our_back_is_taken_back_by_the_next_upgrade(
    database: Database, db: Connection
) -> None:
    db.execute("GRANT DELETE ON batch_audit.audit_event TO batch_writer")
    db.execute("GRANT SELECT ON batch_audit.import_reject TO PUBLIC")
    db.execute("CREATE TABLE batch_audit.other (x int)")
    assert not is_settled(db)
    upgrade(database)
    assert is_settled(db)
    rights = "SELECT has_table_privilege('batch_writer', 'batch_audit.audit_event', 'DELETE')"
    assert db.execute(rights).fetchone() == (False,)


def test_a_user_in_the_place_of_a_role_is_refused(server: str) -> None:
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("CREATE DATABASE taken")
        connection.execute("CREATE ROLE batch_owner LOGIN")
        with pytest.raises(SettingsError, match="batch_owner to be a group without rights"):
            upgrade(of_database(server, "taken"))
        connection.execute("DROP ROLE batch_owner")


def test_a_column_that_a_step_down_drops_leaves_no_right_to_take_back(server: str) -> None:
    """Given a column with rights of its own, when it goes and comes again, the ledger settles."""
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("CREATE DATABASE stepping")
    database = of_database(server, "stepping")
    upgrade(database)
    # The next one adds a column to import_reject, which readers may see.
    downgrade(database, "0031")
    upgrade(database)
    assert settled(database)
    downgrade(database, "base")
