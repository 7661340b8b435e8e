"""What `automation.py` compares with: a sensor that does nothing, and runs of five empty assets.

Dagster loads it as a code location, beside the project's own definitions: the same daemon and code
server do both.
"""

from __future__ import annotations

import os
from pathlib import Path

import dagster as dg

from batch_pipelines.definitions import build_defs
from benchmarks.five_empty_assets import JOB, empty_assets

RUNS_VARIABLE = "BENCHMARK_EMPTY_RUNS"
"""Names a file; its lines are the partitions of which five empty assets are run."""


@dg.sensor(name="empty", job_name=JOB)
def _empty() -> dg.SkipReason:
    return dg.SkipReason("It does nothing.")


@dg.sensor(
    name="empty_runs",
    job_name=JOB,
    minimum_interval_seconds=15,  # as the landing sensors have it
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def _empty_runs() -> dg.SensorResult | dg.SkipReason:
    asked = Path(os.environ.get(RUNS_VARIABLE, os.devnull))
    keys = asked.read_text(encoding="utf-8").split() if asked.exists() else []
    if not keys:
        return dg.SkipReason("Nobody has asked.")
    return dg.SensorResult(
        dynamic_partitions_requests=[
            dg.DynamicPartitionsDefinition(name=JOB).build_add_request(keys)
        ],
        run_requests=[dg.RunRequest(run_key=key, partition_key=key) for key in keys],
    )


@dg.definitions
def defs() -> dg.Definitions:
    """Load the code location."""
    empty = empty_assets()
    with_sensors = dg.Definitions(sensors=[_empty, _empty_runs])
    return dg.Definitions.merge(build_defs(), empty, with_sensors)
