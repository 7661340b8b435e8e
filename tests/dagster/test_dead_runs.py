"""Processes that are killed: what they leave in Dagster, and how the next run finds them out."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import dagster as dg
import pytest

from tests.support_process import command
from tests.support_shop import DAY, FEED, orders

if TYPE_CHECKING:
    from tests.support_shop import Shop


def import_killed_at(shop: Shop, failpoint: str) -> str:
    """Import in a process that is killed at a failpoint; return the id of the run it leaves."""
    ended = command(
        "import", FEED, "--batch", DAY, environment=dict(os.environ), killed_at=failpoint
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    (run,) = shop.instance.get_runs()
    # Dagster's launcher does not notice, so the run would count in the queue for ever.
    assert run.status is dg.DagsterRunStatus.STARTED
    return run.run_id


def status_in_dagster(shop: Shop, run_id: str) -> dg.DagsterRunStatus:
    run = shop.instance.get_run_by_id(run_id)
    assert run is not None
    return run.status


def test_a_run_killed_before_it_published_is_failed_by_the_next(shop: Shop) -> None:
    shop.deliver(DAY, orders(5))
    dead = import_killed_at(shop, "bulk_write.before_fence")
    assert shop.rows() == []
    assert shop.batch(dead).status == "IN_PROGRESS"

    result = shop.run(DAY)
    assert result.success
    assert status_in_dagster(shop, dead) is dg.DagsterRunStatus.FAILURE
    batch = shop.batch(dead)
    assert batch.status == "FAILED"
    assert batch.error_details is not None
    assert result.run_id in batch.error_details
    assert shop.stamps() == {result.run_id}


@pytest.mark.parametrize("failpoint", ["bulk_write.after_commit", "archive.written"])
def test_a_run_killed_after_it_published_is_finished_by_the_next(
    shop: Shop, failpoint: str
) -> None:
    shop.deliver(DAY, orders(5))
    dead = import_killed_at(shop, failpoint)
    assert shop.stamps() == {dead}
    before = shop.rows()

    result = shop.run(DAY)
    assert result.success
    assert status_in_dagster(shop, dead) is dg.DagsterRunStatus.FAILURE
    assert shop.batch(result.run_id).batch_id == dead
    assert shop.batch(dead).status == "SUCCESS"
    assert shop.is_archived(dead)
    assert shop.rows() == before
    assert shop.materialized("archive") == {DAY}


_KILLED_EARLY = """
import os, signal
import resources.batches
from batch_pipelines.cli import main
resources.batches.acquire = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
main()
"""


def test_a_run_killed_before_it_had_its_lease_is_failed_by_the_next_import(shop: Shop) -> None:
    """Given a run that no batch and no lease names, it is known by its process."""
    shop.deliver(DAY, orders(5))
    shop.deliver("other", orders(5, first=10))
    typed = ["import", FEED, "--batch", DAY]
    killed = subprocess.run([sys.executable, "-c", _KILLED_EARLY, *typed], check=False)
    assert killed.returncode == -signal.SIGKILL
    (run,) = shop.instance.get_runs()
    assert run.status is dg.DagsterRunStatus.STARTED
    assert shop.batches() == []

    environment = dict(os.environ)
    ended = command("import", FEED, "--batch", "other", environment=environment)
    assert ended.returncode == 0, ended.stderr
    assert status_in_dagster(shop, run.run_id) is dg.DagsterRunStatus.FAILURE


def test_a_run_whose_process_is_alive_or_elsewhere_is_left_alone(shop: Shop) -> None:
    shop.deliver(DAY, orders(5))
    dead = import_killed_at(shop, "bulk_write.before_fence")
    for process in (f"{socket.gethostname()}:{os.getpid()}", "elsewhere:1"):
        shop.instance.add_run_tags(dead, {"batch-pipelines/process": process})
        shop.deliver("other", orders(5, first=10))
        ended = command("import", FEED, "--batch", "other", environment=dict(os.environ))
        assert ended.returncode == 0, ended.stderr
        assert status_in_dagster(shop, dead) is dg.DagsterRunStatus.STARTED
