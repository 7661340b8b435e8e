"""How soon a command begins: not before what it needs is imported, and no later."""

from __future__ import annotations

import json
import subprocess
import sys

# Each takes a third of a second or more to import, and most commands need none of them.
HEAVY = {"alembic", "boto3", "dagster", "duckdb", "pandas", "sqlalchemy"}


def test_what_few_commands_need_is_imported_by_those_alone() -> None:
    program = "import json, sys, batch_pipelines.cli; print(json.dumps([*sys.modules]))"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert HEAVY & set(json.loads(found.stdout)) == set()
