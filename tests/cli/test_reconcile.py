"""`reconcile` compares what another system has loaded; its exit code tells how it went."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tests.support_loaded import LOADED, open_stock

if TYPE_CHECKING:
    from tests.cli.conftest import Cli
    from tests.support_shop import Shop


def test_batches_of_another_system(cli: Cli, shop: Shop) -> None:
    open_stock(shop, "a", "b", "c")
    assert cli("feeds", "check").code == 0
    assert "loaded by others" in cli("feeds", "list").out
    refused = cli("import", LOADED, "--batch", "a")
    assert refused.code == 2
    assert f"batch-pipelines reconcile {LOADED} --batch a" in " ".join(refused.err.split())

    shop.query("UPDATE public.stock SET name = 'SECRET' WHERE id = 103")
    shop.query("DELETE FROM public.stock WHERE id = 104")
    differs = cli("reconcile", LOADED)
    assert differs.code == 1
    assert f"{LOADED}: PARTIAL_SUCCESS, 3 compared" in differs.out
    lines = [line.split() for line in differs.out.splitlines() if "id=" in line]
    assert lines == [
        ["changed", "id=103", "stock.csv", "4", "name"],
        ["missing", "id=104", "stock.csv", "5", "-"],
    ]

    again = cli("reconcile", LOADED)
    assert (again.code, "nothing to do" in again.out) == (0, True)
    known = cli("reconcile", LOADED, "--batch", "b")
    assert (known.code, "FAILED, as found before" in known.out) == (1, True)
    shown = cli("show", f"{LOADED}/b")
    assert f"Next: batch-pipelines reconcile {LOADED} --batch b --force" in shown.out
    assert cli("show", f"{LOADED}/a", "--json").json["status"] == "SUCCESS"

    reported = Path(cli("report", f"{LOADED}/b").out.removesuffix("\n")).read_text(encoding="utf-8")
    counted = dict(shop.query(
        "SELECT c->>'status', count(*) FROM batch_audit.reconciled_batch"
        " JOIN batch_audit.validation_summary USING (log_id), jsonb_array_elements(checks) AS c"
        " WHERE batch_load_id = 'b' GROUP BY 1"
    ))  # fmt: skip
    good, bad = counted["SUCCESS"], counted["FAILED"]
    holds = f"{good} of {sum(counted.values())} checks against the source hold, {bad} failed"
    assert f"Another system has loaded it; {holds}" in reported
    assert f"{LOADED}/b" in reported
    told = cli("report", f"{LOADED}/b", "--json").json
    (differing,) = [each["differing"] for each in told["validations"]]
    assert [(each["kind"], each["record"]) for each in differing] == [
        ("changed", 4),
        ("missing", 5),
    ]

    (shop.folder / "landing" / LOADED / "c" / "stock.csv").unlink()
    unverified = cli("reconcile", LOADED, "--batch", "c", "--force", "--json")
    assert (unverified.code, unverified.json["status"]) == (3, "UNVERIFIED")
    unread = cli("report", f"{LOADED}/c", "--json").json
    assert (unread["status"], unread["validations"]) == ("UNVERIFIED", [])
    assert "SECRET" not in differs.out + known.out + shown.out + reported + str(told)
    by = shop.query("SELECT DISTINCT requested_by LIKE '%(command line)', run_id"
                    " FROM batch_audit.validation_log")  # fmt: skip
    assert by == [(True, None)]


def test_what_a_feed_imports_is_not_reconciled(cli: Cli, shop: Shop) -> None:
    ran = cli("reconcile", "orders")
    assert ran.code == 2
    assert "batch-pipelines import orders" in " ".join(ran.err.split())
    open_stock(shop, "a")
    shop.query("DROP INDEX public.stock_load_id_idx")
    assert "CREATE INDEX CONCURRENTLY" in cli("feeds", "check").err
    assert cli("reconcile", LOADED).code == 2
