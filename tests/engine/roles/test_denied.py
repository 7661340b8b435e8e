"""Each role tries everything that it must not do, and fails; what it may do, it can.

What there is to try is read from the catalog, so that a new table is tried as well.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql

from batch_pipelines.engine.roles.grants import (
    AUDITOR,
    FUNCTIONS,
    GRANTED,
    READER,
    RELATIONS,
    WRITER,
)

if TYPE_CHECKING:
    from batch_pipelines.engine.postgres.database import Connection

pytestmark = pytest.mark.versions

NOBODY = "batch_pipelines_test_nobody"
EVERYBODY = (*GRANTED, NOBODY)
_MAKE_NOBODY = """
DO $$ BEGIN CREATE ROLE batch_pipelines_test_nobody;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$
"""
_RELATIONS = """
SELECT c.relname, c.relispartition, c.relkind = 'v', array_agg(a.attname::text ORDER BY attnum)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND attnum > 0 AND NOT attisdropped
WHERE c.relnamespace = 'batch_audit'::regnamespace AND c.relkind IN ('r', 'p', 'v')
GROUP BY c.oid ORDER BY 1
"""
_FUNCTIONS = """
SELECT format('%s(%s)', proname, replace(oidvectortypes(proargtypes), ', ', ',')), proname,
       array(SELECT format_type(t, NULL) FROM unnest(proargtypes) t), prorettype = 'trigger'::regtype
FROM pg_proc WHERE pronamespace = 'batch_audit'::regnamespace ORDER BY 1
"""
# None of them finds a row to change: what counts is whether PostgreSQL lets it look.
_TRIES = {
    "SELECT": "SELECT FROM {table} WHERE {column} IS NULL AND false",
    "INSERT": "INSERT INTO {table} ({column}) OVERRIDING SYSTEM VALUE SELECT NULL WHERE false",
    "UPDATE": "UPDATE {table} SET {column} = DEFAULT WHERE false",
    "DELETE": "DELETE FROM {table} WHERE false",
}
# Nobody but the owner, whatever else is granted.
_NEVER_OF_A_TABLE = [
    "TRUNCATE {table}",
    "ALTER TABLE {table} ADD COLUMN mine text",
    "ALTER TABLE {table} DISABLE TRIGGER ALL",
    "ALTER TABLE {table} OWNER TO CURRENT_USER",
    "CREATE TRIGGER mine AFTER INSERT ON {table} EXECUTE FUNCTION tsvector_update_trigger()",
    "CREATE RULE mine AS ON DELETE TO {table} DO INSTEAD NOTHING",
    "CREATE INDEX ON {table} (({column} IS NULL))",
    "LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE",
    "DROP TABLE {table}",
]
_NEVER_OF_A_VIEW = [
    "CREATE OR REPLACE VIEW {table} AS SELECT 1 AS one",
    "DROP VIEW {table}",
]
_NEVER = [
    "CREATE TABLE batch_audit.mine (x int)",
    "CREATE FUNCTION batch_audit.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE SCHEMA mine",
    "DROP SCHEMA batch_audit CASCADE",
    "DROP SCHEMA batch_staging CASCADE",
    "ALTER SCHEMA batch_audit RENAME TO theirs",
    "ALTER DATABASE {database} OWNER TO CURRENT_USER",
    "SET ROLE batch_owner",
    "GRANT batch_owner TO CURRENT_USER",
    "CREATE ROLE mine",
    "SET session_replication_role = replica",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "SELECT pg_read_file('PG_VERSION')",
    "SELECT FROM public.theirs",
    "INSERT INTO public.theirs VALUES (1)",
    "UPDATE public.theirs SET x = 2",
    "DELETE FROM public.theirs",
    "TRUNCATE public.theirs",
]


@pytest.fixture
def attempts(db: Connection) -> Connection:
    """A connection of who may become anybody, to a database with a table of somebody else."""
    if db.info.parameter_status("is_superuser") != "on":
        pytest.skip("only a superuser may become anybody")
    db.execute("CREATE TABLE public.theirs (x int)")
    db.execute(_MAKE_NOBODY)
    return db


def denied(db: Connection, role: str, statement: sql.Composed) -> bool:
    """Let a role try; whatever it did is taken back."""
    with db.transaction(force_rollback=True):
        db.execute(sql.SQL("SET LOCAL SESSION AUTHORIZATION {}").format(sql.Identifier(role)))
        try:
            with db.transaction():
                db.execute(statement)
        except psycopg.errors.InsufficientPrivilege:
            return True
        finally:
            db.execute("RESET SESSION AUTHORIZATION")
    return False


def of_table(template: str, table: str, column: str) -> sql.Composed:
    return sql.SQL(template).format(
        table=sql.Identifier("batch_audit", table), column=sql.Identifier(column)
    )


def relations(db: Connection) -> list[tuple[str, bool, bool, list[str]]]:
    return [tuple(row) for row in db.execute(_RELATIONS)]


def test_a_role_does_with_each_column_what_it_may_and_nothing_else(attempts: Connection) -> None:
    wrong = []
    found = itertools.product(EVERYBODY, relations(attempts))
    for role, (name, is_partition, is_view, columns) in found:
        grants = None if is_partition or role == NOBODY else RELATIONS[name]
        for privilege, template in _TRIES.items():
            for column in columns if privilege == "SELECT" else columns[:1]:
                hidden = grants is not None and column in grants.values
                may = grants is not None and privilege in grants.of(role)
                may = may and not (privilege == "SELECT" and hidden)
                if is_view and privilege != "SELECT":
                    # Most cannot be written to by anybody; PostgreSQL says so first.
                    continue
                statement = of_table(template, name, column)
                if denied(attempts, role, statement) is may:
                    wrong.append((role, name, column, privilege, "may" if may else "may not"))
    assert wrong == []


def test_a_role_changes_no_table_view_or_function_of_the_ledger(attempts: Connection) -> None:
    tries = [
        (role, of_table(template, name, columns[0]))
        for role, (name, _, is_view, columns) in itertools.product(EVERYBODY, relations(attempts))
        for template in (_NEVER_OF_A_VIEW if is_view else _NEVER_OF_A_TABLE)
        # Who may change rows may lock their table, and so make others wait; it takes nothing away.
        if not template.startswith("LOCK") or not changes(role, name)
    ]
    for role, (signature, name, _, _) in itertools.product(EVERYBODY, functions(attempts)):
        function = sql.SQL(signature.removeprefix(name))
        for template in ("DROP FUNCTION {}{}", "ALTER FUNCTION {}{} SECURITY INVOKER"):
            whole = sql.Identifier("batch_audit", name)
            tries.append((role, sql.SQL(template).format(whole, function)))
    left = [(role, s.as_string()) for role, s in tries if not denied(attempts, role, s)]
    assert left == []


def functions(db: Connection) -> list[tuple[str, str, list[str], bool]]:
    return [tuple(row) for row in db.execute(_FUNCTIONS)]


def changes(role: str, name: str) -> bool:
    may = RELATIONS[name].of(role) if role in GRANTED and name in RELATIONS else ()
    return bool({"UPDATE", "DELETE"} & set(may))


def test_a_role_does_nothing_beyond_the_ledger(attempts: Connection) -> None:
    database = sql.Identifier(attempts.info.dbname)
    never = [sql.SQL(each).format(database=database) for each in _NEVER]
    tries = [*itertools.product(EVERYBODY, never)]
    stage = sql.SQL("CREATE TABLE batch_staging.mine (x int)").format()
    tries += [(role, stage) for role in EVERYBODY if role != WRITER]
    tries += [
        (role, sql.SQL("SET ROLE {}").format(sql.Identifier(other)))
        for role, other in itertools.product(EVERYBODY, GRANTED)
        if other != role
    ]
    assert [(r, s.as_string()) for r, s in tries if not denied(attempts, r, s)] == []


def test_a_role_executes_the_functions_it_may_and_no_others(attempts: Connection) -> None:
    found = itertools.product(EVERYBODY, functions(attempts))
    for role, (signature, name, types, is_trigger) in found:
        if is_trigger:
            continue
        # Not a constant, which PostgreSQL would compute with before it asks who calls.
        nulls = sql.SQL(", ").join(
            sql.SQL("current_setting('batch_pipelines.none', true)::" + each) for each in types
        )
        call = sql.SQL("SELECT {}({}) WHERE false").format(
            sql.Identifier("batch_audit", name), nulls
        )
        may = role in FUNCTIONS[signature]
        assert denied(attempts, role, call) is not may, (role, signature)


def test_who_appends_to_the_audit_trail_cannot_change_it(attempts: Connection) -> None:
    for role in GRANTED:
        assert not {"UPDATE", "DELETE", "TRUNCATE"} & set(RELATIONS["audit_event"].of(role))
    assert RELATIONS["audit_event"].of(AUDITOR) == ("SELECT",)
    assert RELATIONS["audit_event"].of(READER) == ()


def test_a_month_is_made_for_tables_of_the_ledger_alone(attempts: Connection) -> None:
    """Given the writer, when it asks for a month of a table of its own, the owner does not help."""
    attempts.execute(
        "CREATE TABLE public.mine (created_at timestamptz) PARTITION BY RANGE (created_at)"
    )
    with attempts.transaction(force_rollback=True):
        attempts.execute("SET LOCAL ROLE batch_writer")
        attempts.execute("SELECT batch_audit.ensure_month('batch_audit.crc32_audit', '2031-01-15')")
        with pytest.raises(
            psycopg.errors.WrongObjectType, match="no partitioned table of the ledger"
        ):
            attempts.execute("SELECT batch_audit.ensure_month('public.mine', '2031-01-15')")
