"""A rollback killed anywhere has happened as a whole or not at all, and the ledger says which."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from batch_pipelines.engine.failpoints import armed
from batch_pipelines.engine.ledger import batches
from batch_pipelines.engine.rollback import verify
from tests.support_process import FORK
from tests.support_rollback import content, take_back, upserting
from tests.support_soak import short_or_long

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.context import ForkServerProcess

    from tests.engine.conftest import MakeSite
    from tests.support_engine import Site

DDL = """
CREATE TABLE parents (id int PRIMARY KEY, name text, import_batch_id uuid);
CREATE TABLE children (id int PRIMARY KEY, parent int REFERENCES parents, import_batch_id uuid);
CREATE INDEX ON parents (import_batch_id);
CREATE INDEX ON children (import_batch_id);
INSERT INTO parents SELECT n, 'by hand' FROM generate_series(1, 500) AS n;
"""
ROWS = 1_000
PLACES = [
    "rollback.locked", "rollback.undone", "rollback.done", "rollback.before_commit",
    "rollback.after_commit",
]  # fmt: skip


def upserted(make: MakeSite) -> Site:
    site = make(DDL, {"public.parents": "p*", "public.children": "c*"})
    site.feed = upserting(
        site.feed,
        {"table": "public.parents", "files": "p*", "write": "upsert"},
        {"table": "public.children", "files": "c*"},
    )
    return site


def delivery(revision: int) -> dict[str, str]:
    numbers = range(1 + revision, ROWS + 1 + revision)
    return {
        "p.csv": "id,name\n" + "".join(f"{n},name {n} {revision}\n" for n in numbers),
        "c.csv": "id,parent\n" + "".join(f"{n},{n}\n" for n in numbers),
    }


def _main(site: tuple[Any, ...], batch_id: str, place: str | None) -> None:
    from tests.support_engine import Site  # noqa: PLC0415  # in the process that is killed

    database, settings, feed = site
    with database.connect("test") as connection:
        here = Site(database, settings, feed, connection)
        if place is None:
            take_back(here, batch_id)
            return
        with armed(place, lambda _: os.kill(os.getpid(), signal.SIGKILL)):
            take_back(here, batch_id)


@contextmanager
def rolling_back(
    site: Site, batch_id: str, place: str | None = None
) -> Iterator[ForkServerProcess]:
    what = (site.database, site.settings, site.feed)
    process = FORK.Process(target=_main, args=(what, batch_id, place), daemon=True)
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()
        process.close()


def seen(site: Site, batch_id: str, before: Any, after: Any) -> bool:
    """Check that the tables and the ledger agree, and tell whether the rollback has happened."""
    # What a killed client's backend still does, it does within its transaction.
    site.sql(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE application_name = 'batch-pipelines rollback' AND pid <> pg_backend_pid()"
    )
    gone = batches.by_id(site.connection, batch_id).status == "ROLLED_BACK"
    assert content(site, "parents", "children") == (before if gone else after)
    images = site.count("SELECT count(*) FROM batch_audit.row_before_image")
    assert (images == 0) == gone
    return gone


@pytest.mark.parametrize("place", PLACES)
def test_killed_at_a_place(site18: MakeSite, place: str) -> None:
    here = upserted(site18)
    before = content(here, "parents", "children")
    batch = here.load(delivery(0))
    after = content(here, "parents", "children")
    with rolling_back(here, batch.batch_id, place) as process:
        process.join(120)
        assert process.exitcode == -signal.SIGKILL
        assert seen(here, batch.batch_id, before, after) == (place == "rollback.after_commit")
    # Nothing is left of the dead one: the same command does it, or finds it done.
    take_back(here, batch.batch_id)
    assert seen(here, batch.batch_id, before, after)
    assert verify(here.connection, batch.batch_id).failed == ()


@short_or_long("times", 4, 100)
def test_killed_at_any_moment(site18: MakeSite, times: int) -> None:
    here = upserted(site18)
    before = content(here, "parents", "children")
    dice = random.Random(20240501)  # noqa: S311  # moments, not secrets
    whole = 2.0
    outcomes = set()
    for revision in range(times + 1):
        batch = here.load(delivery(revision), force=True)
        after = content(here, "parents", "children")
        began = time.monotonic()
        with rolling_back(here, batch.batch_id) as process:
            if revision:
                time.sleep(dice.uniform(0, whole))
                process.kill()
            process.join(120)
            outcomes.add(seen(here, batch.batch_id, before, after))
        if not revision:
            whole = time.monotonic() - began
        take_back(here, batch.batch_id)
        assert seen(here, batch.batch_id, before, after)
    assert True in outcomes


def test_an_answer_to_commit_that_is_lost_is_settled(site18: MakeSite) -> None:
    here = upserted(site18)
    before = content(here, "parents", "children")
    batch = here.load(delivery(0))

    def lose(_: object) -> None:
        raise psycopg.OperationalError

    with armed("rollback.after_commit", lose):
        done = take_back(here, batch.batch_id)
    assert len(done.done) == 1
    assert content(here, "parents", "children") == before
