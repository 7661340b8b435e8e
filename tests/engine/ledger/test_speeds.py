"""How fast a stage was with the recent batches of a feed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batch_pipelines.engine.ledger.speeds import recent_speeds

if TYPE_CHECKING:
    from tests.engine.conftest import MakeSite

HEAD = "id\n"


def test_the_newest_batches_come_in_their_order_with_sizes_and_times(site18: MakeSite) -> None:
    here = site18("CREATE TABLE t (id integer PRIMARY KEY, import_batch_id uuid)")
    done = [here.load({"f.csv": HEAD + f"{n}\n"}, f"day-{n}") for n in range(3)]
    here.deliver({"f.csv": HEAD + "7\n"}, "pending")
    last = here.run("pending", stages=("ingest", "checksum"))
    found = recent_speeds(here.connection, "orders", "validate", 2)
    assert [each.batch_id for each in found] == [batch.batch_id for batch in done[1:]]
    assert [(each.partition_key, each.size, each.records) for each in found] == [
        ("day-1", 5, 1), ("day-2", 5, 1),
    ]  # fmt: skip
    assert all(0 < each.seconds < 60 for each in found)
    newest = recent_speeds(here.connection, "orders", "checksum", 1)
    assert [each.batch_id for each in newest] == [last.batch_id]
    assert recent_speeds(here.connection, "another", "checksum", 1) == ()
