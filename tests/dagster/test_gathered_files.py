"""Files that are gathered: the same ones in every run of their batch, by sensor and by command."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from batch_pipelines.engine.landing.gathering import gather
from tests.support_process import command
from tests.support_sensors import begun, cancelled, launched, requested, skipped
from tests.support_shop import FEED, environment, failure_of, orders

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support_shop import Shop

GATHER = "landing/orders/*.csv\n  gather: {files: 2, seconds: 3600}"


@pytest.fixture
def tills(shop: Shop) -> Shop:
    """The shop whose orders arrive as a small file for each till."""
    set_rule(shop, GATHER)
    return shop


def set_rule(shop: Shop, rule: str) -> None:
    path = shop.settings.feeds / "orders.yaml"
    before, _, after = path.read_text().partition("  path: ")
    path.write_text(
        f"{before}  path: {rule}\n  settle_seconds: 0\n{after[after.index('tables:') :]}"
    )


def put(shop: Shop, *names: str, rows: int = 1) -> list[Path]:
    folder = shop.folder / "landing" / FEED
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text(orders(rows, first=10 * int(name[1])))
    return [folder / name for name in names]


def files_of(shop: Shop, batch: str) -> set[str]:
    query = "SELECT file_name FROM batch_audit.import_file WHERE batch_id = %s"
    return {name for (name,) in shop.query(query, batch)}


def test_files_are_gathered_once_and_a_rerun_takes_the_same(tills: Shop) -> None:
    put(tills, "t1.csv", "t2.csv", "t3.csv")
    found = launched(tills)
    (key,) = requested(found)
    assert key.startswith("t1+1.")
    cancelled(tills, begun(tills, found))
    # More of them, and another rule, change nothing about what has been gathered.
    put(tills, "t0.csv")
    set_rule(tills, "landing/orders/*.csv\n  gather: {files: 3, seconds: 0}")
    (other,) = requested(launched(tills))
    first = tills.run(key)
    assert first.success
    assert tills.run(other).success
    again = tills.run(key, force=True)
    assert files_of(tills, first.run_id) == files_of(tills, again.run_id) == {"t1.csv", "t2.csv"}
    assert [row[0] for row in tills.rows()] == [0, 10, 20, 30]
    assert "are complete" not in skipped(tills)


def test_two_who_gather_at_once_put_no_file_into_two_batches(tills: Shop) -> None:
    put(tills, *(f"t{number}.csv" for number in range(10)))
    for number in range(300):
        put(tills, f"t{number % 10}-{number}.csv")

    def gathered() -> dict[str, set[str]]:
        with tills.database.connect("test") as connection:
            landed = gather(connection, tills.feed, tills.folder, time.time, at_once=True)
        return {key: {file.name for file in one.data} for key, one in landed.deliveries.items()}

    with ThreadPoolExecutor(max_workers=4) as threads:
        first, *others = [each.result() for each in [threads.submit(gathered) for _ in range(4)]]
    assert others == [first] * 3
    assert sum(map(len, first.values())) == len(set().union(*first.values())) == 310


def test_a_corrected_file_is_a_new_attempt_of_its_batch(tills: Shop) -> None:
    put(tills, "t1.csv", "t2.csv")
    (key,) = requested(launched(tills))
    assert tills.run(key).success
    put(tills, "t2.csv", rows=3)
    assert requested(launched(tills)) == [key]
    assert tills.run(key).success
    assert [row[0] for row in tills.rows()] == [10, 20, 21, 22]


def test_what_has_left_before_it_was_loaded_is_left_out_and_the_rest_gathered_anew(
    tills: Shop,
) -> None:
    _, second = put(tills, "t1.csv", "t2.csv")
    found = launched(tills)
    (key,) = requested(found)
    runs = begun(tills, found)
    second.unlink()
    # While its run may still come, it stays as it is.
    assert "files of it have left landing: deliver them again" in skipped(tills)
    result = tills.run(key)
    assert failure_of(result)[0] == "ingest"
    assert "of 2 gathered files t2.csv are not in landing any more" in failure_of(result)[1]
    cancelled(tills, runs)
    assert "the others are gathered anew" in skipped(tills)
    put(tills, "t3.csv")
    (other,) = requested(launched(tills))
    assert tills.run(other).success
    assert [row[0] for row in tills.rows()] == [10, 30]


def test_landing_that_is_cleared_after_a_load_changes_nothing(tills: Shop) -> None:
    _, second = put(tills, "t1.csv", "t2.csv")
    (key,) = requested(launched(tills))
    assert tills.run(key).success
    second.unlink()
    assert "1 are less than was loaded" in skipped(tills)
    # A name is in one batch for ever: another file of that name would replace what was loaded.
    put(tills, "t1.csv", rows=2)
    assert "files of it have left landing: deliver them again" in skipped(tills)
    assert len(tills.rows()) == 2


def test_records_can_be_the_measure(tills: Shop) -> None:
    set_rule(tills, "landing/orders/*.csv\n  gather: {records: 4, seconds: 3600}")
    put(tills, "t1.csv", "t2.csv", "t3.csv", rows=2)
    (key,) = requested(launched(tills))
    assert key.startswith("t1+1.")


def test_the_command_line_gathers_all_that_is_there(tills: Shop) -> None:
    put(tills, "t1.csv", "t2.csv", "t3.csv")
    surroundings = environment(tills.folder, tills.settings.home, tills.database.url)
    done = command("import", FEED, environment=surroundings)
    assert done.returncode == 0, done.stderr
    assert [row[0] for row in tills.rows()] == [10, 20, 30]
    assert [batch.partition_key[:4] for batch in tills.batches()] == ["t1+1", "t3+0"]
    one = command("import", FEED, "--batch", "t9+1.nothing", environment=surroundings)
    assert one.returncode != 0
    assert "no files have been gathered under this key" in one.stderr
    assert "Nothing new" in skipped(tills)
