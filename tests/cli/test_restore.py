"""`restore`, typed, and the job of the same name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batch_pipelines.engine.failpoints import armed
from batch_pipelines.engine.ledger import batches
from tests.engine.restoring.support import archive_rows
from tests.support_shop import DAY, FEED, orders

if TYPE_CHECKING:
    from tests.cli.conftest import Cli
    from tests.support_shop import Shop


def test_rows_of_an_archived_batch_come_back(cli: Cli, shop: Shop) -> None:
    shop.deliver(DAY, orders(20))
    assert cli("import", FEED).code == 0
    before = shop.query("SELECT * FROM orders ORDER BY id")
    assert cli("restore", f"{FEED}/{DAY}").out.strip().endswith("in the tables already")
    with shop.database.connect("test") as connection:
        loaded = batches.find(connection, f"{FEED}/{DAY}")
    batch = archive_rows(shop.database, shop.settings, shop.feed, loaded)

    planned = cli("restore", f"{FEED}/{DAY}", "--dry-run")
    assert planned.code == 0
    assert "public.orders: 20 rows would come back" in planned.out
    job = shop.defs.resolve_job_def("restore").execute_in_process(
        instance=shop.instance,
        run_config={"ops": {"restore_rows": {"config": {"batch": batch.batch_id}}}},
    )
    (seen,) = (each for each in job.all_events if each.is_successful_output)
    assert seen.step_output_data.metadata["possible"].value is True
    assert shop.query("SELECT * FROM orders") == []

    shop.query("INSERT INTO orders VALUES (3, 1, '2024-05-02', 1) RETURNING id")
    refused = cli("restore", batch.batch_id[:8])
    assert refused.code == 1
    assert "1 rows have a key (orders_pkey) that rows there have: 1 of no batch" in refused.err
    told = cli("restore", batch.batch_id, "--json").json
    assert [each["kind"] for each in told["plan"]["obstacles"]] == ["taken"]
    shop.query("DELETE FROM orders RETURNING id")

    done = cli("restore", batch.batch_id, "--reason", "audit")
    assert done.code == 0
    assert "They stay for 30 days. Next, where that is too short: " in done.out
    assert "hold set" in done.out.splitlines()[-1]
    assert shop.query("SELECT * FROM orders ORDER BY id") == before


def test_a_delivery_is_imported_again_out_of_its_bag(cli: Cli, shop: Shop) -> None:
    shop.deliver(DAY, orders(20))
    assert cli("import", FEED).code == 0
    first = cli("batches", "--json").json[0]["batch_id"]
    shop.deliver(DAY, orders(5))
    assert cli("import", FEED).code == 0
    assert cli("reprocess", first[:8]).code == 0
    assert shop.query("SELECT count(*) FROM orders") == [(20,)]
    assert cli("reprocess", "nothing/such").code != 0


def test_what_failed_out_of_a_bag_is_run_again_out_of_that_bag(cli: Cli, shop: Shop) -> None:
    """Given a reprocess that lost its database, when it is run again, landing plays no part in it."""
    path = shop.deliver(DAY, orders(20))
    assert cli("import", FEED).code == 0
    first = cli("batches", "--json").json[0]["batch_id"]
    shop.deliver(DAY, orders(5))
    assert cli("import", FEED).code == 0
    end = "SELECT pg_terminate_backend(work_pid, 5000) FROM batch_audit.batch_lease"
    with armed("bulk_write.before_fence", lambda value: (shop.query(end), value)[1]):
        assert cli("reprocess", first[:8]).code == 1
    path.unlink()
    assert cli("rerun-failed").code == 0
    assert shop.query("SELECT count(*) FROM orders") == [(20,)]
    with shop.database.connect("test") as connection:
        assert batches.find(connection, f"{FEED}/{DAY}").status == "SUCCESS"
