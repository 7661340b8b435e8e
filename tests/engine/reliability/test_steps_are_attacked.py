"""Whoever writes a statement that changes state lets the kill matrix attack it, or says why not.

The matrix attacks what its scenarios are seen to execute. This holds that against all statements that
stand in the engine's code.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

import batch_pipelines.engine
from tests.engine.reliability.scenarios import SCENARIOS
from tests.engine.reliability.test_kill_matrix import arena, in_peace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.engine.reliability.scenario import Scenario
    from tests.engine.reliability.test_kill_matrix import Peace

__all__ = ["arena", "in_peace"]

_VERDICT = "the word of a stage that has failed, in one transaction with its end"
_SERVER = "of the whole server; looked for again at each upgrade: tests/engine/roles/test_settle.py"
_BACK = "one transaction of `db downgrade`: tests/engine/roles/test_settle.py"
_SESSION = "of the session alone"
ENGINE = Path(batch_pipelines.engine.__file__).parent
NOT_IN_THE_MATRIX = {
    "adoption/": "killed at each of its failpoints in tests/engine/adoption",
    "alerts/": "an outbox, which tells again what it does not know to be told: tests/engine/alerts",
    "monitoring/": "judged anew at each tick",
    "ledger/thresholds": "judged anew at each tick",
    "ledger/gathered": "killed in tests/engine/landing/test_gathering.py",
    "ledger/pauses": "one statement, of a person",
    "ledger/reconciliations": "a log of what another system has loaded; it changes nothing else",
    "reconciliation/": "an index, made on request",
    "ledger/compliance_reports": "a report, written as a whole",
    "erasure/": "of rejects, images and bags of rows: killed in tests/engine/erasure",
    "ledger/verifications": "a log, one statement",
    "ledger/batches: UPDATE batch_audit.import_history SET rejected_records": _VERDICT,
    "ledger/batches: UPDATE batch_audit.import_history SET status = 'VALIDATION_FAILED'": _VERDICT,
    "ledger/batches: UPDATE batch_audit.import_history SET status = status_before": _VERDICT,
    "ledger/batches: UPDATE batch_audit.import_history SET error_details": _VERDICT,
    "ledger/rollbacks: INSERT INTO batch_audit.whole_digest": "of feeds that bring some columns only",
    "ledger/rejects: INSERT INTO batch_pipelines_still": _SESSION,
    "postgres/lease: UPDATE batch_audit.batch_lease SET expires_at": "a heartbeat; see test_lease.py",
    "postgres/migrate": "each revision is a transaction: tests/engine/postgres/test_migrate.py",
    "postgres/server": "done again at each start: tests/engine/postgres/test_server.py",
    "rerun/requests": "one statement, of a person",
    "roles/letting_in": "one transaction, looked for again at each start: test_letting_in.py",
    "roles/settle: CREATE ROLE": _SERVER,
    "roles/settle: DROP ROLE": _SERVER,
    "roles/settle: GRANT {} TO CURRENT_USER": _SERVER,
    "roles/settle: CREATE SCHEMA": "of Dagster's storage; looked for again at each upgrade",
    "roles/settle: GRANT USAGE, CREATE": "in one transaction with that schema",
    "roles/settle: REASSIGN": _BACK,
    "roles/settle: REVOKE ALL": _BACK,
    "rollback/approval": "one statement each, of two people",
    "rollback/chains": "of images of images: tests/engine/rollback/test_course.py",
    "rollback/undo": "more forms of what is attacked: tests/engine/rollback/test_corrections.py",
    "writing/conversion": _SESSION,
    "writing/judging": _SESSION,
}
"""Modules, or beginnings of statements in them, and why the matrix does not attack them."""
_VERBS = re.compile(
    r"\s*(?:WITH [\s\S]*?\b)?(?:INSERT INTO|UPDATE|DELETE FROM|MERGE INTO|TRUNCATE|COPY|ALTER|CREATE"
    r"|DROP|GRANT|REVOKE|REASSIGN)"
    r"\s+(?!COLUMN\b|NOT\b|DEFAULT\b)[\w{\"]"
)
# Of the session alone: gone with it, whatever happens.
_PRIVATE = re.compile(
    r"TEMPORARY|pg_temp|TO STDOUT|\{(staged|breaches|contest|won|touched|differing)\}"
)
_HOLE = re.compile(r"\\\{\w*\\\}")


def statements() -> Iterator[str]:
    """Find all statements that change state: of each the module, and its text."""
    for path in sorted(ENGINE.rglob("*.py")):
        module = str(path.relative_to(ENGINE).with_suffix(""))
        tree = ast.parse(path.read_text())
        told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and id(node) not in told:
                value = node.value
                text = value.decode("latin-1") if isinstance(value, bytes) else value
                if isinstance(text, str) and _VERBS.match(text) and not _PRIVATE.search(text):
                    yield f"{module}: {' '.join(text.split())}"


def pattern(statement: str) -> re.Pattern[str]:
    """Match what a statement of the code may look like where it is executed."""
    return re.compile(_HOLE.sub(".*?", re.escape(statement)).replace(r"\ ", " "))


def test_every_statement_that_changes_state_is_attacked_or_it_is_said_why_not(
    in_peace: Callable[[Scenario], Peace],
) -> None:
    executed = {text for scenario in SCENARIOS for text in in_peace(scenario).texts}
    unseen = [
        each
        for each in statements()
        if not any(pattern(each.partition(": ")[2]).match(text) for text in executed)
    ]
    assert len(unseen) < len([*statements()]), "the search finds nothing that was executed"
    missed = [each for each in unseen if not each.startswith(tuple(NOT_IN_THE_MATRIX))]
    assert not missed, (
        f"{len(missed)} statements change state and are not attacked. Have a scenario of scenarios.py "
        "execute them, or say in NOT_IN_THE_MATRIX what attacks them instead:\n" + "\n".join(missed)
    )
    old = [each for each in NOT_IN_THE_MATRIX if not any(one.startswith(each) for one in unseen)]
    assert not old, f"no longer needed: {old}"
