"""Each table, view and function of the ledger says who may do what with it, in code and in the docs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from batch_pipelines.engine.roles.grants import (
    AUDITOR,
    FUNCTIONS,
    GRANTED,
    READER,
    RELATIONS,
    VALUES,
    WRITER,
)
from batch_pipelines.engine.roles.settle import is_settled

if TYPE_CHECKING:
    from batch_pipelines.engine.postgres.database import Connection

pytestmark = pytest.mark.versions

DOCS = Path(__file__).parents[3] / "docs" / "roles.md"
HOW = (
    "Each table, view and function of the ledger stands in batch_pipelines/engine/roles/grants.py, "
    "which says what each role may do with it: the least it needs."
)
_RELATIONS = """
SELECT relname FROM pg_class WHERE relnamespace = 'batch_audit'::regnamespace
    AND relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT relispartition
"""
_FUNCTIONS = """
SELECT format('%s(%s)', proname, replace(oidvectortypes(proargtypes), ', ', ',')) FROM pg_proc
WHERE pronamespace = 'batch_audit'::regnamespace AND prorettype <> 'trigger'::regtype
"""
_OF_OTHERS = """
SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE nspname IN ('batch_audit', 'batch_staging') AND pg_get_userbyid(relowner) <> 'batch_owner'
UNION ALL
SELECT p.oid::regprocedure::text FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE nspname IN ('batch_audit', 'batch_staging') AND pg_get_userbyid(proowner) <> 'batch_owner'
UNION ALL
SELECT nspname FROM pg_namespace
WHERE nspname IN ('batch_audit', 'batch_staging') AND pg_get_userbyid(nspowner) <> 'batch_owner'
"""
_PASSED_ON = """
SELECT relname FROM pg_class, aclexplode(relacl)
WHERE relnamespace = 'batch_audit'::regnamespace AND is_grantable AND grantee <> relowner
"""
_UNSAFE = """
SELECT oid::regprocedure::text FROM pg_proc
WHERE pronamespace = 'batch_audit'::regnamespace AND prosecdef AND NOT EXISTS (
    SELECT FROM unnest(proconfig) AS setting WHERE setting = 'search_path=pg_catalog, pg_temp')
"""
# What a view reads it reads as its owner: a column with values would be seen by who may not.
_VIEWED = """
SELECT DISTINCT v.relname, t.relname, a.attname FROM pg_depend d
JOIN pg_rewrite r ON r.oid = d.objid JOIN pg_class v ON v.oid = r.ev_class
JOIN pg_class t ON t.oid = d.refobjid
JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = d.refobjsubid
WHERE d.classid = 'pg_rewrite'::regclass AND v.relnamespace = 'batch_audit'::regnamespace
"""


def names(db: Connection, query: str) -> set[str]:
    return {str(name) for (name,) in db.execute(query.encode())}


def test_each_table_and_view_says_who_may_do_what(db: Connection) -> None:
    assert names(db, _RELATIONS) == set(RELATIONS), HOW


def test_each_function_says_who_may_execute_it(db: Connection) -> None:
    assert names(db, _FUNCTIONS) == set(FUNCTIONS), HOW


def test_a_migrated_ledger_is_its_owners_and_has_these_grants_and_no_others(db: Connection) -> None:
    assert names(db, _OF_OTHERS) == set()
    assert names(db, _PASSED_ON) == set()
    assert is_settled(db)


def test_functions_that_run_as_their_owner_look_names_up_nowhere_else(db: Connection) -> None:
    assert names(db, _UNSAFE) == set(), "they need SET search_path = pg_catalog, pg_temp"


def test_no_view_shows_values_of_rows_but_the_one_that_has_to_be_opened(db: Connection) -> None:
    seen = {(table, column): view for view, table, column in db.execute(_VIEWED)}
    hidden = {(name, column) for name, grants in RELATIONS.items() for column in grants.values}
    assert {seen[each] for each in hidden & seen.keys()} == {"opened_reject"}


def test_the_docs_say_the_same() -> None:
    lines = [
        "| table or view | writer | reader | auditor | values |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name in sorted(RELATIONS):
        grants = RELATIONS[name]
        cells = []
        for role in (WRITER, READER, AUDITOR, VALUES):
            privileges = list(grants.of(role))
            if grants.values and "SELECT" in privileges:
                privileges[0] = f"SELECT without `{'`, `'.join(grants.values)}`"
            cells.append(", ".join(privileges))
        lines.append(f"| `{name}` | " + " | ".join(cells).rstrip() + " |")
    lines += ["", "| function | who may execute it |", "| --- | --- |"]
    for name in sorted(FUNCTIONS):
        who = ", ".join(role.removeprefix("batch_") for role in GRANTED if role in FUNCTIONS[name])
        lines.append(f"| `{name}` | {who or 'the owner'} |")
    wanted = "\n".join(lines)
    assert wanted in DOCS.read_text(), f"{DOCS.name} has to have these lines:\n{wanted}"
