"""Retention killed anywhere: no row is ever in neither place, and a rerun ends right."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from batch_pipelines.engine.archiving.rows.reading import open_rows
from batch_pipelines.engine.failpoints import armed
from batch_pipelines.engine.ledger import archives
from batch_pipelines.engine.retention import records
from batch_pipelines.engine.retention.course import require_done
from tests.support_engine import Site
from tests.support_process import FORK
from tests.support_retention import AGED, POLICY, age, retain, retention, with_rules
from tests.support_soak import short_or_long

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.context import ForkServerProcess

    from batch_pipelines.engine.ledger.batches import Batch
    from tests.engine.conftest import MakeSite

DDL = """
CREATE TABLE p (id int PRIMARY KEY, name text, import_batch_id uuid);
CREATE TABLE c (id int PRIMARY KEY, p int REFERENCES p, import_batch_id uuid);
CREATE INDEX ON p (import_batch_id);
CREATE INDEX ON c (import_batch_id);
"""
LEASED = "SELECT count(*) FROM batch_audit.batch_lease WHERE released_at IS NULL"
ROWS = 200
PLACES = [
    "rows.sealed", "retention.deleted", "retention.after_commit", "records.sealed", "archive.renamed",
]  # fmt: skip
MORE_PLACES = [
    "rows.written", "retention.archived", "retention.locked", "retention.before_commit",
    "records.written",
]  # fmt: skip


def due(make: MakeSite) -> Site:
    here = make(DDL, {"public.p": "p*", "public.c": "c*"}, thresholds={})
    here.feed = with_rules(here.feed, rows=POLICY, quarantine=POLICY, bags=POLICY)
    return here


def load(site: Site, number: int) -> None:
    """Load a batch of its own rows, and one that cannot be loaded."""
    numbers = range(number * ROWS, number * ROWS + ROWS)
    files = {
        "p.csv": "id,name\n" + "".join(f"{n},row {n}\n" for n in numbers) + "x,none\n",
        "c.csv": "id,p\n" + "".join(f"{n},{n}\n" for n in numbers),
    }
    site.load(files, f"k{number}")
    age(site, AGED)


def _main(site: tuple[Any, ...], place: str | None) -> None:
    database, settings, feed = site
    with database.connect("test") as connection:
        here = Site(database, settings, feed, connection)
        if place is None:
            retention(here).run()
            return
        with armed(place, lambda _: os.kill(os.getpid(), signal.SIGKILL)):
            retention(here).run()


@contextmanager
def running(site: Site, place: str | None = None) -> Iterator[ForkServerProcess]:
    what = (site.database, site.settings, site.feed)
    process = FORK.Process(target=_main, args=(what, place), daemon=True)
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()
        process.close()


def in_bag(site: Site, batch: Batch, table: str) -> set[int]:
    if archives.rows(site.connection, batch.batch_id) is None:
        return set()
    with open_rows(site.connection, site.settings, batch.batch_id) as rows:
        (own,) = [t for t in rows.account.tables if t.full_name == f"public.{table}"]
        return {n for part in rows.batches(own) for n in part.column("id").to_pylist()}


def check(site: Site) -> int:
    """Check that every row is in its table, or in a bag that proves it; say how many batches are."""
    # What a killed client's backend still does, it does within its transaction.
    site.sql(
        "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity"
        " WHERE application_name LIKE 'batch-pipelines %' AND pid <> pg_backend_pid()"
        " AND application_name <> 'batch-pipelines test' AND datname = current_database()"
    )
    archived = 0
    for batch in site.history():
        number = int(batch.partition_key[1:])
        whole = set(range(number * ROWS, number * ROWS + ROWS))
        for table in "pc":
            live = {n for (n,) in site.sql(
                f"SELECT id FROM {table} WHERE import_batch_id = %s", batch.batch_id)}  # fmt: skip
            assert live == (set() if batch.status == "ARCHIVED" else whole)
            assert live | in_bag(site, batch, table) == whole
        archived += batch.status == "ARCHIVED"
        rejects = site.count(
            "SELECT count(*) FROM batch_audit.import_reject WHERE batch_id = %s", batch.batch_id
        )
        bags = site.sql(
            "SELECT state FROM batch_audit.archive_manifest WHERE batch_id = %s AND kind = 'records'",
            batch.batch_id,
        )
        assert rejects or bags
        for record in archives.of_batch(site.connection, batch.batch_id):
            # A bag that was being deleted is gone as a whole, until the next run says so.
            if record.kind == "records" and Path(record.place).is_dir():
                assert records.prove(site.settings, record)["import_reject"].number == 1
    return archived


def finish(site: Site) -> None:
    """Run again to the end: all that is due has gone, and nothing half-done is left."""
    require_done(retain(site))
    assert check(site) == len(site.history())
    assert site.count("SELECT count(*) FROM batch_audit.import_reject") == 0
    assert not site.count("SELECT count(*) FROM batch_audit.retention_chunk WHERE ended_at IS NULL")
    assert not site.count(LEASED)
    standing = site.sql(
        "SELECT place FROM batch_audit.archive_manifest WHERE state <> 'DELETED' ORDER BY 1"
    )
    archive = Path(site.settings.archive_address)
    found = sorted(path for path in archive.glob("*/*/*") if any(path.iterdir()))
    assert [(str(path),) for path in found] == standing


@pytest.mark.parametrize(
    "place", [*PLACES, *(pytest.param(place, marks=pytest.mark.soak) for place in MORE_PLACES)]
)
def test_killed_at_a_place(site18: MakeSite, place: str) -> None:
    here = due(site18)
    load(here, 0)
    with running(here, place) as process:
        process.join(120)
        assert process.exitcode == -signal.SIGKILL
    check(here)
    finish(here)


def test_a_lease_is_given_back_where_nothing_is_left_to_do(site18: MakeSite) -> None:
    here = due(site18)
    here.feed = with_rules(here.feed, rows=POLICY)
    load(here, 0)
    with running(here, "retention.after_commit") as process:
        process.join(120)
        assert process.exitcode == -signal.SIGKILL
    check(here)
    assert here.count(LEASED) == 1
    result = retain(here)
    require_done(result)
    assert result.chunks == ()
    assert here.count(LEASED) == 0


@short_or_long("times", 20, 200)
def test_killed_at_any_moment(site18: MakeSite, times: int) -> None:
    here = due(site18)
    dice = random.Random(20261122)  # noqa: S311  # moments, not secrets
    load(here, 0)
    began = time.monotonic()
    with running(here) as process:
        process.join(120)
    whole = time.monotonic() - began
    loaded = 1
    for _ in range(times):
        if check(here) == loaded:
            load(here, loaded)
            loaded += 1
        with running(here) as process:
            time.sleep(dice.uniform(0, whole))
            process.kill()
            process.join()
        check(here)
    finish(here)
    assert loaded > 1
