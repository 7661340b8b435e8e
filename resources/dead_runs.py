"""Finding dead runs, in the ledger and in Dagster, and ending them in both."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Literal

import dagster as dg
from dagster._core.utils import make_new_run_id

from batch_pipelines.engine.processes import life
from batch_pipelines.engine.recovery.ending import end_dead
from batch_pipelines.engine.recovery.held import held_leases, stalled_batches
from batch_pipelines.engine.recovery.judging import (
    SeenRun,
    judge_lease,
    judge_run,
    judge_stalled,
)
from resources.runs import process_of, report_dead, unfinished

if TYPE_CHECKING:
    from batch_pipelines.engine.causes import Cause
    from batch_pipelines.engine.processes import Life, Process
    from resources.batches import Batches

_ENDED: dict[dg.DagsterRunStatus, Literal["failed", "canceled"]] = {
    dg.DagsterRunStatus.FAILURE: "failed",
    dg.DagsterRunStatus.CANCELED: "canceled",
}


def end_dead_runs(instance: dg.DagsterInstance, batches: Batches) -> list[str]:
    """Fail what dead runs left, in the ledger and in Dagster; live ones are not disturbed.

    Args:
        instance: The Dagster instance.
        batches: Database and settings.

    Returns:
        What was found and done, a line each.
    """
    with batches.connect("dead runs") as connection:
        leases, stalled = held_leases(connection), stalled_batches(connection)
    told = []
    alive = set()
    for lease in leases:
        why = judge_lease(lease, _life(lease.process), lease_seconds=batches.settings.lease_seconds)
        if why is None:
            alive.add(lease.run_id)
        else:
            place = (lease.feed, lease.partition_key)
            told += _end(instance, batches, place, why, run_id=lease.run_id, token=lease.token)
    for batch in stalled:
        last = instance.get_run_by_id(batch.runs[-1]) if batch.runs else None
        ended = _ENDED.get(last.status) if last is not None else None
        why = judge_stalled(ended)
        if why is not None and last is not None:
            place = (batch.feed, batch.partition_key)
            cause: Cause = "interrupted" if ended == "canceled" else "dead_run"
            told += _end(instance, batches, place, why, cause, run_id=last.run_id, token=None)
    return told + _end_without_lease(instance, alive)


def _end(
    instance: dg.DagsterInstance,
    batches: Batches,
    place: tuple[str, str],
    why: str,
    cause: Cause = "dead_run",
    *,
    run_id: str,
    token: int | None,
) -> list[str]:
    ended = end_dead(
        batches.database, batches.settings, *place, why, cause,
        run_id=run_id, token=token, by_run=make_new_run_id(),
    )  # fmt: skip
    if ended is None:
        return []
    for run in ended.runs:
        report_dead(instance, run, why)
    return [f"{'/'.join(place)}: run {run_id}: {why}"]


def _end_without_lease(instance: dg.DagsterInstance, alive: set[str]) -> list[str]:
    """End runs that died before they had a lease, or that need none (verify, rollback)."""
    now = dt.datetime.now(dt.UTC).timestamp()
    told = []
    for record in unfinished(instance):
        run = record.dagster_run
        if run.run_id in alive:
            continue
        process = process_of(run)
        started = run.status is dg.DagsterRunStatus.STARTED
        age = now - (record.start_time or now)
        why = judge_run(SeenRun(run.run_id, process, started, age), _life(process))
        if why is not None:
            report_dead(instance, run.run_id, why)
            told.append(f"{run.job_name}: run {run.run_id}: {why}")
    return told


def _life(process: Process | None) -> Life:
    return "unknown" if process is None else life(process)
