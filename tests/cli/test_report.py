"""`report`: a page, JSON or CSV of a batch."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support_shop import DAY, FEED, orders

if TYPE_CHECKING:
    from tests.cli.conftest import Cli
    from tests.support_shop import Shop


def test_a_report_is_written_and_its_place_printed(cli: Cli, shop: Shop, tmp_path: Path) -> None:
    shop.deliver(DAY, orders(5), sidecar=True)
    assert cli("import", FEED).code == 0
    (batch,) = shop.batches()

    written = Path(cli("report", f"{FEED}/{DAY}").out.removesuffix("\n"))
    assert written == shop.settings.home / "reports" / "batches" / f"{batch.batch_id}.html"
    text = written.read_text(encoding="utf-8")
    assert "All 5 records were loaded. 9 of 9 checks against the source hold." in text

    told = cli("report", batch.batch_id[:8], "--json").json
    assert told["batch"]["status"] == "SUCCESS"
    assert [stage["stage"] for stage in told["stages"]][-1] == "archive"

    assert cli("report", batch.batch_id, "--csv", str(tmp_path / "csv")).code == 0
    balance = (tmp_path / "csv" / "balance.csv").read_text(encoding="utf-8")
    assert balance.splitlines()[1].startswith("public.orders,5,5,5,0,0,0,")

    ran = cli("report", batch.batch_id, "--html", str(tmp_path / "a" / "b.html"), "--json")
    assert ran.json["batch"]["batch_id"] == batch.batch_id
    assert (tmp_path / "a" / "b.html").exists()


def test_a_report_of_a_feed_over_some_days(cli: Cli, shop: Shop, tmp_path: Path) -> None:
    shop.deliver(DAY, orders(5), sidecar=True)
    assert cli("import", FEED).code == 0
    written = Path(cli("report", "--feed", FEED).out.removesuffix("\n"))
    assert written == shop.settings.home / "reports" / "feeds" / f"{FEED}.html"
    assert "The one batch that has ended succeeded" in written.read_text(encoding="utf-8")
    today = dt.datetime.now(dt.UTC).date()
    told = cli(
        "report", f"--feed={FEED}", "--since", str(today - dt.timedelta(1)),
        "--until", str(today + dt.timedelta(1)), "--json", "--csv", str(tmp_path),
    ).json  # fmt: skip
    assert (told["feed"], told["unit"], told["periods"][0]["written"]) == (FEED, "hour", 5)
    rows = (tmp_path / "recent_batches.csv").read_text(encoding="utf-8").splitlines()
    assert rows[1].split(",")[5:7] == ["5", "5"]
    earlier = cli("report", "--feed", FEED, "--until", "2020-01-01", "--json")
    assert (earlier.code, earlier.json["periods"]) == (0, [])
    wrong = cli("report", "--feed", FEED, "--since", "2020-01-02", "--until", "2020-01-01")
    assert (wrong.code, "is after the last one" in wrong.err) == (2, True)
    assert cli("report", "--feed", "nope").code == 2


def test_a_report_of_what_is_not_there_is_wrong_usage(cli: Cli, shop: Shop) -> None:
    ran = cli("report", "nope/x")
    assert ran.code == 2
    assert "`batch-pipelines batches` lists them" in ran.err
