"""The baseline of `fixed_cost.py`: a partition of five empty assets, in this process.

It does what Dagster has to do for any five-asset run, and nothing else. `--ephemeral` takes Dagster's
in-memory SQLite in place of the instance that DAGSTER_HOME configures.
"""

from __future__ import annotations

import sys

import dagster as dg

_JOB = "five_empty_assets"
_STAGES = ("one", "two", "three", "four", "five")
# As `batch-pipelines import` has it: on the terminal only what is wrong.
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def _asset(name: str, after: str | None) -> dg.AssetsDefinition:
    @dg.asset(
        key=[_JOB, name],
        deps=[] if after is None else [dg.AssetKey([_JOB, after])],
        partitions_def=dg.DynamicPartitionsDefinition(name=_JOB),
    )
    def _empty() -> None:
        pass

    return _empty


def main() -> None:
    """Materialize the partition named by the first argument."""
    key, *options = sys.argv[1:]
    chain = zip(_STAGES, (None, *_STAGES), strict=False)
    definitions = dg.Definitions(
        assets=[_asset(name, after) for name, after in chain],
        jobs=[
            dg.define_asset_job(
                _JOB,
                selection=dg.AssetSelection.groups("default"),
                executor_def=dg.in_process_executor,
            )
        ],
        executor=dg.in_process_executor,
    )
    instance = dg.DagsterInstance.ephemeral() if options else dg.DagsterInstance.get()
    instance.add_dynamic_partitions(_JOB, [key])
    job = definitions.resolve_job_def(_JOB)
    job.execute_in_process(instance=instance, partition_key=key, run_config=_QUIET)


if __name__ == "__main__":
    main()
