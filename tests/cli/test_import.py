"""`import`: one delivery, all deliveries, none, damaged ones, and the same one twice."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.support_shop import DAY, FEED, orders

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli.conftest import Cli
    from tests.support_shop import Shop

# Imports, and halts before its commit until a file appears.
HALTING = """
import pathlib, sys, time
from batch_pipelines.cli import main
from batch_pipelines.engine.failpoints import armed
here, go = (pathlib.Path(sys.argv.pop(1)) for _ in range(2))
def halt(value):
    here.touch()
    while not go.exists():
        time.sleep(0.05)
    return value
with armed("bulk_write.before_fence", halt):
    main()
"""


def test_one_partition_is_imported(cli: Cli, shop: Shop) -> None:
    shop.deliver(DAY, orders(5))
    shop.deliver("other", orders(5, first=6))
    ran = cli("import", FEED, "--batch", DAY)
    assert ran.code == 0
    (batch,) = shop.batches()
    assert ran.out.split() == [batch.batch_id[:8], f"{FEED}/{DAY}", "SUCCESS", "5", "rows"]
    assert ran.err == ""
    assert batch.requested_by.endswith("(command line)")
    assert shop.stamps() == {batch.batch_id}
    run = shop.instance.get_run_by_id(batch.batch_id)
    assert run is not None
    assert run.is_success
    # By which the UI counts the run among those of its job.
    assert run.tags[".dagster/repository"] == "__repository__@batch_pipelines"


def test_all_that_lies_in_landing_is_imported_and_a_bad_delivery_does_not_stop_the_rest(
    cli: Cli, shop: Shop
) -> None:
    shop.deliver("a", orders(5))
    shop.deliver("b", orders(5, first=6).replace("note", "nothing"))
    shop.deliver("c", orders(5, first=11))
    ran = cli("import", FEED)
    assert ran.code == 1
    assert [batch.status for batch in shop.batches()] == ["SUCCESS", "FAILED", "SUCCESS"]
    assert len(shop.rows()) == 10
    assert "orders.csv" in ran.err
    assert "Next: batch-pipelines import orders --batch b" in ran.out


def test_the_same_again_does_nothing_and_says_why(cli: Cli, shop: Shop) -> None:
    shop.deliver(DAY, orders(5))
    cli("import", FEED)
    before = shop.rows()
    ran = cli("import", FEED)
    assert ran.code == 0
    first = shop.batches()[0].batch_id
    assert f"the same delivery is in force as batch {first[:8]}" in ran.out
    assert shop.rows() == before

    ran = cli("import", FEED, "--force")
    assert ran.code == 0
    assert shop.stamps() == {shop.batches()[-1].batch_id}
    assert shop.batch(first).status == "SUPERSEDED"


def test_json_tells_what_became_of_each_partition(cli: Cli, shop: Shop) -> None:
    shop.deliver("a", orders(5))
    shop.deliver("b", "id,customer,placed,amount\n1,1,2024-05-01,nothing\n")
    ran = cli("import", FEED, "--json")
    assert ran.code == 1
    good, bad = ran.json
    assert (good["name"], good["batch"]["status"], good["problem"]) == ("orders/a", "SUCCESS", None)
    assert (bad["name"], bad["batch"]["status"]) == ("orders/b", "FAILED")
    assert "amount" in bad["problem"]


def test_a_damaged_delivery_names_the_file_and_both_checksums(cli: Cli, shop: Shop) -> None:
    path = shop.deliver(DAY, orders(5), sidecar=True)
    promised = path.with_name("orders.csv.crc32c").read_text().strip()
    path.write_text(orders(5).replace("order 3", "order 4"))
    ran = cli("import", FEED)
    assert ran.code == 1
    assert "orders.csv" in ran.err
    assert promised in ran.err
    assert shop.rows() == []
    assert f"Next: batch-pipelines import {FEED} --batch {DAY}" in ran.out
    path.write_text(orders(5))
    assert cli("import", FEED, "--batch", DAY).code == 0


def test_a_wrong_value_is_set_aside_and_names_its_column(cli: Cli, shop: Shop) -> None:
    shop.deliver(DAY, orders(5).replace("3,1,2024-05-01", "3,one,2024-05-01"))
    ran = cli("import", FEED)
    assert ran.code == 3
    assert "1 of 5 records were set aside" in ran.out
    assert "column customer: is not a valid integer" in ran.out


def test_a_partition_that_was_not_delivered_is_refused_with_those_that_were(
    cli: Cli, shop: Shop
) -> None:
    shop.deliver(DAY, orders(5))
    ran = cli("import", FEED, "--batch", "2024-05-02")
    assert ran.code == 1
    assert "landing/orders/2024-05-02/*.csv" in ran.err
    assert DAY in ran.err
    assert shop.batches() == []


def test_a_key_that_leads_elsewhere_is_refused(cli: Cli, shop: Shop) -> None:
    ran = cli("import", FEED, "--batch", "../feeds")
    assert ran.code == 1
    assert "is not a partition key" in ran.err


def test_an_empty_landing_is_no_success(cli: Cli, shop: Shop) -> None:
    ran = cli("import", FEED)
    assert ran.code == 1
    assert "Nothing lies in landing for feed orders" in ran.err


def test_a_misspelt_feed_is_wrong_usage_with_the_nearest_name(cli: Cli, shop: Shop) -> None:
    ran = cli("import", "ordres")
    assert ran.code == 2
    assert ran.err.strip() == "Error: There is no feed ordres. Did you mean orders?"


@pytest.mark.parametrize("typed", [["import"], ["nonsense"], ["batches", "--limit", "0"]])
def test_what_cannot_be_understood_is_wrong_usage(cli: Cli, typed: list[str]) -> None:
    assert cli(*typed).code == 2


@pytest.fixture
def halted(cli: Cli, shop: Shop, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that imports DAY and halts just before it commits; `go` lets it go on."""
    # Of a feed's very first deliveries one waits for the other, whose columns make the first version.
    shop.deliver("before", orders(1, first=100))
    assert cli("import", FEED).code == 0
    shop.deliver(DAY, orders(5))
    here, go = tmp_path / "here", tmp_path / "go"
    command = [sys.executable, "-c", HALTING, str(here), str(go), "import", FEED, "--batch", DAY]
    with subprocess.Popen(
        command, env=dict(os.environ), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 60
        while not here.exists():
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.05)
        try:
            yield process
        finally:
            process.kill()


def test_of_two_imports_of_one_partition_one_loads_and_the_other_says_why_not(
    cli: Cli, shop: Shop, halted: subprocess.Popen[str], tmp_path: Path
) -> None:
    shop.deliver("free", orders(5, first=6))
    second = cli("import", FEED)
    assert second.code == 1
    (first,) = (batch for batch in shop.batches() if batch.partition_key == DAY)
    assert f"orders/{DAY} is being loaded by run {first.batch_id}" in second.err
    # The other delivery is none of that import's business.
    assert {batch.partition_key: batch.status for batch in shop.batches()} == {
        "before": "DUPLICATE", DAY: "IN_PROGRESS", "free": "SUCCESS",
    }  # fmt: skip

    (tmp_path / "go").touch()
    out, err = halted.communicate(timeout=300)
    assert halted.returncode == 0, err
    assert "SUCCESS" in out
    assert len(shop.rows()) == 11
    assert shop.batch(first.batch_id).status == "SUCCESS"


def test_an_interrupted_import_writes_nothing_and_goes_on_with_nothing(
    shop: Shop, halted: subprocess.Popen[str], tmp_path: Path, cli: Cli
) -> None:
    halted.send_signal(2)
    out, err = halted.communicate(timeout=300)
    assert halted.returncode == 130
    assert "Error: Interrupted." in err
    assert f"Next: batch-pipelines import {FEED} --batch {DAY}" in out
    assert len(shop.rows()) == 1
    found = {batch.partition_key: batch.status for batch in shop.batches()}
    assert found == {"before": "SUCCESS", DAY: "FAILED"}
    assert cli("import", FEED, "--batch", DAY).code == 0
    assert len(shop.rows()) == 6
