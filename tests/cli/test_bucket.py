"""A feed over a bucket on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support_s3 import SECRET, refusal
from tests.support_shop import DAY, FEED, orders

if TYPE_CHECKING:
    import pytest

    from tests.cli.conftest import Cli
    from tests.support_s3 import Store
    from tests.support_shop import Shop


def into_bucket(shop: Shop, store: Store) -> None:
    feed = shop.settings.feeds / "orders.yaml"
    feed.write_text(feed.read_text().replace("path: ", f"path: s3://{store.bucket}/"))


def test_all_that_lies_in_a_bucket_is_imported(cli: Cli, shop: Shop, store: Store) -> None:
    into_bucket(shop, store)
    store.put(f"landing/{FEED}/a/orders.csv", orders(2))
    store.put(f"landing/{FEED}/{DAY}/orders.csv", orders(3, first=3))
    assert cli("feeds", "list").out.split()[-1] == "2"
    ran = cli("import", FEED, "--batch", DAY)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.split()[1:] == [f"{FEED}/{DAY}", "SUCCESS", "3", "rows"]
    assert cli("import", FEED).code == 0
    assert len(shop.rows()) == 5


def test_a_delivery_that_is_not_there_is_named_by_its_url(
    cli: Cli, shop: Shop, store: Store
) -> None:
    into_bucket(shop, store)
    place = f"s3://{store.bucket}/landing/orders"
    assert f"no file {place}/{{batch}}/*.csv." in cli("import", FEED).err
    store.put(f"landing/{FEED}/a/orders.csv", orders(2))
    ran = cli("import", FEED, "--batch", "b")
    assert ran.code == 1
    said = f"Error: There is no file {place}/b/*.csv. In landing for orders: a."
    assert ran.err.split() == said.split()


def test_a_bucket_that_cannot_be_listed_hides_no_other_feed(
    cli: Cli, shop: Shop, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    feed = shop.settings.feeds / "orders.yaml"
    other = feed.read_text().replace("feed: orders", "feed: others")
    (shop.settings.feeds / "others.yaml").write_text(other)
    into_bucket(shop, store)
    store.meddle = lambda _, __: refusal(403, "AccessDenied")
    shop.deliver(DAY, orders(1))
    ran = cli("feeds", "list")
    assert ran.code == 1
    lines = [line.split() for line in ran.out.splitlines() if "public.orders" in line]
    assert [(line[0], line[-1]) for line in lines] == [("orders", "?"), ("others", "1")]
    assert f"Error: orders: s3://{store.bucket}: the store denies access." in " ".join(
        ran.err.split()
    )
    assert SECRET not in ran.err
