"""The baseline of `fixed_cost.py`: a partition of five empty assets, in this process.

It does what Dagster has to do for any five-asset run, and nothing else. `--ephemeral` takes Dagster's
in-memory SQLite in place of the instance that DAGSTER_HOME configures.
"""

from __future__ import annotations

import sys

import dagster as dg

JOB = "five_empty_assets"
_STAGES = ("one", "two", "three", "four", "five")
# As `batch-pipelines import` has it: on the terminal only what is wrong.
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def _asset(name: str, after: str | None) -> dg.AssetsDefinition:
    @dg.asset(
        key=[JOB, name],
        deps=[] if after is None else [dg.AssetKey([JOB, after])],
        partitions_def=dg.DynamicPartitionsDefinition(name=JOB),
        group_name=JOB,
    )
    def _empty() -> None:
        pass

    return _empty


def empty_assets() -> dg.Definitions:
    """Make the assets, and the job that materializes a partition of all of them."""
    chain = zip(_STAGES, (None, *_STAGES), strict=False)
    return dg.Definitions(
        assets=[_asset(name, after) for name, after in chain],
        jobs=[
            dg.define_asset_job(
                JOB,
                selection=dg.AssetSelection.groups(JOB),
                executor_def=dg.in_process_executor,
            )
        ],
        executor=dg.in_process_executor,
    )


def main() -> None:
    """Materialize the partition named by the first argument."""
    key, *options = sys.argv[1:]
    instance = dg.DagsterInstance.ephemeral() if options else dg.DagsterInstance.get()
    instance.add_dynamic_partitions(JOB, [key])
    job = empty_assets().resolve_job_def(JOB)
    job.execute_in_process(instance=instance, partition_key=key, run_config=_QUIET)


if __name__ == "__main__":
    main()
