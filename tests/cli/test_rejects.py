"""`rejects`, and what the other commands say of records that were set aside."""

from __future__ import annotations

import base64
import csv
import json
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

from batch_pipelines.engine.ledger import rejects as quarantine
from batch_pipelines.engine.ledger.reject_files import WRITERS
from tests.support_databases import IS_GIVEN, as_viewer
from tests.support_shop import DAY, FEED, orders

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli, Ran
    from tests.support_shop import Shop

# Each line with what is wrong: two reasons, no such customer, too many fields, not UTF-8.
BAD = (
    b"100,1,2024-05-01,nothing,\r\n",
    b'101,77,2024-05-01,1.00,"two\nlines"\n',
    b"=1+1,1,2024-05-01,1.00,,\n",
    b"103,1,2024-05-01,1.00,\xff\n",
)


def load_some(shop: Shop, cli: Cli) -> str:
    """Import five good orders and the bad ones; return the batch's id."""
    path = shop.deliver(DAY, "")
    path.write_bytes(orders(5).encode() + b"".join(BAD))
    assert cli("import", FEED).code == 3
    return shop.batches()[-1].batch_id


@pytest.fixture
def look(cli: Cli, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Runs commands as who may see values of rows, and may write nothing."""

    def run(*arguments: str) -> Ran:
        with monkeypatch.context() as patch:
            patch.setenv("BATCH_PIPELINES_DATABASE_URL", as_viewer(shop.database.url))
            return cli(*arguments)

    return run


def test_an_import_says_what_was_set_aside_and_what_to_type(cli: Cli, shop: Shop) -> None:
    path = shop.deliver(DAY, "")
    path.write_bytes(orders(5).encode() + b"".join(BAD))
    ran = cli("import", FEED)
    (batch,) = shop.batches()
    assert ran.code == 3
    assert ran.err == ""
    lines = ran.out.splitlines()
    assert lines[0] == f"{batch.batch_id[:8]}  {FEED}/{DAY}  PARTIAL_SUCCESS  5 rows"
    assert lines[1].strip() == "4 of 9 records were set aside:"
    assert len(lines) == 2 + 4 + 1
    wrong = "public.orders, column amount: is not a valid numeric(10,2) (SQLSTATE 22P02)"
    assert f"1  {wrong}" in [line.strip() for line in lines]
    assert lines[-1] == f"Next: batch-pipelines rejects {batch.batch_id[:8]}"
    assert "nothing" not in ran.out

    # The same again is a duplicate: nothing is set aside anew.
    again = cli("import", FEED)
    assert again.code == 0
    assert "set aside" not in again.out

    (told,) = cli("import", FEED, "--force", "--json").json
    assert sum(reason["records"] for reason in told["rejects"]) == 4


def test_records_above_the_threshold_are_kept_and_shown(cli: Cli, shop: Shop) -> None:
    with (shop.settings.feeds / "orders.yaml").open("a") as feed:
        feed.write("thresholds: {rejected_rows: 1}\n")
    path = shop.deliver(DAY, "")
    path.write_bytes(orders(5).encode() + b"".join(BAD))
    ran = cli("import", FEED)
    (batch,) = shop.batches()
    assert ran.code == 1
    assert ran.out.splitlines()[-1] == f"Next: batch-pipelines rejects {batch.batch_id[:8]}"
    shown = cli("rejects", f"{FEED}/{DAY}")
    assert shown.code == 0
    assert "nothing of the batch was written" in shown.out
    assert len(cli("rejects", f"{FEED}/{DAY}", "--json").json["rejects"]) == batch.rejected_records


def test_rejects_are_shown_with_place_and_reasons_and_without_values(
    cli: Cli, look: Cli, shop: Shop
) -> None:
    batch_id = load_some(shop, cli)
    ran = cli("rejects", batch_id[:8])
    assert ran.code == 0
    assert "4 of 9 records were set aside (public.orders 4)." in ran.out
    offset = len(orders(5).encode()) + len(BAD[0])
    (line,) = (line for line in ran.out.splitlines() if "orders.csv" in line and "23503" in line)
    assert line.split()[:5] == ["orders.csv", "7", "8", f"{offset}", "public.orders"]
    for value in ("nothing", '"two', "1+1"):
        assert value not in ran.out
    last = f"Next: batch-pipelines rejects {batch_id[:8]} --export rejects.csv"
    assert ran.out.splitlines()[-1] == last
    assert "The first 2 of 4 rejects" in cli("rejects", batch_id, "--limit", "2").out

    raw = look("rejects", batch_id, "--raw").out
    assert r'101,77,2024-05-01,1.00,"two\nlines"\n' in raw
    assert r"1.00,\xff\n" in raw

    told = cli("rejects", batch_id, "--json").json
    assert told["rejected"] == {"public.orders": 4}
    assert "raw" not in str(told["rejects"])
    told = look("rejects", batch_id, "--json", "--raw").json
    assert [base64.b64decode(each["raw_base64"]) for each in told["rejects"]] == [*BAD]


def test_nothing_in_a_record_reaches_the_terminal_as_a_command(
    cli: Cli, look: Cli, shop: Shop
) -> None:
    path = shop.deliver(DAY, "")
    path.write_bytes(orders(1).encode() + b"\x1b[2J[red]\xc2\x9b,1,2024-05-01,1.00,x\n")
    cli("import", FEED)
    out = look("rejects", f"{FEED}/{DAY}", "--raw").out
    assert "\x1b" not in out
    assert "\x9b" not in out
    assert r"\x1b[2J[red]\x9b,1" in out


def test_show_and_batches_count_rejects(cli: Cli, shop: Shop) -> None:
    batch_id = load_some(shop, cli)
    shown = cli("show", batch_id)
    cells = [line.split() for line in shown.out.splitlines()]
    assert ["public.orders", "9", "5", "0", "0", "4", "0", "0"] in cells
    assert "orders_customer_fkey" in shown.out
    assert shown.out.splitlines()[-1] == f"Next: batch-pipelines rejects {batch_id[:8]}"
    assert len(cli("show", batch_id, "--json").json["rejects"]) == 4
    (line,) = (line.split() for line in cli("batches").out.splitlines() if DAY in line)
    assert line[3:7] == ["PARTIAL_SUCCESS", "9", "5", "4"]


def test_a_batch_without_rejects_says_so(cli: Cli, look: Cli, shop: Shop, tmp_path: Path) -> None:
    shop.deliver(DAY, orders(5))
    cli("import", FEED)
    (batch,) = shop.batches()
    ran = look("rejects", f"{FEED}/{DAY}", "--export", str(tmp_path / "none.csv"))
    assert ran.code == 0
    assert "No record of it is set aside." in ran.out
    assert ran.out.splitlines()[-1] == f"Next: batch-pipelines show {batch.batch_id[:8]}"
    assert not (tmp_path / "none.csv").exists()


def test_all_exports_hold_the_same_bytes(
    cli: Cli, look: Cli, shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given more rejects than are held in memory at a time, each format has all of them."""
    batch_id = load_some(shop, cli)
    monkeypatch.setattr(quarantine, "_PART_ROWS", 3)
    for end in ("csv", "jsonl", "parquet"):
        ran = look("rejects", batch_id, "--export", str(tmp_path / f"all.{end}"))
        assert ran.code == 0
        assert "4 rejects written to" in ran.out
        assert ran.out.splitlines()[-1] == f"Next: batch-pipelines replay {batch_id[:8]}"

    kept = pq.read_table(tmp_path / "all.parquet")
    assert kept.column("raw").to_pylist() == [*BAD]
    assert set(kept.column("batch_id").to_pylist()) == {batch_id}
    columns = (
        "SELECT attname FROM pg_attribute WHERE attrelid = 'batch_audit.opened_reject'::regclass"
    )
    shown = {name for (name,) in shop.query(f"{columns} AND attnum > 0")}
    assert {*kept.column_names} == shown - {"raw_bytes"}  # raw itself is there

    lines = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert [base64.b64decode(line["raw_base64"]) for line in lines] == [*BAD]
    assert lines[1]["breaches"][0]["constraint"] == "orders_customer_fkey"

    with (tmp_path / "all.csv").open(newline="", encoding="utf-8") as file:
        rows = [*csv.DictReader(file)]
    assert [row["raw_encoding"] for row in rows] == ["utf-8", "utf-8", "utf-8", "base64"]
    # A spreadsheet takes it for text.
    assert rows[2]["raw"] == "'" + BAD[2].decode()
    read = [row["raw"].removeprefix("'") for row in rows]
    assert [each.encode() for each in read[:3]] == [*BAD[:3]]
    assert base64.b64decode(read[3]) == BAD[3]
    assert [row["line_number"] for row in rows] == ["7", "8", "10", "11"]
    assert {path.name for path in tmp_path.glob("*all.*")} == {
        "all.csv",
        "all.jsonl",
        "all.parquet",
    }


@pytest.mark.parametrize("first", ["=", "+", "-", "@", "\t", "'"])
def test_no_cell_begins_as_a_formula(
    cli: Cli, look: Cli, shop: Shop, tmp_path: Path, first: str
) -> None:
    raw = f"{first}x,1,2024-05-01,1.00,\n"
    path = shop.deliver(DAY, "")
    path.write_bytes(orders(2).encode() + raw.encode())
    cli("import", FEED)
    look("rejects", f"{FEED}/{DAY}", "--export", str(tmp_path / "all.csv"))
    with (tmp_path / "all.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in row.values())
    text = row["raw"].removeprefix("'")
    assert (base64.b64decode(text).decode() if row["raw_encoding"] == "base64" else text) == raw


def test_an_export_overwrites_nothing_unless_forced(
    cli: Cli, look: Cli, shop: Shop, tmp_path: Path
) -> None:
    batch_id = load_some(shop, cli)
    file = tmp_path / "there.csv"
    file.write_text("mine")
    ran = look("rejects", batch_id, "--export", str(file))
    assert ran.code == 2
    assert "--force" in ran.err
    assert file.read_text() == "mine"
    assert look("rejects", batch_id, "--export", str(file), "--force").code == 0
    assert len(file.read_text()) > 4


@pytest.mark.parametrize("name", ["rejects.xlsx", "rejects", "no/such/folder.csv"])
def test_an_export_that_cannot_be_written_is_wrong_usage(
    cli: Cli, look: Cli, shop: Shop, tmp_path: Path, name: str
) -> None:
    ran = look("rejects", f"{FEED}/{DAY}", "--export", str(tmp_path / name))
    assert ran.code == 2
    assert ran.out == ""


def test_an_export_that_fails_leaves_nothing(
    cli: Cli, look: Cli, shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a disk that is full, no half-written file is left."""
    batch_id = load_some(shop, cli)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(WRITERS, ".csv", full)
    ran = look("rejects", batch_id, "--export", str(tmp_path / "all.csv"))
    assert ran.code == 1
    assert "No space left on device" in ran.err
    assert [*tmp_path.glob("*all.csv*")] == []


def test_each_look_and_export_is_an_event_and_the_writer_gets_neither(
    cli: Cli, look: Cli, shop: Shop, tmp_path: Path
) -> None:
    batch_id = load_some(shop, cli)
    seen = (
        "SELECT details->>'purpose' FROM batch_audit.audit_event "
        "WHERE action = 'values.read' ORDER BY seq"
    )
    assert shop.query(seen) == [("archive",)]
    cli("rejects", batch_id)
    assert shop.query(seen) == [("archive",)], "reasons are no values"
    look("rejects", batch_id, "--raw")
    look("rejects", batch_id, "--export", str(tmp_path / "all.csv"))
    assert shop.query(seen) == [("archive",), ("look",), ("export",)]
    if IS_GIVEN:
        return
    for words in (["--raw"], ["--export", str(tmp_path / "more.csv")]):
        ran = cli("rejects", batch_id, *words)
        assert ran.code == 2
        assert "is not a member of batch_values" in ran.err
    assert not (tmp_path / "more.csv").exists()
    assert len(shop.query(seen)) == 3
