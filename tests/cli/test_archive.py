"""`archive`: what is done with bags, typed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import SecretStr

from batch_pipelines.engine.archiving.keys import read_keys
from tests.support_shop import DAY, FEED, orders

if TYPE_CHECKING:
    from tests.cli.conftest import Cli
    from tests.support_shop import Shop


def test_a_key_is_made_that_can_be_used(cli: Cli) -> None:
    keys = [cli("archive", "key").out.strip() for _ in range(2)]
    assert len({read_keys(SecretStr(key)).newest for key in keys} - {None}) == 2


def test_bags_are_verified_and_damage_is_named(cli: Cli, shop: Shop) -> None:
    shop.deliver(DAY, orders(20))
    assert cli("import", FEED).code == 0
    valid = cli("archive", "verify", f"{FEED}/{DAY}")
    assert (valid.code, valid.out.split()[0]) == (0, "VALID")
    (place,) = shop.query("SELECT place FROM batch_audit.archive_manifest")[0]
    assert place in valid.out
    damaged = Path(place) / "data" / "ledger" / "batch_table.json"
    damaged.write_text("[]")
    for which in (["--all"], ["--sample", "1"], ["--all", "--feed", FEED], [f"{FEED}/{DAY}"]):
        found = cli("archive", "verify", *which)
        assert found.code == 1
        assert found.out.splitlines()[0].startswith(f"DAMAGED  {place}, ")
        assert "  data/ledger/batch_table.json is changed" in found.out.splitlines()
    (told,) = cli("archive", "verify", "--all", "--json").json
    assert (told["status"], told["problems"]) == (
        "DAMAGED",
        ["data/ledger/batch_table.json is changed"],
    )
    for wrong in ([], ["--all", "--sample", "1"], [f"{FEED}/{DAY}", "--feed", FEED]):
        assert cli("archive", "verify", *wrong).code == 2
