"""`reconcile` compares what another system has loaded; its exit code tells how it went."""

from __future__ import annotations

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

    (shop.folder / "landing" / LOADED / "c" / "stock.csv").unlink()
    unverified = cli("reconcile", LOADED, "--batch", "c", "--force", "--json")
    assert (unverified.code, unverified.json["status"]) == (3, "UNVERIFIED")
    assert "SECRET" not in differs.out + known.out + shown.out
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
