"""`rollback` on the command line: plan, reason, exit codes, JSON, and two people."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from batch_pipelines.cli import imports, rollback
from tests.support_shop import DAY, FEED, orders

if TYPE_CHECKING:
    from tests.cli.conftest import Cli
    from tests.support_shop import Shop

PARTITION = f"{FEED}/{DAY}"


@pytest.fixture
def loaded(shop: Shop) -> Shop:
    shop.deliver(DAY, orders(3))
    assert shop.run(DAY).success
    return shop


def test_plan_rollback_and_once_more(cli: Cli, loaded: Shop) -> None:
    (batch,) = loaded.batches()
    planned = cli("rollback", PARTITION, "--dry-run")
    assert (planned.code, len(loaded.rows())) == (0, 3)
    assert "public.orders: 3 rows go" in planned.out
    done = cli("rollback", batch.batch_id[:8], "--reason", "wrong day")
    assert (done.code, loaded.rows()) == (0, [])
    assert "3 deleted" in done.out
    assert loaded.materialized("bulk_write") == set()
    again = cli("rollback", batch.batch_id, "--reason", "again", "--json")
    assert again.code == 0
    assert [b["batch_id"] for b in again.json["already"]] == [batch.batch_id]
    assert again.json["done"] == []
    shown = cli("show", batch.batch_id, "--json").json
    assert shown["batch"]["rollback_reason"] == "wrong day"
    assert shown["rollback"][0]["deleted"] == 3
    assert shown["next"] == f"batch-pipelines import {FEED} --batch {DAY}"
    assert "wrong day" in cli("show", batch.batch_id).out


def test_what_stands_in_the_way_ends_it_with_1(cli: Cli, loaded: Shop) -> None:
    loaded.query("UPDATE public.orders SET note = 'secret' WHERE id = 1")
    planned = cli("rollback", PARTITION, "--dry-run", "--json")
    assert (planned.code, planned.json["possible"]) == (1, False)
    assert planned.json["plans"][0]["obstacles"][0]["kind"] == "touched"
    assert "secret" not in json.dumps(planned.json)
    refused = cli("rollback", PARTITION, "--reason", "x")
    assert (refused.code, len(loaded.rows())) == (1, 3)
    assert "changed by hand" in refused.err
    kept = cli("rollback", "--since", "2000-01-01", "--keep-touched", "--reason", "x")
    assert (kept.code, [row[0] for row in loaded.rows()]) == (0, [1])


def test_wrong_usage(cli: Cli, loaded: Shop) -> None:
    for arguments in (
        (PARTITION,), (PARTITION, "--reason", " "), ("--reason", "x"),
        ("--since", "yesterday", "--reason", "x"), ("--since", "2999-01-01", "--reason", "x"),
        ("orders/nope", "--reason", "x"), (PARTITION, "--approve", "abc"),
    ):  # fmt: skip
        assert cli("rollback", *arguments).code == 2, arguments
    assert len(loaded.rows()) == 3


def test_a_feed_may_want_two_people(
    cli: Cli, loaded: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = loaded.settings.feeds / "orders.yaml"
    path.write_text(path.read_text() + "rollback:\n  approval: two\n")
    asked = cli("rollback", PARTITION, "--reason", "wrong", "--json")
    assert (asked.code, len(loaded.rows())) == (3, 3)
    request = asked.json["request"]
    own = cli("rollback", "--approve", request)
    assert (own.code, len(loaded.rows())) == (1, 3)
    assert "somebody else has to approve it" in own.err
    monkeypatch.setattr(rollback, "user", lambda: f"not {imports.user()}")
    assert cli("rollback", "--approve", request[:13]).code == 0
    assert loaded.rows() == []
    (batch,) = loaded.batches()
    assert batch.rolled_back_by == f"{imports.user()} (command line)"
    found = loaded.query(
        "SELECT action FROM batch_audit.audit_event WHERE action LIKE 'batch.rollback.%' ORDER BY seq"
    )
    assert [action.removeprefix("batch.rollback.") for (action,) in found] == [
        "requested", "approved", "started", "done",
    ]  # fmt: skip
