"""`retention` and `hold`, typed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support_shop import DAY, FEED, orders

if TYPE_CHECKING:
    from tests.cli.conftest import Cli
    from tests.support_shop import Shop

RULES = "\nretention:\n  rows: {keep: 7 years, legal_source: tax code}\n"
OLD = """
UPDATE batch_audit.import_history SET started_at = started_at - interval '8 years',
    published_at = published_at - interval '8 years', completed_at = completed_at - interval '8 years'
"""


def test_what_is_due_is_told_held_and_goes(cli: Cli, shop: Shop) -> None:
    with (shop.settings.feeds / f"{FEED}.yaml").open("a") as file:
        file.write(RULES)
    shop.deliver(DAY, orders(20))
    assert cli("import", FEED).code == 0
    assert "Nothing is due." in cli("retention", "--dry-run").out
    shop.query(OLD)
    plan = cli("retention", "--dry-run", "--json").json["plan"]
    assert [(p["data_class"], p["legal_source"], p["kept_by"]) for p in plan] == [
        ("rows", "tax code", [])
    ]
    hold = cli("hold", "set", f"{FEED}/{DAY}", "--reason", "case 17", "--json").json["hold_id"]
    kept = cli("retention")
    assert (kept.code, "Nothing was to go." in kept.out, len(shop.rows())) == (0, True, 20)
    assert f"legal hold {hold} (case 17)" in kept.out
    assert f"under legal hold {hold} (case 17)" in cli("show", f"{FEED}/{DAY}").out
    assert cli("hold", "lift", str(hold), "--reason", "settled").code == 0
    assert "settled" in cli("hold", "list", "--all").out
    done = cli("retention", "--feed", FEED)
    assert (done.code, "DELETED" in done.out, shop.rows()) == (0, True, [])
    shown = cli("show", f"{FEED}/{DAY}").out
    assert "ARCHIVED" in shown
    assert "by the rule 7 years from completed, tax code" in " ".join(shown.split())
    assert "Next: batch-pipelines restore " in shown
    for wrong in (["hold", "set", "--reason", "x"], ["hold", "set", "--everything"],
                  ["hold", "set", "--since", "soon", "--reason", "x"],
                  ["retention", "--feed", "others"]):  # fmt: skip
        assert cli(*wrong).code == 2
