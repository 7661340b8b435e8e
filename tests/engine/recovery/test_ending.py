"""Given a run that was killed or hangs, its batch fails by itself, and nothing of it is left behind."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest

from batch_pipelines.engine.alerts import listed
from batch_pipelines.engine.ledger import stages
from batch_pipelines.engine.processes import life
from batch_pipelines.engine.recovery.ending import Ended, end_dead
from batch_pipelines.engine.recovery.held import held_leases, stalled_batches
from batch_pipelines.engine.recovery.judging import judge_lease
from batch_pipelines.engine.rerun.failed import failed_partitions
from tests.support_engine import KEY, new_id
from tests.support_process import At, importing

if TYPE_CHECKING:
    from batch_pipelines.engine.recovery.held import Held
    from tests.engine.conftest import MakeSite
    from tests.support_engine import Site

DDL = "CREATE TABLE t (id int PRIMARY KEY, import_batch_id uuid)"
FILES = {"t.csv": "id\n1\n2\n"}
BACKENDS = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend'
"""
WHY = "It is dead, says the test."


def end_it(site: Site, lease: Held) -> Ended | None:
    return end_dead(
        site.database, site.settings, lease.feed, lease.partition_key, WHY, "dead_run",
        run_id=lease.run_id, token=lease.token, by_run=new_id(),
    )  # fmt: skip


def verdict(site: Site, lease: Held) -> str | None:
    assert lease.process is not None
    return judge_lease(lease, life(lease.process), lease_seconds=site.settings.lease_seconds)


def the_lease(site: Site) -> Held:
    (lease,) = held_leases(site.connection)
    return lease


def the_lease_once_free(site: Site) -> Held:
    """Return the lease when the server has noticed that whoever held it is gone."""
    deadline = time.monotonic() + 60
    while (lease := the_lease(site)).locked:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return lease


@pytest.mark.parametrize(
    ("place", "staged"),
    [("ingest.copied", False), ("checksum.read", True), ("bulk_write.before_commit", True)],
)
def test_a_killed_run_is_dead_at_once_and_its_batch_fails(
    site18: MakeSite, place: str, staged: bool
) -> None:
    site = site18(DDL)
    site.deliver(FILES)
    before = site.count(BACKENDS)
    run_id = new_id()
    with importing(site, run_id, at=At(place)) as run:
        assert run.outcome() is None
        lease = the_lease_once_free(site)
        assert (lease.name, lease.run_id) == (f"orders/{KEY}", run_id)
        assert "ended without a word" in str(verdict(site, lease))

    assert (site.settings.staging / run_id).exists()
    ended = end_it(site, lease)
    assert ended is not None
    assert [batch.batch_id for batch in ended.failed] == [run_id]
    assert ended.runs == (run_id,)
    (batch,) = site.history()
    assert (batch.status, batch.error_details) == ("FAILED", WHY)
    assert site.sql("SELECT * FROM batch_audit.batch_stage WHERE status = 'IN_PROGRESS'") == []
    # What a retry can go on with stays; half a copy is of no use.
    assert (site.settings.staging / run_id).exists() == staged
    # One that is told to end does so in its own time.
    deadline = time.monotonic() + 60
    while site.count(BACKENDS) != before:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert held_leases(site.connection) == []
    (alert,) = listed(site.connection)
    assert (alert.alert.kind, alert.alert.batch_id) == ("dead_run", run_id)

    assert site.run().status == "SUCCESS"


def test_a_run_killed_between_publish_and_validate_stands_failed(site18: MakeSite) -> None:
    """Its rows are visible, and nobody would finish it."""
    site = site18(DDL)
    site.deliver(FILES)
    run_id = new_id()
    with importing(site, run_id, at=At("bulk_write.after_commit")) as run:
        assert run.outcome() is None
    assert end_it(site, the_lease(site)) == Ended((), (run_id,))
    (failed,) = failed_partitions(site.connection)
    assert (failed.batch_id, failed.status, failed.cause) == (run_id, "PUBLISHED", "dead_run")
    site.run()
    assert failed_partitions(site.connection) == []
    assert site.newest().status == "SUCCESS"


def test_a_run_killed_after_it_published_leaves_its_batch_published(site18: MakeSite) -> None:
    site = site18(DDL)
    site.deliver(FILES)
    run_id = new_id()
    with importing(site, run_id, at=At("archive.written")) as run:
        assert run.outcome() is None
    ended = end_it(site, the_lease(site))
    assert ended == Ended((), (run_id,))
    (batch,) = site.history()
    assert (batch.status, batch.error_details) == ("SUCCESS", None)
    ((status,),) = site.sql("SELECT status FROM batch_audit.batch_stage WHERE stage = 'archive'")
    assert status == "FAILED"
    assert len(site.rows()) == 2


def test_a_run_that_hangs_loses_its_backends_and_writes_nothing_when_it_wakes_up(
    site18: MakeSite,
) -> None:
    """Given a process that is stopped in its publish transaction, between fence and COMMIT."""
    site = site18(DDL)
    site.deliver(FILES)
    site.settings = site.settings.model_copy(update={"lease_seconds": 1.5})
    run_id = new_id()
    stopped = At("bulk_write.before_commit", signal=signal.SIGSTOP)
    with importing(site, run_id, at=stopped) as run:
        run.wait_until_stopped()
        lease = the_lease(site)
        assert lease.locked
        assert verdict(site, lease) is None
        while verdict(site, lease) is None:
            time.sleep(0.05)
            lease = the_lease(site)
        assert "hangs" in str(verdict(site, lease))
        assert end_it(site, lease) is not None
        run.signal(signal.SIGCONT)
        assert run.outcome() != ("done", "SUCCESS")
    (batch,) = site.history()
    assert (batch.status, batch.error_details) == ("FAILED", WHY)
    assert site.rows() == []


def test_who_was_quicker_is_left_alone(site18: MakeSite) -> None:
    """Given a dead run, when another takes the partition before it is ended, the other goes on."""
    site = site18(DDL)
    site.deliver(FILES)
    with importing(site, new_id(), at=At("checksum.read")) as run:
        assert run.outcome() is None
    dead = the_lease(site)
    with site.work():
        assert end_it(site, dead) is None
        assert end_it(site, the_lease(site)) is None, "a live run was disturbed"
    batch = site.run()
    assert end_it(site, dead) is None
    assert site.newest() == batch
    assert batch.status == "SUCCESS"


def test_a_batch_between_two_stages_has_no_lease_and_is_listed(site18: MakeSite) -> None:
    site = site18(DDL)
    site.deliver(FILES)
    batch = site.run(stages=["ingest"])
    assert held_leases(site.connection) == []
    (stalled,) = stalled_batches(site.connection)
    assert (stalled.batch_id, stalled.runs) == (batch.batch_id, [batch.batch_id])
    with site.work():
        assert stalled_batches(site.connection) == []
    ended = end_dead(
        site.database, site.settings, "orders", KEY, WHY, "dead_run",
        run_id=batch.batch_id, token=None, by_run=new_id(),
    )  # fmt: skip
    assert ended is not None
    assert site.newest().status == "FAILED"


def test_a_stage_of_a_published_batch_that_a_killed_run_left_fails_when_a_correction_comes(
    site18: MakeSite,
) -> None:
    site = site18(DDL)
    site.deliver(FILES)
    run_id = new_id()
    with importing(site, run_id, at=At("archive.written")) as run:
        assert run.outcome() is None
        the_lease_once_free(site)
    corrected = site.load({"t.csv": "id\n3\n"})
    assert [batch.status for batch in site.history()] == ["SUPERSEDED", "SUCCESS"]
    left = stages.of_batch(site.connection, run_id)["archive"]
    assert (left.status, left.failure_cause) == ("FAILED", "dead_run")
    assert corrected.batch_id in str(left.error_details)
