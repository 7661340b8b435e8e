"""Grafana's dashboard asks what the ledger can answer, as a reader who may see no value of a row."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from batch_pipelines.engine.alerts.alert import Alert
from batch_pipelines.engine.alerts.record import raise_alert
from batch_pipelines.engine.errors import BatchError, ThresholdError
from batch_pipelines.engine.ledger.thresholds import ThresholdState, record_first
from tests.support_rollback import take_back

if TYPE_CHECKING:
    from tests.engine.conftest import MakeSite

pytestmark = pytest.mark.versions

DASHBOARD = Path(__file__).parents[3] / "docs" / "grafana" / "batch-pipelines.json"
SECRET = "GEHEIM"  # noqa: S105  # a key of a row
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
    here.deliver({"a.csv": "a\n7\n", "a.csv.crc32c": "00000000\n"}, "three")
    with pytest.raises(BatchError):
        here.run("three")
    take_back(here, here.load({"a.csv": "a\n9\n"}, "four").batch_id)
    details = {"condition": "high", "table": "public.t", "record": f"a={SECRET}"}
    raise_alert(
        here.connection,
        Alert("critical_row", "critical", f"a={SECRET}", "k", "orders", None, details),
    )
    at = ThresholdState("failed_batches", "warn", 1, 1, 3, None)
    record_first(here.connection, "orders", at)

    dashboard = json.loads(DASHBOARD.read_text())
    found = questions(dashboard)
    assert len(found) == len(dashboard["panels"]) + 2  # the variable `feed`, and the annotations
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
            rows = cursor.fetchall()
            assert rows, sql
            assert SECRET not in str(rows), sql


def test_the_dashboard_is_one_that_grafana_draws() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert {panel["type"] for panel in panels} <= {"stat", "table", "timeseries"}
    source = {"type": "grafana-postgresql-datasource", "uid": "${datasource}"}
    targets = [target for panel in panels for target in panel["targets"]]
    assert all(each["datasource"] == source for each in (*panels, *targets))
    assert [each["name"] for each in dashboard["templating"]["list"]] == ["datasource", "feed"]
    # Of 24 columns; no panel lies upon another.
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells
