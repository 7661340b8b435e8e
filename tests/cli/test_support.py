"""`support` packs what helps, and nothing that must not leave the house."""

from __future__ import annotations

import json
import zipfile
from typing import TYPE_CHECKING

import pytest

from tests.support_shop import DAY, FEED

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli
    from tests.support_shop import Shop

# Planted in every column that could carry it: in rows that are loaded, in the quarantine, in what a
# check finds, in a table that the feed does not fill, and in settings.
VALUES = ("Wednesday-Addams", "770077", "31.41", "1999-09-09")
SECRET = "sesame-opens"  # noqa: S105  # planted
HEAD = "id,customer,placed,amount,note\n"


def packed(cli: Cli, path: Path, batch: str) -> dict[str, str]:
    ran = cli("support", batch, "--to", str(path))
    assert ran.code == 0, ran.err
    with zipfile.ZipFile(path) as file:
        return {name.split("/")[1]: file.read(name).decode() for name in file.namelist()}


@pytest.fixture
def failed(cli: Cli, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setenv("BATCH_PIPELINES_ALERTS", f"json://someone:{SECRET}@127.0.0.1:9/x")
    name, number, amount, day = VALUES
    with shop.database.connect("test") as connection:
        connection.execute("INSERT INTO customers VALUES (770077, 'Wednesday-Addams')")
    good = f"{number},{number},{day},{amount},{name}\n"
    shop.deliver(DAY, HEAD + good + f"5,{number},{day},-{amount},{name}\n6,1,{name},{amount},x\n")
    assert cli("import", FEED).code == 3
    with shop.database.connect("test") as connection:
        connection.execute("UPDATE orders SET note = 'changed'")
    assert cli("verify", f"{FEED}/{DAY}").code == 1
    # A run that fails for a reason of its own, whose text has values.
    shop.deliver("2024-05-02", HEAD + f"{name},{number}\n")
    assert cli("import", FEED, "--batch", "2024-05-02").code == 1
    return shop


def test_it_holds_what_helps_and_no_value_and_no_secret(
    cli: Cli, failed: Shop, tmp_path: Path
) -> None:
    for key, status in ((DAY, "PARTIAL_SUCCESS"), ("2024-05-02", "FAILED")):
        told = packed(cli, tmp_path / f"{key}.zip", f"{FEED}/{key}")
        assert sorted(told) == [
            "README.txt", "feed.yaml", "migrations.json", "report.html", "report.json",
            "runs.json", "settings.json", "tables.json", "versions.json",
        ]  # fmt: skip
        for name, text in told.items():
            found = [value for value in (*VALUES, SECRET) if value in text]
            assert found == [], name
        assert json.loads(told["report.json"])["batch"]["status"] == status
        (table,) = json.loads(told["tables.json"])
        assert table["table"] == "public.orders"
        assert [each["name"] for each in table["columns"]][:2] == ["id", "customer"]
        assert any("CHECK" in each["definition"] for each in table["constraints"])
        assert json.loads(told["settings.json"])["alerts"] == "set"
        assert "dagster" in json.loads(told["versions.json"])["packages"]
        assert json.loads(told["migrations.json"])["pending"] == []
        assert told["feed.yaml"].startswith("feed: orders")
    (run,) = json.loads(told["runs.json"])
    assert run["status"] == "FAILURE"
    kinds = [error["kind"] for entry in run["errors"] for error in entry["errors"]]
    assert any(kind.endswith("Error") for kind in kinds)
    assert any("bulk_write" in line for entry in run["errors"]
               for error in entry["errors"] for line in error["stack"])  # fmt: skip


def test_a_file_that_is_there_is_kept(cli: Cli, failed: Shop, tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    path.write_text("mine")
    ran = cli("support", f"{FEED}/{DAY}", "--to", str(path))
    assert ran.code == 2
    assert f"{path}: cannot be written (File exists)" in ran.err.replace("\n", "")
    assert path.read_text() == "mine"
