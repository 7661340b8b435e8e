"""`erase`, typed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support_shop import DAY, FEED, orders

if TYPE_CHECKING:
    from tests.cli.conftest import Cli
    from tests.support_shop import Shop


def test_where_a_person_is_is_told_and_then_nothing_is_left(cli: Cli, shop: Shop) -> None:
    shop.deliver(DAY, orders(20) + orders(5, first=100, customer=2).partition("\n")[2])
    assert cli("import", FEED).code == 0
    rows = shop.rows()
    own = 5
    assert len(rows) == 20 + own

    told = cli("erase", f"{FEED}/orders", "--key", "customer=2", "--dry-run")
    assert (told.code, shop.rows()) == (0, rows)
    assert "rows of the table" in told.out
    assert "bag of a delivery" in told.out
    plan = cli("erase", f"{FEED}/public.orders", "--key", "customer=2", "--dry-run", "--json").json
    assert [(p["kind"], p["found"]) for p in plan["places"]] == [("rows", own), ("bag", own)]
    assert plan["obstacles"] == []

    secret = shop.folder / "person.txt"
    secret.write_text("customer=2\n")
    wrong = cli("erase", f"{FEED}/orders", "--key-file", str(secret))
    assert (wrong.code, "give --reason" in wrong.err) == (1, True)
    done = cli("erase", f"{FEED}/orders", "--key-file", str(secret), "--reason", "request 7")
    assert (done.code, len(shop.rows())) == (0, len(rows) - own)
    assert f"erased: {own} from rows of the table" in done.out
    shown = " ".join(cli("show", f"{FEED}/{DAY}").out.split())
    assert f"public.orders: {own} rows and 0 records set aside were erased since" in shown
    assert cli("verify", "--all").code == cli("archive", "verify", "--all").code == 0
    assert cli("verify", "--audit").code == 0
    again = cli("erase", f"{FEED}/orders", "--key", "customer=2", "--reason", "request 7")
    assert "Nothing of the person was found" in again.out
    assert "Nothing was left half done" in cli("erase", "--resume").out

    for arguments in ([], ["orders"], [f"{FEED}/orders", "--key", "2"]):
        assert cli("erase", *arguments, "--reason", "x").code == 2
    refused = cli("erase", f"{FEED}/orders", "--key", "customer=second", "--reason", "x")
    assert (refused.code, "second" in refused.err + refused.out) == (1, False)
