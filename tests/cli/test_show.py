"""`batches` and `show`: the ledger for people and for programs, and the one next command."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, get_args

import pytest

from batch_pipelines.cli.batches import next_command
from batch_pipelines.engine.ledger.batches import Status
from tests.support_shop import DAY, FEED, orders

if TYPE_CHECKING:
    from tests.cli.conftest import Cli
    from tests.support_shop import Shop


def test_batches_are_listed_newest_first(cli: Cli, shop: Shop) -> None:
    shop.deliver("a", orders(5))
    shop.deliver("b", "id\nx\n")
    cli("import", FEED)
    cli("import", FEED, "--batch", "a")
    ran = cli("batches")
    assert ran.code == 0
    lines = [line.split()[:5] for line in ran.out.splitlines() if "orders/" in line]
    assert [line[1:4] for line in lines] == [
        ["orders/a", "2", "DUPLICATE"], ["orders/b", "1", "FAILED"], ["orders/a", "1", "SUCCESS"],
    ]  # fmt: skip
    assert [each["status"] for each in cli("batches", "--json").json] == [
        "DUPLICATE", "FAILED", "SUCCESS",
    ]  # fmt: skip
    (failed,) = cli("batches", "--status", "failed", "--json").json
    assert failed["partition_key"] == "b"
    assert len(cli("batches", "--limit", "2", "--json").json) == 2
    assert cli("batches", "--feed", "other", "--json").json == []


def test_show_finds_a_batch_by_id_by_prefix_and_by_partition(cli: Cli, shop: Shop) -> None:
    shop.deliver(DAY, orders(5), sidecar=True)
    cli("import", FEED)
    (batch,) = shop.batches()
    shown = [cli("show", name) for name in (batch.batch_id, batch.batch_id[:8], f"{FEED}/{DAY}")]
    assert {ran.code for ran in shown} == {0}
    assert len({ran.out for ran in shown}) == 1
    out = shown[0].out
    assert out.startswith(f"Batch {batch.batch_id}  {FEED}/{DAY}, attempt 1: SUCCESS\n")
    for stage in ("ingest", "checksum", "bulk_write", "validate", "archive"):
        assert f" {stage} " in out
    assert "public.orders: 9 checks, 0 failed\n" in out
    assert out.splitlines()[-1] == "Next: batch-pipelines batches --feed orders"

    told = cli("show", batch.batch_id, "--json").json
    assert told["batch"]["batch_id"] == batch.batch_id
    assert told["runs"] == [batch.batch_id]
    assert [stage["status"] for stage in told["stages"]] == ["SUCCESS"] * 5
    assert told["files"][0]["crc32c"] == told["files"][0]["expected_crc32c"]
    assert told["tables"][0]["inserted"] == 5
    assert told["validations"][0]["checks"][0]["expected"] == "5"
    assert told["archive"]["place"].endswith(batch.batch_id)
    assert told["next"] == "batch-pipelines batches --feed orders"


@pytest.mark.parametrize("typed", ["FAILD", "", "duplicates"])
def test_a_state_that_there_is_not_is_wrong_usage(cli: Cli, shop: Shop, typed: str) -> None:
    ran = cli("batches", "--status", typed)
    assert ran.code == 2
    assert ran.out == ""
    for status in get_args(Status):
        assert status in ran.err


def test_show_of_a_partition_whose_last_delivery_is_a_duplicate(cli: Cli, shop: Shop) -> None:
    """Given good, damaged and the good one again, the batch in force is shown, and why."""
    shop.deliver(DAY, orders(5))
    cli("import", FEED)
    shop.deliver(DAY, "id\nx\n")
    cli("import", FEED)
    shop.deliver(DAY, orders(5))
    assert cli("import", FEED).code == 0
    good, _, again = shop.batches()
    assert again.duplicate_of == good.batch_id
    ran = cli("show", f"{FEED}/{DAY}")
    assert ran.out.startswith(f"Batch {good.batch_id}  {FEED}/{DAY}, attempt 1: SUCCESS\n")
    told = f"attempt 3 (batch {again.batch_id[:8]}) is a duplicate of this batch, in force"
    assert told in ran.out.splitlines()
    assert cli("show", good.batch_id, "--json").json["last_attempt"]["batch_id"] == again.batch_id

    told = f"a duplicate of batch {good.batch_id} ({FEED}/{DAY}), in force"
    assert told in cli("show", again.batch_id).out.splitlines()
    cli("import", FEED, "--force")
    told = f"a duplicate of batch {good.batch_id} ({FEED}/{DAY}), SUPERSEDED since"
    assert told in cli("show", again.batch_id).out.splitlines()


def test_show_of_a_failed_batch_tells_why_and_what_to_type(cli: Cli, shop: Shop) -> None:
    shop.deliver(DAY, orders(5, customer=9))
    cli("import", FEED)
    ran = cli("show", f"{FEED}/{DAY}")
    assert ran.code == 0
    assert "The first: orders.csv, record 1 (line 2), column customer: customer refers" in ran.out
    (batch,) = shop.batches()
    assert ran.out.splitlines()[-1] == f"Next: batch-pipelines rejects {batch.batch_id[:8]}"


def test_show_tells_how_the_columns_of_a_delivery_have_changed(cli: Cli, shop: Shop) -> None:
    shop.deliver("a", orders(2))
    cli("import", FEED, "--batch", "a")
    assert (
        "public.orders: columns of a first delivery; loaded as version 1"
        in cli("show", f"{FEED}/a").out
    )

    shop.deliver("b", f"id,customer,placed,amount,nota\n7,1,{DAY},5,x\n")
    cli("import", FEED, "--batch", "b")
    shown = cli("show", f"{FEED}/b").out
    assert "public.orders: columns against version 1: breaking; not published" in shown
    assert [line.split()[:2] for line in shown.splitlines() if line.endswith("evolve ")] == [
        ["nota", "added"], ["note", "missing"],
    ]  # fmt: skip
    (event,) = cli("show", f"{FEED}/b", "--json").json["signature_events"]
    assert (event["verdict"], event["previous_version"], event["version"]) == ("breaking", 1, None)

    shop.deliver("b", f"id,customer,placed,amount\n7,1,{DAY},5\n")
    rehearsed = cli("import", FEED, "--batch", "b", "--dry-run", "--json").json
    (told,) = rehearsed[0]["signatures"]
    assert (told["verdict"], told["previous_version"]) == ("compatible", 1)
    assert [change["column"] for change in told["changes"]] == ["note"]


@pytest.mark.parametrize("name", ["nope", "0000", "%", "orders/2030-01-01", "orders/"])
def test_show_of_what_is_not_there_is_wrong_usage(cli: Cli, shop: Shop, name: str) -> None:
    ran = cli("show", name)
    assert ran.code == 2
    assert "`batch-pipelines batches` lists them" in ran.err
    assert ran.out == ""


def test_each_state_has_one_next_command(cli: Cli, shop: Shop) -> None:
    shop.deliver(DAY, orders(5))
    cli("import", FEED)
    (batch,) = shop.batches()
    again = f"batch-pipelines import {FEED} --batch {DAY}"
    other = "12345678-0000-4000-8000-000000000000"
    expected = {
        "IN_PROGRESS": again, "FAILED": again, "PUBLISHED": again, "VALIDATION_FAILED": again,
        "SUCCESS": again, "DUPLICATE": "batch-pipelines show 12345678",
        "SUPERSEDED": "batch-pipelines show 12345678",
    }  # fmt: skip
    for status, command in expected.items():
        found = dataclasses.replace(batch, status=status, duplicate_of=other, superseded_by=other)
        assert next_command(found, archived=False) == command
    assert next_command(batch, archived=True) == f"batch-pipelines batches --feed {FEED}"
    partly = dataclasses.replace(batch, status="PARTIAL_SUCCESS", rejected_records=1)
    assert next_command(partly, archived=False) == again
    rejects = f"batch-pipelines rejects {batch.batch_id[:8]}"
    assert next_command(partly, archived=True) == rejects
    assert next_command(dataclasses.replace(partly, status="FAILED"), archived=False) == rejects
