"""Processes that are killed: what they leave in Dagster, and how the next run finds them out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import dagster as dg
import pytest

from batch_pipelines.engine.processes import Process
from resources.runs import process_of, unfinished
from tests.support_engine import new_id
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


@pytest.mark.parametrize("process", ["this one", "elsewhere:1"])
def test_a_run_whose_process_is_alive_or_elsewhere_is_left_alone(shop: Shop, process: str) -> None:
    shop.deliver(DAY, orders(5))
    dead = import_killed_at(shop, "bulk_write.before_fence")
    holder = str(Process.current()) if process == "this one" else process
    shop.query("UPDATE batch_audit.batch_lease SET holder = %s", holder)
    shop.instance.add_run_tags(dead, {"batch-pipelines/process": f"{dead} {holder}"})
    assert look(shop) == "No run is dead."
    assert status_in_dagster(shop, dead) is dg.DagsterRunStatus.STARTED
    assert shop.batch(dead).status == "IN_PROGRESS"


def look(shop: Shop) -> str:
    """Evaluate the sensor."""
    defs = shop.defs
    with dg.build_sensor_context(
        instance=shop.instance, resources=dict(defs.resources or {})
    ) as context:
        found = defs.resolve_sensor_def("dead_runs")(context)
    assert isinstance(found, dg.SkipReason)
    return str(found.skip_message)


@pytest.mark.parametrize(
    ("failpoint", "status", "visible"),
    [("bulk_write.before_fence", "FAILED", 0), ("bulk_write.after_commit", "PUBLISHED", 5)],
)
def test_a_killed_run_is_failed_by_the_sensor_in_ledger_and_dagster(
    shop: Shop, failpoint: str, status: str, visible: int
) -> None:
    """And a retry from failure goes on with its batch."""
    shop.deliver(DAY, orders(5))
    dead = import_killed_at(shop, failpoint)
    said = look(shop)
    assert f"{FEED}/{DAY}: run {dead}: Its process" in said
    assert status_in_dagster(shop, dead) is dg.DagsterRunStatus.FAILURE
    assert shop.batch(dead).status == status
    assert len(shop.rows()) == visible
    assert look(shop) == "No run is dead."
    again = shop.run_again_from_failure(dead)
    assert again.success
    assert [(b.batch_id, b.status) for b in shop.batches()] == [(dead, "SUCCESS")]
    assert shop.stamps() == {dead}


def test_a_retry_is_not_taken_for_the_dead_run_whose_tags_it_has(shop: Shop) -> None:
    shop.deliver(DAY, orders(5))
    dead = import_killed_at(shop, "bulk_write.before_fence")
    look(shop)
    parent = shop.instance.get_run_by_id(dead)
    assert parent is not None
    retry = dg.DagsterRun(
        job_name=FEED, run_id=new_id(), tags=parent.tags, status=dg.DagsterRunStatus.STARTED
    )
    shop.instance.add_run(retry)
    assert process_of(parent) is not None
    assert process_of(retry) is None
    assert look(shop) == "No run is dead."
    assert status_in_dagster(shop, retry.run_id) is dg.DagsterRunStatus.STARTED


def test_runs_of_others_in_the_same_instance_are_left_alone(shop: Shop) -> None:
    status = dg.DagsterRunStatus.STARTED
    theirs = dg.DagsterRun(job_name="theirs", run_id=new_id(), status=status)
    ours = dg.DagsterRun(
        job_name=FEED, run_id=new_id(), status=status, tags={"batch-pipelines/feed": FEED}
    )
    for run in (theirs, ours):
        shop.instance.add_run(run)
    assert [each.dagster_run.run_id for each in unfinished(shop.instance)] == [ours.run_id]


@pytest.mark.parametrize(
    ("canceled", "left"), [(True, "FAILED"), (False, "IN_PROGRESS")], ids=["canceled", "waits"]
)
def test_a_run_that_was_terminated_between_two_stages_fails_its_batch(
    shop: Shop, canceled: bool, left: str
) -> None:
    """One of which only some stages were launched waits for the others."""
    shop.deliver(DAY, orders(5))
    run = shop.run(DAY, "ingest").dagster_run
    if canceled:
        shop.instance.report_run_canceled(run)
    look(shop)
    assert shop.batch(run.run_id).status == left


def test_the_sensor_runs_unasked(shop: Shop) -> None:
    sensor = shop.defs.resolve_sensor_def("dead_runs")
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
