"""`feeds list`, `feeds check`, `feeds schema`, `feeds pause` and `feeds resume`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml

from tests.support_shop import DAY, FEED, deliver, orders

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli
    from tests.support_shop import Shop


def test_list_shows_each_feed_and_what_lies_in_landing(cli: Cli, feeds_folder: Path) -> None:
    deliver(feeds_folder.parent, DAY, orders(1))
    deliver(feeds_folder.parent, "2024-05-02", orders(1))
    ran = cli("feeds", "list")
    assert ran.code == 0
    (line,) = (line for line in ran.out.splitlines() if "public.orders" in line)
    assert line.split() == ["orders", "public.orders", "landing/orders/{batch}/*.csv", "2"]
    (feed,) = cli("feeds", "list", "--json").json
    assert feed["feed"] == "orders"
    (table,) = feed["tables"]
    assert (table["table"], table["files"], table["write"]) == ("public.orders", "*", "insert")


def test_a_wrong_feed_file_is_wrong_usage_with_file_line_and_remedy(
    cli: Cli, feeds_folder: Path
) -> None:
    path = feeds_folder / "orders.yaml"
    path.write_text(path.read_text().replace("owners:", "owner:"))
    for command in (["feeds", "list"], ["feeds", "check"], ["import", "orders"]):
        ran = cli(*command)
        assert ran.code == 2
        assert f"{path}:9: `owner` is not known; did you mean `owners`?" in ran.err
        assert ran.out == ""


def test_a_missing_feeds_folder_names_the_setting(
    cli: Cli, feeds_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCH_PIPELINES_FEEDS", str(feeds_folder / "no"))
    ran = cli("feeds", "list")
    assert ran.code == 2
    assert "Set BATCH_PIPELINES_FEEDS" in ran.err


def test_check_compares_the_feeds_with_their_tables(cli: Cli, shop: Shop) -> None:
    ran = cli("feeds", "check")
    assert ran.code == 0
    assert "1 feeds and their tables are right: orders." in ran.out
    assert cli("feeds", "check", "--json").json == {
        "feeds": ["orders"], "problems": [], "unchecked": [], "lossy": [],
    }  # fmt: skip

    shop.query("DROP TABLE public.orders")
    ran = cli("feeds", "check")
    assert ran.code == 2
    assert "there is no table public.orders" in ran.err
    assert "batch-pipelines db upgrade" in ran.err
    ran = cli("feeds", "check", "--json")
    assert ran.code == 2
    assert len(ran.json["problems"]) == 1


def test_check_holds_rules_against_their_tables_with_file_and_line(cli: Cli, shop: Shop) -> None:
    path = shop.folder / "feeds" / "orders.yaml"
    rules = (
        "    rules:\n      - {name: dear, expression: amount > 5 AND amount < 1e6}\n"
        "      - name: placed_lately\n        expression: plcd > '2020-01-01'\n"
    )
    table = "  - table: public.orders\n"
    path.write_text(path.read_text().replace(table, table + rules))
    for command in (["feeds", "check"], ["import", "orders"]):
        deliver(shop.folder, DAY, orders(1))
        ran = cli(*command)
        assert ran.code in {1, 2}
        said = " ".join((ran.out + ran.err).split())
        assert (
            f"{path}:11: rule placed_lately of public.orders is refused by PostgreSQL near" in said
        )
        assert "`plcd > '2020-01-01'` (42703, undefined column)" in said
        assert "dear" not in said


def test_the_schema_says_what_a_feed_may_say(cli: Cli, feeds_folder: Path) -> None:
    schema = cli("feeds", "schema").json
    written = yaml.safe_load((feeds_folder / "orders.yaml").read_text())
    assert written.keys() <= schema["properties"].keys()
    assert {*schema["required"]} == {"feed", "source", "tables"}
    assert schema["additionalProperties"] is False
    assert all("description" in each for each in schema["$defs"]["Source"]["properties"].values())


def test_a_feed_is_paused_and_resumed(cli: Cli, shop: Shop) -> None:
    shop.deliver(DAY, orders(3))
    paused = cli("feeds", "pause", FEED, "--reason", "the sender repeats itself")
    assert paused.code == 0
    assert "Feed orders is paused since" in paused.out
    assert "(command line): the sender repeats itself." in paused.out
    assert "was paused before" in cli("feeds", "pause", FEED, "--reason", "more").out
    assert "the sender repeats itself" in cli("feeds", "paused").out
    assert [p["feed"] for p in cli("feeds", "paused", "--json").json] == [FEED]

    for more in ((), ("--force",)):
        refused = cli("import", FEED, *more)
        assert refused.code == 1
        assert "batch-pipelines feeds resume orders" in refused.err
    assert shop.batches() == []
    assert cli("import", FEED, "--dry-run").code == 0

    assert "Feed orders goes on. It was paused by" in cli("feeds", "resume", FEED).out
    assert cli("feeds", "resume", FEED).out == "Feed orders was not paused.\n"
    assert cli("import", FEED).code == 0


@pytest.mark.parametrize("words", [("pause", "nobody", "--reason", "x"), ("resume", "nobody")])
def test_a_feed_that_is_not_there_is_not_paused(
    cli: Cli, shop: Shop, words: tuple[str, ...]
) -> None:
    ran = cli("feeds", *words)
    assert ran.code == 2
    assert "nobody" in ran.err


def test_a_pause_has_a_reason(cli: Cli, shop: Shop) -> None:
    assert cli("feeds", "pause", FEED, "--reason", " ").code == 2


def test_a_channel_that_nobody_has_is_noted(
    cli: Cli, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shop.settings.feeds / "orders.yaml"
    path.write_text(path.read_text() + "monitor: {channels: [ops, lab], escalate_to: nurse}\n")
    assert cli("feeds", "check").err == ""
    monkeypatch.setenv("BATCH_PIPELINES_ALERTS", "ops=json://127.0.0.1:9/")
    ran = cli("feeds", "check")
    assert ran.code == 0
    assert "`monitor` names lab, nurse, which BATCH_PIPELINES_ALERTS has not" in ran.err
