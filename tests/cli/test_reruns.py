"""`rerun-failed`: which failed partitions are run again from the command line, and that they are."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from tests.support_process import command
from tests.support_shop import DAY, FEED, orders

if TYPE_CHECKING:
    from tests.support_shop import Shop


def test_failed_partitions_are_told_with_the_reason_and_run_again(shop: Shop) -> None:
    environment = dict(os.environ)
    for key, first in ((DAY, 1), ("other", 10)):
        shop.deliver(key, orders(5, first=first, customer=9))
        assert not shop.run(key).success
    # As if it had been the database.
    shop.query("UPDATE batch_audit.import_history SET failure_cause = 'database' "
               "WHERE partition_key = 'other'")  # fmt: skip
    shop.query("INSERT INTO public.customers VALUES (9, 'Barbara')")

    told = command("rerun-failed", "--dry-run", "--json", environment=environment)
    assert told.returncode == 0, told.stderr
    found = {row["partition"]: (row["cause"], row["run"]) for row in json.loads(told.stdout)}
    assert found == {f"{FEED}/{DAY}": ("threshold", False), f"{FEED}/other": ("database", True)}
    assert shop.rows() == []

    done = command("rerun-failed", environment=environment)
    assert done.returncode == 0, done.stderr
    assert "orders/other  SUCCESS  5 rows" in done.stdout
    named = command("rerun-failed", f"{FEED}/{DAY}", environment=environment)
    assert named.returncode == 0, named.stderr
    assert len(shop.rows()) == 10

    wrong = command("rerun-failed", f"{FEED}/{DAY}", environment=environment)
    assert wrong.returncode == 2
    assert "there is no such partition that stands failed" in wrong.stderr
