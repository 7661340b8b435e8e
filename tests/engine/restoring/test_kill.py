"""A restore killed at any moment has happened as a whole or not at all, and the ledger says which."""

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
from tests.engine.restoring.support import bring_back, everything, put_away
from tests.support_process import FORK
from tests.support_soak import short_or_long

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.context import ForkServerProcess

    from batch_pipelines.engine.ledger.batches import Batch
    from tests.engine.conftest import MakeSite
    from tests.support_engine import Site

DDL = """
CREATE TABLE parents (id int PRIMARY KEY, name text, import_batch_id uuid);
CREATE TABLE children (id int PRIMARY KEY, parent int REFERENCES parents, import_batch_id uuid);
CREATE INDEX ON children (parent);
"""
DELIVERY = {
    "p.csv": "id,name\n" + "".join(f"{n},name {n}\n" for n in range(2_000)),
    "c.csv": "id,parent\n" + "".join(f"{n},{n}\n" for n in range(2_000)),
}
PLACES = [
    "restore.locked", "restore.inserted", "restore.proven", "restore.before_commit",
    "restore.after_commit",
]  # fmt: skip
TABLES = ("parents", "children")


def _main(site: tuple[Any, ...], batch: Batch, place: str | None) -> None:
    from tests.support_engine import Site  # noqa: PLC0415  # in the process that is killed

    database, settings, feed = site
    with database.connect("test") as connection:
        here = Site(database, settings, feed, connection)
        if place is None:
            bring_back(here, batch)
            return
        with armed(place, lambda _: os.kill(os.getpid(), signal.SIGKILL)):
            bring_back(here, batch)


@contextmanager
def restoring(site: Site, batch: Batch, place: str | None = None) -> Iterator[ForkServerProcess]:
    what = (site.database, site.settings, site.feed)
    process = FORK.Process(target=_main, args=(what, batch, place), daemon=True)
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()
        process.close()


def is_back(site: Site, batch: Batch, before: Any) -> bool:
    """Check that the tables and the ledger agree, and tell whether the rows are back."""
    # What a killed client's backend still does, it does within its transaction.
    site.sql(
        "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity"
        " WHERE application_name LIKE 'batch-pipelines restore%' AND pid <> pg_backend_pid()"
        " AND datname = current_database()"
    )
    back = batches.by_id(site.connection, batch.batch_id).status == "SUCCESS"
    assert everything(site, *TABLES) == (before if back else [[], []])
    return back


def restored_after_all(site: Site, batch: Batch, before: Any) -> None:
    """Nothing is left of the dead one: the same command does it, or finds it done."""
    bring_back(site, batch)
    assert is_back(site, batch, before)


def loaded(make: MakeSite) -> tuple[Site, Batch, list[list[tuple[object, ...]]]]:
    site = make(DDL, {"public.parents": "p*", "public.children": "c*"})
    batch = site.load(DELIVERY)
    return site, batch, everything(site, *TABLES)


def test_killed_at_each_place(site18: MakeSite) -> None:
    site, batch, before = loaded(site18)
    for place in PLACES:
        archived = put_away(site, batch)
        with restoring(site, archived, place) as process:
            process.join(120)
            assert process.exitcode == -signal.SIGKILL
            assert is_back(site, archived, before) == (place == "restore.after_commit")
        restored_after_all(site, archived, before)


@short_or_long("times", 8, 100)
def test_killed_at_any_moment(site18: MakeSite, times: int) -> None:
    site, batch, before = loaded(site18)
    dice = random.Random(20240501)  # noqa: S311  # moments, not secrets
    whole = 2.0
    for number in range(times + 1):
        archived = put_away(site, batch)
        began = time.monotonic()
        with restoring(site, archived) as process:
            if number:
                time.sleep(dice.uniform(0, whole))
                process.kill()
            process.join(120)
            assert is_back(site, archived, before) or number
        if not number:
            whole = time.monotonic() - began
        restored_after_all(site, archived, before)


def test_an_answer_to_commit_that_is_lost_is_settled(site18: MakeSite) -> None:
    site, batch, before = loaded(site18)
    archived = put_away(site, batch)

    def lose(_: object) -> None:
        raise psycopg.OperationalError

    with armed("restore.after_commit", lose):
        assert bring_back(site, archived).plan is not None
    assert is_back(site, archived, before)


def test_two_at_once_bring_the_rows_back_once(site18: MakeSite) -> None:
    site, batch, before = loaded(site18)
    archived = put_away(site, batch)
    with restoring(site, archived) as one, restoring(site, archived) as other:
        one.join(120)
        other.join(120)
        assert 0 in {one.exitcode, other.exitcode}
    assert is_back(site, archived, before)
    told = site.sql(
        "SELECT count(*) FROM batch_audit.audit_event WHERE action = 'batch.restore.done'"
    )
    assert told == [(1,)]


def test_rows_are_put_away_again_after_a_restore(site18: MakeSite) -> None:
    """Given rows that have come back, putting them away again reads the bag that is there."""
    site, batch, before = loaded(site18)
    archived = put_away(site, batch)
    bring_back(site, archived)
    with armed("rows.written", lambda _: pytest.fail("a second bag was written")):
        archived = put_away(site, batch)
    bring_back(site, archived)
    assert is_back(site, archived, before)
