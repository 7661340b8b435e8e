"""Dagster's daemon, step by step, over a real code server and a real instance; and the UI's mutations.

All of Dagster's that is private to it stands here.
"""

from __future__ import annotations

import asyncio
import logging
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteRepositoryOrigin
from dagster._core.remote_representation.grpc_server_registry import GrpcServerRegistry
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster._daemon.auto_run_reexecution.auto_run_reexecution import (
    consume_new_runs_for_automatic_reexecution,
)
from dagster._daemon.backfill import execute_backfill_iteration
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon
from dagster._grpc.constants import GrpcServerCommand
from dagster_graphql.schema import create_schema

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT = Path(__file__).resolve().parents[1]
_HEARTBEAT_SECONDS, _STARTUP_SECONDS = 60, 120
_LOCATION = {
    "repositoryName": "__repository__",
    "repositoryLocationName": "batch_pipelines",
}
_LAUNCH = """
mutation ($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}
"""
_BACKFILL = """
mutation ($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}
"""


@dataclass
class Daemon:
    """What the daemon and the webserver do, when a test says so.

    Attributes:
        workspace: The code locations, each in a process of its own.
        instance: The instance.
    """

    workspace: WorkspaceProcessContext
    instance: dg.DagsterInstance

    def dequeue(self) -> None:
        """Launch them, as processes."""
        with QueuedRunCoordinatorDaemon(interval_seconds=1) as daemon:
            for _ in daemon.run_iteration(self.workspace):
                pass

    def backfill(self, stages: list[dg.AssetKey], keys: list[str]) -> list[dg.DagsterRun]:
        """Launch a backfill of assets, as the UI does, and have its runs made; give them."""
        params = {
            "assetSelection": [{"path": [*key.path]} for key in stages],
            "partitionNames": keys,
        }
        found = self._ask(_BACKFILL, params)["launchPartitionBackfill"]
        assert found["__typename"] == "LaunchBackfillSuccess", found
        for error in execute_backfill_iteration(self.workspace, logging.getLogger("test")):
            assert error is None, error
        tags = {"dagster/backfill": found["backfillId"]}
        return [*self.instance.get_runs(dg.RunsFilter(tags=tags))]

    def retry(self, run_id: str) -> str:
        """Retry a failed run as the daemon does, where its tags say so; give the new run's id."""
        record = self.instance.get_run_record_by_id(run_id)
        assert record is not None
        for _ in consume_new_runs_for_automatic_reexecution(
            self.workspace, [record], logging.getLogger("test")
        ):
            pass
        (retry,) = self.instance.get_runs(dg.RunsFilter(tags={"dagster/parent_run_id": run_id}))
        return retry.run_id

    def launch(
        self, job: str, key: str, *stages: dg.AssetKey, tags: dict[str, str] | None = None
    ) -> dg.DagsterRun:
        """Launch a run of a partition, as the UI does; `__ASSET_JOB` is that of the assets' pages."""
        wanted = {"dagster/partition": key, **(tags or {})}
        selector: dict[str, Any] = {**_LOCATION, "jobName": job}
        if stages:
            selector["assetSelection"] = [{"path": [*stage.path]} for stage in stages]
        params = {
            "selector": selector,
            "mode": "default",
            "executionMetadata": {"tags": [{"key": k, "value": v} for k, v in wanted.items()]},
        }
        found = self._ask(_LAUNCH, params)["launchRun"]
        assert found["__typename"] == "LaunchRunSuccess", found
        run = self.instance.get_run_by_id(found["run"]["runId"])
        assert run is not None
        return run

    def _ask(self, query: str, params: dict[str, Any]) -> dict[str, Any]:
        context = self.workspace.create_request_context()
        asked = create_schema().execute_async(query, variables={"params": params}, context=context)
        with warnings.catch_warnings():
            # Dagster's own, of its own `AssetSelection.sources`.
            warnings.simplefilter("ignore", DeprecationWarning)
            found = asyncio.run(asked)
        assert not found.errors, found.errors
        answer: dict[str, Any] = found.data
        return answer


def next_runs(instance: dg.DagsterInstance) -> list[str]:
    """Say which runs the queue would launch now, in their order; give their ids."""
    with QueuedRunCoordinatorDaemon(interval_seconds=1) as daemon:
        config = instance.get_concurrency_config()
        found = daemon._get_runs_to_dequeue(instance, config, fixed_iteration_time=None)
    return [run.run_id for run in found]


def put_in_queue(
    instance: dg.DagsterInstance, job: dg.JobDefinition, tags: dict[str, str]
) -> dg.DagsterRun:
    """Put a run into the queue without a code server; it cannot be launched."""
    location = RegisteredCodeLocationOrigin(_LOCATION["repositoryLocationName"])
    repository = RemoteRepositoryOrigin(location, _LOCATION["repositoryName"])
    return instance.create_run_for_job(
        job,
        tags=tags,
        status=dg.DagsterRunStatus.QUEUED,
        remote_job_origin=repository.get_job_origin(job.name),
    )


@contextmanager
def started(instance: dg.DagsterInstance) -> Iterator[Daemon]:
    """Load the code location into a process, with this one's environment, for the length of a block."""
    target = WorkspaceFileTarget([str(PROJECT / "workspace.yaml")])
    with (
        GrpcServerRegistry(
            instance_ref=instance.get_ref(),
            server_command=GrpcServerCommand.API_GRPC,
            heartbeat_ttl=_HEARTBEAT_SECONDS,
            startup_timeout=_STARTUP_SECONDS,
            wait_for_processes_on_shutdown=True,
            log_level="WARNING",
        ) as servers,
        WorkspaceProcessContext(instance, target, grpc_server_registry=servers) as workspace,
    ):
        yield Daemon(workspace, instance)
