"""`verify` proves batches again, says what differs, and its exit code tells which it was."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support_shop import DAY, FEED, orders

if TYPE_CHECKING:
    from tests.cli.conftest import Cli
    from tests.support_shop import Shop


def test_a_batch_is_proven_and_what_differs_is_named(cli: Cli, shop: Shop) -> None:
    shop.deliver(DAY, orders(50))
    assert cli("import", FEED).code == 0
    (batch,) = shop.batches()

    proven = cli("verify", f"{FEED}/{DAY}")
    assert proven.code == 0
    assert proven.out.splitlines() == [
        f"{batch.batch_id[:8]}  {FEED}/{DAY}, SUCCESS: SUCCESS",
        "  public.orders: SUCCESS, 50 rows",
    ]

    shop.query("UPDATE public.orders SET note = 'SECRET', amount = 7 WHERE id = 7")
    shop.query("DELETE FROM public.orders WHERE id = 8")
    shop.query("INSERT INTO public.orders SELECT 99, customer, placed, amount, note,"
               " import_batch_id FROM public.orders WHERE id = 9")  # fmt: skip
    differs = cli("verify", batch.batch_id[:8])
    assert differs.code == 1
    assert "public.orders: FAILED, 50 rows (1 changed, 1 missing, 1 added)" in differs.out
    lines = [line.split() for line in differs.out.splitlines() if "id=" in line]
    assert lines == [
        ["changed", "id=7", "orders.csv", "7", "amount,", "note"],
        ["missing", "id=8", "orders.csv", "8", "-"],
        ["added", "id=99", "-", "-", "-"],
    ]
    (told,) = cli("verify", "--all", "--json").json
    assert (told["status"], told["tables"][0]["changed"]) == ("FAILED", 1)
    assert [row["key"] for row in told["tables"][0]["details"]] == [
        {"id": "7"}, {"id": "8"}, {"id": "99"},
    ]  # fmt: skip
    assert "SECRET" not in differs.out + str(told)
    logged = shop.query(
        "SELECT status, run_id, requested_by LIKE '%(command line)'"
        " FROM batch_audit.verification_log ORDER BY id"
    )
    assert logged == [("SUCCESS", None, True), ("FAILED", None, True), ("FAILED", None, True)]
    shown = cli("show", batch.batch_id)
    assert "public.orders: verified" in shown.out
    assert "FAILED" in shown.out


def test_a_sample_takes_turns_and_leaves_out_what_is_not_in_force(cli: Cli, shop: Shop) -> None:
    for key in ("a", "b", "c"):
        shop.deliver(key, orders(3, first=ord(key) * 10))
    assert cli("import", FEED).code == 0
    shop.deliver("a", orders(2, first=970))
    assert cli("import", FEED, "--batch", "a").code == 0
    seen = [cli("verify", "--sample", "1", "--json").json[0]["batch"] for _ in range(3)]
    assert sorted(batch["partition_key"] for batch in seen) == ["a", "b", "c"]
    assert {batch["status"] for batch in seen} == {"SUCCESS"}
    every = cli("verify", "--all", "--feed", FEED, "--json")
    assert every.code == 0
    assert sorted(each["batch"]["status"] for each in every.json) == [
        "SUCCESS", "SUCCESS", "SUCCESS", "SUPERSEDED",
    ]  # fmt: skip
    assert cli("verify", "--all", "--feed", "other").code == 0


def test_a_batch_of_which_nothing_was_published_is_not_proven(cli: Cli, shop: Shop) -> None:
    shop.deliver("bad", "id\nx\n")
    cli("import", FEED)
    ran = cli("verify", f"{FEED}/bad")
    assert ran.code == 3
    assert "the batch is FAILED: nothing of it was published" in ran.out


@pytest.mark.parametrize(
    "typed", [(), ("x", "--all"), ("--all", "--sample", "2"), ("x", "--feed", "orders")]
)
def test_what_is_to_be_verified_is_said_in_one_way(cli: Cli, typed: tuple[str, ...]) -> None:
    assert cli("verify", *typed).code == 2
