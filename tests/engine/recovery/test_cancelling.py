"""Given a batch in progress, when it is cancelled, it can never be published, whatever its run does."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from batch_pipelines.engine.errors import CancelError
from batch_pipelines.engine.processes import Process, end
from batch_pipelines.engine.recovery.cancelling import cancel
from tests.support_engine import new_id
from tests.support_process import At, importing

if TYPE_CHECKING:
    from tests.engine.conftest import MakeSite

DDL = "CREATE TABLE t (id int PRIMARY KEY, import_batch_id uuid)"
FILES = {"t.csv": "id\n1\n2\n"}


@pytest.mark.parametrize(
    "place",
    ["ingest.copied", "checksum.read", "bulk_write.before_check", "bulk_write.before_commit"],
)
def test_a_cancelled_batch_is_never_published(site18: MakeSite, place: str) -> None:
    """Also where its run stands between fence and COMMIT, and holds the lease's row."""
    site = site18(DDL)
    site.deliver(FILES)
    run_id = new_id()
    with importing(site, run_id, at=At(place, signal=signal.SIGSTOP)) as run:
        run.wait_until_stopped()
        done = cancel(site.database, site.settings, run_id, "Ada")
        assert (done.batch.status, done.batch.error_details) == ("FAILED", "Cancelled by Ada.")
        assert done.process is not None
        assert done.process.pid == run.process.pid
        run.signal(signal.SIGCONT)
        outcome = run.outcome()
    assert outcome is not None
    assert outcome[0] != "done"
    assert site.rows() == []
    (batch,) = site.history()
    assert (batch.status, batch.error_details) == ("FAILED", "Cancelled by Ada.")
    assert site.run().status == "SUCCESS"


def test_its_process_is_found_and_ended(site18: MakeSite) -> None:
    site = site18(DDL)
    site.deliver(FILES)
    run_id = new_id()
    with importing(site, run_id, at=At("checksum.read", signal=signal.SIGSTOP)) as run:
        run.wait_until_stopped()
        done = cancel(site.database, site.settings, run_id, "Ada")
        assert isinstance(done.process, Process)
        assert end(done.process, patience=0.2) == "killed"
        assert run.outcome() is None


def test_a_batch_between_two_stages_is_cancelled_without_any_process(site18: MakeSite) -> None:
    site = site18(DDL)
    site.deliver(FILES)
    batch = site.run(stages=["ingest", "checksum"])
    done = cancel(site.database, site.settings, batch.batch_id, "Ada")
    assert done.process is None
    assert done.batch.status == "FAILED"


def test_what_is_not_in_progress_is_refused_with_what_to_do(site18: MakeSite) -> None:
    site = site18(DDL)
    batch = site.load(FILES)
    with pytest.raises(CancelError, match=f"rollback {batch.batch_id[:8]} --reason TEXT"):
        cancel(site.database, site.settings, batch.batch_id, "Ada")
    assert site.newest() == batch
    site.sql("UPDATE batch_audit.import_history SET status = 'FAILED'")
    with pytest.raises(CancelError, match="there is nothing to cancel"):
        cancel(site.database, site.settings, batch.batch_id, "Ada")
