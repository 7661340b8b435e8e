"""`report --month`: made, checked and signed by who the operating system says runs the command."""

from __future__ import annotations

import datetime as dt
import json
import os
import pwd
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support_shop import DAY, orders

if TYPE_CHECKING:
    import pytest

    from tests.cli.conftest import Cli
    from tests.support_shop import Shop

ME = f"{pwd.getpwuid(os.geteuid()).pw_name} (command line)"


def test_a_month_is_reported_checked_and_signed(
    shop: Shop, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.deliver(DAY, orders(20))
    assert shop.run(DAY).success
    assert shop.run(DAY, force=True).success
    # Whatever somebody claims to be, it is not believed.
    monkeypatch.setenv("LOGNAME", "somebody else")
    monkeypatch.setenv("USER", "somebody else")
    now = dt.datetime.now(dt.UTC)
    page, tables = tmp_path / "out" / "page.html", tmp_path / "tables"
    made = cli(
        "report", "--month", f"{now:%Y-%m}", "--json", "--html", str(page), "--csv", str(tables)
    )
    assert made.code == 0, made.err
    assert made.json["range"]["partial"]
    sections = {section["type"]: section for section in made.json["sections"]}
    assert sections["summary"]["figures"]["batches"] == 2
    (line,) = sections["overrides"]["tables"]["forced"]["rows"]
    assert line[2:] == ["--force", "orders", DAY, shop.batches()[0].batch_id]
    assert (tables / "summary-by_feed.csv").is_file()
    report_id = made.json["header"]["report_id"]

    checked = cli("report", "check", str(page), "--again", "--json")
    assert (checked.code, checked.json["problems"], checked.json["signatures"]) == (0, [], [])
    assert checked.json["changed"] == []
    assert cli("report", "sign", report_id[:8], "--statement", " ").code == 2
    signed = cli("report", "sign", str(page), "--statement", "Reviewed.", "--json")
    assert signed.code == 0
    (signature,) = signed.json["signatures"]
    assert (signature["principal_id"], signature["statement"]) == (ME, "Reviewed.")
    (listed,) = cli("report", "list", "--json").json
    assert (listed["report_id"], listed["requested_by"]) == (report_id, ME)
    # The copy that was handed over, and the file that was made.
    page.write_text(page.read_text().replace("orders", "others"))
    refused = cli("report", "check", str(page))
    assert refused.code == 2
    assert "no file with its SHA-256" in " ".join(refused.err.split())
    (kept,) = shop.query(
        "SELECT place FROM batch_audit.compliance_report_file WHERE format = 'csv'"
    )
    Path(kept[0]).unlink()
    assert cli("report", "check", report_id).code == 1
    assert cli("report", "sign", report_id, "--statement", "Reviewed.").code == 2


def test_a_part_that_fails_is_told_and_the_exit_code_says_so(shop: Shop, cli: Cli) -> None:
    shop.query("ALTER TABLE batch_audit.feed_pause RENAME TO gone")
    found = cli("report", "--month", "2026-03", "--type", "overrides", "--type", "summary")
    assert found.code == 3
    assert "42P01" in found.err
    assert "Totals" in found.out


WRONG = (
    ("--month 2026-13", "is no month"),
    ("--month 9990-01", "has not begun"),
    ("--month 2026-03 --regulation GDPR", "No feed is under the regulation 'GDPR'"),
    ("--month 2026-03 --type all", "all is no type of report"),
    ("--month 2026-03 --from 2026-03-01", "say either --month, or both"),
    ("--from 2026-03-02 --to 2026-03-01", "is no range of days"),
    ("check ffffffff", "There is no report"),
    ("sign ffffffff --statement x", "There is no report"),
)


def test_what_cannot_be_reported_is_wrong_usage(shop: Shop, cli: Cli) -> None:
    for typed, said in WRONG:
        found = cli("report", *typed.split())
        assert found.code == 2, typed
        assert said in " ".join(found.err.replace("│", " ").split()), typed
    assert shop.query("SELECT count(*) FROM batch_audit.compliance_report") == [(0,)]


def test_a_range_of_days_and_a_batch_are_told_apart(shop: Shop, cli: Cli) -> None:
    shop.deliver(DAY, orders(2))
    assert shop.run(DAY).success
    today = f"{dt.datetime.now(dt.UTC):%Y-%m-%d}"
    found = cli("report", f"--from={today}", f"--to={today}", "--type", "summary", "--json")
    assert found.json["range"]["name"] == f"{today}..{today}"
    batch = cli("report", f"orders/{DAY}", "--json")
    assert json.loads(batch.out)["batch"]["partition_key"] == DAY
