"""Databases of earlier revisions come up to the newest, and their batches are worked with as ever."""

from __future__ import annotations

import datetime as dt
import os
import signal
import time
from threading import Barrier, Thread
from typing import TYPE_CHECKING

import pytest

from batch_pipelines.engine.audit.verify import verify_audit
from batch_pipelines.engine.bulk_write import bulk_write
from batch_pipelines.engine.errors import SettingsError
from batch_pipelines.engine.ledger import batches
from batch_pipelines.engine.postgres.migrate import (
    downgrade,
    require_current,
    revisions,
    status,
    upgrade,
)
from batch_pipelines.engine.validate import require_valid, validate
from tests.engine.restoring.support import bring_back
from tests.engine.upgrading.support import REVISIONS, orders
from tests.support_process import FORK, start_server
from tests.support_rollback import take_back

if TYPE_CHECKING:
    from batch_pipelines.engine.postgres.database import Database
    from tests.engine.upgrading.conftest import Open
    from tests.engine.upgrading.support import Station

HEAD = revisions()[-1]
NOW = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
# The others under `soak`.
_SHORT = {("0001", "15")}
EVERY = pytest.mark.parametrize(
    ("revision", "version"),
    [
        pytest.param(
            revision, version,
            marks=() if (revision, version) in _SHORT else pytest.mark.soak,
        )
        for revision in REVISIONS
        for version in ("18", "15")
    ],
)  # fmt: skip
_OTHERS = """
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
    AND backend_type = 'client backend'
"""
_WAITING = f"{_OTHERS} AND wait_event_type = 'Lock' AND wait_event = 'relation'"


def require_true(here: Station) -> None:
    """The audit trail holds, all bags are as they were sealed, and every batch can be told of."""
    anchors = here.site.settings.home / "anchors"
    assert verify_audit(here.site.connection, anchors).findings == ()
    assert here.bags(NOW) <= {"VALID"}
    for batch in here.site.history():
        assert batch.batch_id in here.reported(batch, NOW)


@EVERY
def test_what_there_was_is_as_true_as_before(station: Open, revision: str, version: str) -> None:
    """Given batches of all states, when the ledger comes up, rows, states, proofs and bags are right."""
    here = station(revision, version)
    assert status(here.site.connection).current == revision
    with pytest.raises(SettingsError, match=f"at revision {revision}, {HEAD} is needed"):
        require_current(here.site.connection)
    rows = here.content()
    states = here.states()
    assert upgrade(here.site.database).current == HEAD
    require_current(here.site.connection)
    assert here.content() == rows
    assert here.states() == states
    # Of that one somebody has deleted a row.
    proven = here.proven()
    assert proven.pop(("orders", "invalid")) == "FAILED"
    assert set(proven.values()) == {"SUCCESS"}
    require_true(here)
    _go_on(here)
    require_true(here)
    assert set(here.proven().values()) == {"SUCCESS"}


def _go_on(here: Station) -> None:
    """All that can be done with batches is done with those of before."""
    site = here.site
    # The same content again is a duplicate, a correction supersedes, and can be taken back.
    site.deliver(orders(1), "loaded")
    assert site.run("loaded").status == "DUPLICATE"
    in_force = site.newest("corrected")
    before = here.content()
    corrected = site.load(orders(2, "again"), "corrected")
    assert site.stamps("public.parents")[corrected.batch_id] == 5
    take_back(site, corrected.batch_id)
    assert here.content() == before
    assert batches.by_id(site.connection, in_force.batch_id).status == "SUCCESS"
    # A rollback of a batch takes its rows, and no others.
    loaded = site.newest("loaded")
    take_back(site, loaded.batch_id)
    assert loaded.batch_id not in site.stamps("public.parents")
    assert loaded.batch_id not in site.stamps("public.children")
    _finish(here)
    if here.revision >= "0002":
        _replay(here)
    if here.revision >= "0003":
        _take_back_upserts(here)
    if here.revision >= "0014":
        _publish_what_waits(here)
    if here.revision >= "0029":
        _restore(here)


def _finish(here: Station) -> None:
    """Who died is run again; who was published goes on; what is invalid is taken back."""
    site = here.site
    site.deliver(orders(5), "died")
    assert site.run("died").status == "SUCCESS"
    assert here.history()["orders", "died"] == ["FAILED", "SUCCESS"]
    assert site.run("published", stages=["validate", "archive"]).status == "SUCCESS"
    take_back(site, site.newest("invalid").batch_id, keep_touched=True)
    site.load(orders(7), "invalid")


def _replay(here: Station) -> None:
    site = here.site
    site.sql("INSERT INTO parents (id, name) VALUES (900, 'by hand')")
    batch = site.newest("partial")
    with site.work("partial") as (connection, work):
        bulk_write(connection, work, replay=True)
        require_valid(validate(connection, work))
    replayed = batches.by_id(site.connection, batch.batch_id)
    assert (replayed.rejected_records, replayed.written_records) == (1, 11)


def _take_back_upserts(here: Station) -> None:
    """The rows that two batches wrote over each other are again what was typed in by hand."""
    stock = here.of("stock")
    for key in ("two", "one"):
        take_back(stock, stock.newest(key).batch_id)
    assert stock.rows() == [
        ('{"sku": "a", "size": 1, "place": "here"}',),
        ('{"sku": "b", "size": 2, "place": "here"}',),
    ]


def _publish_what_waits(here: Station) -> None:
    waits = here.of("waits")
    assert waits.run("waits", stages=["validate", "archive"]).status == "SUCCESS"
    assert waits.count("SELECT count(*) FROM waiting") == 3


def _restore(here: Station) -> None:
    old = here.of("old")
    bring_back(old, old.newest("archived"))
    assert old.newest("archived").status == "SUCCESS"
    assert old.stamps("public.parents")[old.newest("archived").batch_id] == 5


@pytest.mark.soak
@pytest.mark.parametrize("version", ["18", "15"])
@pytest.mark.parametrize("revision", REVISIONS)
def test_each_step_down_and_up_again_loses_nothing_of_before(
    station: Open, revision: str, version: str
) -> None:
    """Given a ledger that came up, when it goes down step by step, each step can be gone up again."""
    here = station(revision, version)
    upgrade(here.site.database)
    rows = here.content()
    states = here.states()
    for below in [known for known in revisions() if known >= revision][-2::-1]:
        assert downgrade(here.site.database, below).current == below
        assert upgrade(here.site.database).current == HEAD
        downgrade(here.site.database, below)
    assert upgrade(here.site.database).current == HEAD
    assert here.content() == rows
    assert here.states() == states
    proven = here.proven()
    assert proven.pop(("orders", "invalid")) == "FAILED"
    assert set(proven.values()) == {"SUCCESS"}
    require_true(here)


def test_an_upgrade_that_is_killed_midway_has_done_nothing(station: Open) -> None:
    """Given an upgrade that waits in its middle, when it is killed, two at once then do all of it."""
    here = station("0005")
    database = here.site.database
    states = here.states()
    start_server()
    process = FORK.Process(target=upgrade, args=(database,), daemon=True)
    with database.connect("test") as reader, reader.transaction():
        # What is changed late in its course.
        reader.execute("LOCK TABLE batch_audit.import_file IN ACCESS SHARE MODE")
        process.start()
        _wait(here, _WAITING, 1)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        process.close()
    _wait(here, _OTHERS, 0)
    assert status(here.site.connection).current == "0005"
    assert here.states() == states
    _two_at_once(database)
    assert here.states() == states
    require_true(here)
    downgrade(database, "0005")
    _two_at_once(database)
    assert here.states() == states
    require_true(here)


def _wait(here: Station, question: str, answer: int) -> None:
    deadline = time.monotonic() + 60
    while here.site.count(question) != answer:
        assert time.monotonic() < deadline, f"{question}: not {answer} within 60 s"
        time.sleep(0.05)


def _two_at_once(database: Database) -> None:
    barrier = Barrier(2)
    found = []

    def go() -> None:
        barrier.wait()
        found.append(upgrade(database).current)

    threads = [Thread(target=go) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [HEAD, HEAD]
    with database.connect("test") as connection:
        require_current(connection)
