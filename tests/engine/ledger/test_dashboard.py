"""Grafana's dashboard asks what the ledger can answer, as a reader who may see no value of a row."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from batch_pipelines.engine.errors import ThresholdError

if TYPE_CHECKING:
    from tests.engine.conftest import MakeSite

DASHBOARD = Path(__file__).parents[3] / "docs" / "grafana" / "batch-pipelines.json"
# What Grafana's PostgreSQL data source makes of its macros.
MACROS = (
    (r"\$__timeFilter\(([^()]+)\)", r"\1 BETWEEN '2020-01-01T00:00:00Z' AND '2100-01-01T00:00:00Z'"),
    (r"\$__timeGroupAlias\(([^(),]+), \$__interval\)",
     r'floor(extract(epoch FROM \1)/60)*60 AS "time"'),
    (r"\$feed\b", "'orders', 'another'"),
)  # fmt: skip


def questions(node: Any) -> list[tuple[str, str]]:
    """Every SQL of the dashboard, with its format."""
    if isinstance(node, dict):
        own = [(node["rawSql"], node["format"])] if "rawSql" in node else []
        own += [(node["query"], "table")] if str(node.get("query", "")).startswith("SELECT") else []
        return own + [each for value in node.values() for each in questions(value)]
    return [each for value in node for each in questions(value)] if isinstance(node, list) else []


def test_every_panel_is_answered_from_the_ledger(site: MakeSite) -> None:
    here = site("CREATE TABLE t (a integer PRIMARY KEY, b text, import_batch_id uuid)")
    here.load({"a.csv": "a\n1\n2\n"}, "one")
    here.load({"a.csv": "a,b\n1,x\n"}, "one")
    here.deliver({"a.csv": "a\nx\n"}, "two")
    with pytest.raises(ThresholdError):
        here.run("two")
    dashboard = json.loads(DASHBOARD.read_text())
    found = questions(dashboard)
    assert len(found) == len(dashboard["panels"]) + 2  # the variable `feed`, and the annotations
    assert {panel["datasource"]["uid"] for panel in dashboard["panels"]} == {"${datasource}"}
    answered = 0
    with here.connection.transaction():
        here.sql("SET LOCAL ROLE batch_reader")
        for sql, form in found:
            for macro, text in MACROS:
                sql = re.sub(macro, text, sql)  # noqa: PLW2901
            assert "$" not in sql, sql
            cursor = here.connection.execute(sql.encode())
            names = [column.name for column in cursor.description or ()]
            assert len(names) == len({*names}), sql
            if form == "time_series":
                assert names[0] == "time", sql
            answered += bool(cursor.fetchall())
    # Nothing is wrong with checksums, no alert is open, no threshold set, nothing was rolled back.
    assert answered >= len(found) - 5
