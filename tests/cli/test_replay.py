"""`replay` loads what was set aside once its cause is mended; `import --dry-run` says what would be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support_shop import DAY, FEED, orders

if TYPE_CHECKING:
    from tests.cli.conftest import Cli
    from tests.support_shop import Shop

# A customer who is not known yet, and an amount that is no number.
BAD = "101,77,2024-05-01,1.00,\n102,1,2024-05-01,one,\n"


def test_a_rehearsal_and_then_a_replay(cli: Cli, shop: Shop) -> None:
    shop.deliver(DAY, orders(5) + BAD)

    rehearsed = cli("import", FEED, "--batch", DAY, "--dry-run")
    assert rehearsed.code == 3
    assert "public.orders: 7 records, 5 inserted" in rehearsed.out
    assert "2 set aside" in rehearsed.out
    assert "refers to no row of public.customers (SQLSTATE 23503)" in rehearsed.out
    assert rehearsed.out.splitlines()[-1] == "Nothing was changed."
    assert shop.batches() == []

    assert cli("import", FEED).code == 3
    (batch,) = shop.batches()
    with shop.database.connect("test") as connection:
        connection.execute("INSERT INTO public.customers VALUES (77, 'Barbara')")
    replayed = cli("replay", f"{FEED}/{DAY}")
    assert replayed.code == 3
    assert f"{batch.batch_id[:8]}  {FEED}/{DAY}  PARTIAL_SUCCESS  6 rows" in replayed.out
    (now,) = shop.batches()
    assert (now.batch_id, now.written_records, now.rejected_records) == (batch.batch_id, 6, 1)


def test_a_rehearsal_as_json_of_a_delivery_that_would_be_refused(cli: Cli, shop: Shop) -> None:
    with (shop.settings.feeds / "orders.yaml").open("a") as feed:
        feed.write("thresholds: {rejected_rows: 1}\n")
    shop.deliver(DAY, orders(5) + BAD)
    rehearsed = cli("import", FEED, "--dry-run", "--json")
    (told,) = rehearsed.json
    assert rehearsed.code == 1
    assert "2 of 7 records cannot be loaded, above 1" in told["problem"]
    assert sorted(reason["sqlstate"] for reason in told["reasons"]) == ["22P02", "23503"]
    assert told["tables"] == []


def test_only_what_is_in_force_and_lacks_records_is_replayed(cli: Cli, shop: Shop) -> None:
    shop.deliver(DAY, orders(5))
    assert cli("import", FEED).code == 0
    nothing = cli("replay", f"{FEED}/{DAY}")
    assert (nothing.code, "nothing was set aside" in nothing.out) == (0, True)
    (first,) = shop.batches()
    shop.deliver(DAY, orders(4))
    assert cli("import", FEED).code == 0
    refused = cli("replay", first.batch_id)
    assert refused.code == 1
    assert "is SUPERSEDED: only what is in force is replayed" in refused.err
