"""`db track`, `adopt`, `status`, `untrack` and `downgrade` as typed; and killed at every step."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.engine.adoption.support import indexes, reading
from tests.support_process import command
from tests.support_shop import environment

if TYPE_CHECKING:
    from tests.cli.conftest import Cli
    from tests.support_shop import Shop

pytestmark = pytest.mark.owner("who tracks or adopts a table owns it")

CUSTOMERS = "public.customers"
HISTORY = """
CREATE TABLE public.jobs AS
SELECT 'job-' || n AS job_id, 'completed' AS status, now() AS started_at, now() AS completed_at,
    'parent-' || n AS import_batch_id
FROM generate_series(1, 300) n
"""
CONVERTING = ["adoption.step", "adoption.step", "adoption.filled", "adoption.index"]
ROWS_OF_JOBS = """
INSERT INTO public.orders (id, customer, placed, amount, import_batch_id)
SELECT n, 1, '2024-01-01', 1, batch_audit.batch_id_of('job-' || n) FROM generate_series(1, 3) n
"""


def test_a_table_is_tracked_and_given_back(cli: Cli, shop: Shop) -> None:
    ran = cli("db", "track", CUSTOMERS, "--dry-run")
    assert ran.code == 0
    assert "ACCESS EXCLUSIVE, waited for 0.1 s at a time" in ran.out
    ran = cli("db", "track", CUSTOMERS, "public.orders")
    assert ran.code == 0
    assert "public.customers is tracked: feeds can fill it.\n" in ran.out
    assert "public.orders is tracked: feeds can fill it. It was before." in ran.out
    status = cli("db", "status")
    assert "public.customers" in status.out
    assert "Next:" not in status.out
    assert cli("db", "untrack", CUSTOMERS, "--json").json == {"table": CUSTOMERS}
    (left,) = cli("db", "status", "--json").json["tables"]
    assert (left["table"], left["state"]) == ("public.orders", "done")


def test_a_stamp_of_text_is_partial_success_until_it_is_converted(cli: Cli, shop: Shop) -> None:
    shop.query("ALTER TABLE public.customers ADD import_batch_id varchar(100)")
    ran = cli("db", "track", CUSTOMERS)
    assert ran.code == 3
    assert "import_batch_id is character varying(100), with an index" in ran.out
    following = cli("db", "status", "--json").json["next"]
    assert following == "batch-pipelines db track public.customers --convert"
    assert cli(*following.split()[1:]).code == 0
    assert cli("db", "status", "--json").json["next"] is None


def test_a_history_is_adopted_and_its_batches_are_listed(cli: Cli, shop: Shop) -> None:
    shop.query(HISTORY)
    assert cli("db", "adopt", "public.jobs", "--column", "x").code == 2
    ran = cli("db", "adopt", "public.jobs", "--dry-run")
    assert "Read as: job_id = job_id, status = status, started_at = started_at" in ran.out
    ran = cli("db", "adopt", "public.jobs", "--feed", "old")
    assert ran.code == 0
    assert "public.jobs is adopted: 300 new batches of feed old in the ledger." in ran.out
    listed = cli("batches", "--feed", "old", "--json", "--limit", "500").json
    assert len(listed) == 300
    shown = cli("show", "old/job-7")
    assert "job job-7, adopted from public.jobs" in shown.out
    assert "Next: batch-pipelines batches --feed old" in shown.out
    assert cli("db", "untrack", "public.jobs").code == 0
    assert cli("batches", "--feed", "old", "--json").json == []


def test_a_wrong_table_is_one_sentence(cli: Cli, shop: Shop) -> None:
    ran = cli("db", "track", "public.costumers")
    assert ran.code == 1
    assert "There is no table public.costumers. Is it public.customers?" in ran.err
    assert cli("db", "untrack", CUSTOMERS).code == 1
    assert cli("db", "untrack", CUSTOMERS, "--drop-stamps", "--keep-column").code == 2


def test_a_downgrade_takes_it_back_and_loses_no_stamp(cli: Cli, shop: Shop) -> None:
    shop.query(HISTORY)
    before = shop.query("SELECT * FROM public.jobs ORDER BY 1")
    assert cli("db", "track", CUSTOMERS).code == cli("db", "adopt", "public.jobs").code == 0
    shop.query("UPDATE public.customers SET import_batch_id = gen_random_uuid() WHERE id = 1")
    ran = cli("db", "downgrade", "--to", "0004", "--yes")
    assert ran.code == 1
    assert "1 rows carry the id of the batch that wrote them, which would be lost" in ran.err
    assert cli("db", "untrack", CUSTOMERS, "--drop-stamps").code == 0
    assert cli("db", "downgrade", "--to", "0004", "--yes").code == 0
    assert shop.query("SELECT * FROM public.jobs ORDER BY 1") == before
    assert cli("db", "status", "--json").json["tables"] == []
    assert cli("db", "upgrade").code == 0


TRACKING = ["adoption.recorded", "adoption.step", "adoption.index"]
ADOPTING = [
    "adoption.recorded", "adoption.step", "adoption.filled", "adoption.index", "adoption.check_added",
    "adoption.check_validated", "adoption.not_null", "adoption.taken_over", "adoption.rows",
]  # fmt: skip


@pytest.mark.parametrize(
    ("typed", "places"),
    [
        pytest.param(["db", "track", CUSTOMERS], TRACKING, id="track"),
        pytest.param(["db", "adopt", "public.jobs"], ADOPTING, id="adopt"),
        pytest.param(["db", "track", "public.jobs", "--convert"], CONVERTING, id="convert"),
    ],
)
def test_killed_at_any_step_status_names_the_command_that_completes_it(
    cli: Cli, shop: Shop, typed: list[str], places: list[str]
) -> None:
    shop.query(HISTORY)
    shop.query(ROWS_OF_JOBS)
    assert cli("db", "track", "public.orders").code == 0
    surroundings = environment(shop.folder, shop.folder / "home", shop.database.url)
    for place in places:
        killed = command(*typed, environment=surroundings, killed_at=place)
        assert killed.returncode == -9, f"{place}: {killed.stderr}"
        following = cli("db", "status", "--json").json["next"]
        assert following == f"batch-pipelines {' '.join(typed)}", place
    assert cli(*typed).code == 0
    assert cli("db", "status", "--json").json["next"] is None
    assert cli("db", "untrack", typed[2]).code == 0


def test_killed_while_the_server_builds_the_index_it_is_completed(cli: Cli, shop: Shop) -> None:
    """Given a command killed in mid-index, the server goes on; the same command waits and agrees."""
    surroundings = environment(shop.folder, shop.folder / "home", shop.database.url)
    shop.query("ALTER TABLE public.customers ADD import_batch_id uuid")
    with (
        reading(shop.database, CUSTOMERS, 60),
        subprocess.Popen(
            [sys.executable, "-m", "batch_pipelines", "db", "track", CUSTOMERS],
            env=surroundings, stdout=subprocess.DEVNULL,
        ) as process,
    ):  # fmt: skip
        while not shop.query(_BUILDING):
            time.sleep(0.05)
            assert process.poll() is None
        process.kill()
        assert process.wait() == -9
        ran = cli("db", "track", CUSTOMERS, "--wait", "0.1")
        assert ran.code == 1
        assert "or the server still does for one that was ended" in ran.err
    assert cli("db", "track", CUSTOMERS).code == 0
    with shop.database.connect("test") as db:
        assert [valid for _, valid in indexes(db, CUSTOMERS)] == [True]


_BUILDING = """
SELECT pid FROM pg_stat_progress_create_index
WHERE datname = current_database() AND phase LIKE 'waiting for%'
"""
