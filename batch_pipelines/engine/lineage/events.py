"""A batch as an OpenLineage run event: job, run, inputs, outputs and their facets.

The run's id is the batch's. No facet has a value of a row. Names follow OpenLineage's naming:
files by `file` or `s3://BUCKET`, tables by `postgres://HOST:PORT` and DATABASE.SCHEMA.TABLE.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import attr
from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
from openlineage.client.facet_v2 import (
    DatasetFacet,
    data_quality_assertions_dataset,
    data_quality_metrics_input_dataset,
    dataset_version_dataset,
    datasource_dataset,
    documentation_job,
    error_message_run,
    input_statistics_input_dataset,
    job_type_job,
    output_statistics_output_dataset,
    ownership_job,
    processing_engine_run,
    schema_dataset,
    storage_dataset,
)

if TYPE_CHECKING:
    from openlineage.client.facet_v2 import InputDatasetFacet, JobFacet, RunFacet

    from batch_pipelines.engine.ledger.files import ImportFile
    from batch_pipelines.engine.ledger.proofs import TableBalance
    from batch_pipelines.engine.lineage.due import Due
    from batch_pipelines.engine.lineage.facts import LineageFacts

# Some thousand small files may be gathered into one batch: above this, they are told as their folder.
MOST_FILES = 100
_S3 = "s3://"


@attr.define
class ChecksumsDatasetFacet(DatasetFacet):
    """Digests of a file as it was loaded, a facet of our own."""

    crc32c: str
    sha256: str
    size: int


def run_event(facts: LineageFacts, due: Due, namespace: str) -> RunEvent:
    """Make the event.

    Args:
        facts: What is known of the batch.
        due: What happened.
        namespace: Of the job.

    Returns:
        The event. At the start its inputs and outputs are not known yet.
    """
    ended = due.event_type in {"COMPLETE", "FAIL"}
    return RunEvent(
        eventType=RunState[due.event_type],
        eventTime=due.occurred_at.isoformat(),
        producer=f"urn:batch-pipelines:{version('batch-pipelines')}",
        run=Run(facts.batch.batch_id, _run_facets(facts, due)),
        job=Job(namespace, facts.batch.feed, _job_facets(facts)),
        inputs=_inputs(facts) if ended else [],
        outputs=_outputs(facts) if ended and facts.batch.published_at is not None else [],
    )


def _run_facets(facts: LineageFacts, due: Due) -> dict[str, RunFacet]:
    found: dict[str, RunFacet] = {
        "processing_engine": processing_engine_run.ProcessingEngineRunFacet(
            version=str(facts.server_version), name="PostgreSQL"
        )
    }
    if due.event_type == "FAIL" and facts.batch.error_details:
        found["errorMessage"] = error_message_run.ErrorMessageRunFacet(
            message=facts.batch.error_details, programmingLanguage="PYTHON"
        )
    return found


def _job_facets(facts: LineageFacts) -> dict[str, JobFacet]:
    found: dict[str, JobFacet] = {
        "jobType": job_type_job.JobTypeJobFacet(
            processingType="BATCH", integration="BATCH_PIPELINES", jobType="IMPORT"
        )
    }
    if facts.feed is not None and facts.feed.description:
        found["documentation"] = documentation_job.DocumentationJobFacet(facts.feed.description)
    if facts.feed is not None and facts.feed.owners:
        owners = [ownership_job.Owner(name) for name in facts.feed.owners]
        found["ownership"] = ownership_job.OwnershipJobFacet(owners)
    return found


def _inputs(facts: LineageFacts) -> list[InputDataset]:
    namespace, folder = _landing(facts)
    source = {"dataSource": datasource_dataset.DatasourceDatasetFacet(namespace, namespace)}
    if len(facts.files) > MOST_FILES:
        size, records = sum(f.size for f in facts.files), sum(f.records or 0 for f in facts.files)
        return [
            InputDataset(
                namespace, folder, _counts(records, size, len(facts.files)), facets={**source}
            )
        ]
    return [
        InputDataset(
            namespace, f"{folder}/{file.file_name}", _counts(file.records, file.size, 1),
            facets={**source, **_file_facets(namespace, file)},
        )
        for file in facts.files
    ]  # fmt: skip


def _landing(facts: LineageFacts) -> tuple[str, str]:
    """Name where the delivery lay: the folder of the feed's path, with its partition key."""
    path = "" if facts.feed is None else facts.feed.source.path or ""
    folder = path.replace("{batch}", facts.batch.partition_key).rpartition("/")[0]
    if folder.startswith(_S3):
        bucket, _, key = folder.removeprefix(_S3).partition("/")
        return f"{_S3}{bucket}", key
    return "file", folder or facts.batch.name


def _counts(records: int | None, size: int, number: int) -> dict[str, InputDatasetFacet]:
    return {
        "inputStatistics": input_statistics_input_dataset.InputStatisticsInputDatasetFacet(
            rowCount=records, size=size, fileCount=number
        ),
        "dataQualityMetrics": data_quality_metrics_input_dataset.DataQualityMetricsInputDatasetFacet(
            columnMetrics={}, rowCount=records, bytes=size, fileCount=number
        ),
    }


def _file_facets(namespace: str, file: ImportFile) -> dict[str, DatasetFacet]:
    layer = "s3" if namespace.startswith(_S3) else "file"
    return {
        "storage": storage_dataset.StorageDatasetFacet(storageLayer=layer, fileFormat=file.format),
        "version": dataset_version_dataset.DatasetVersionDatasetFacet(file.sha256),
        "batchPipelines_checksums": ChecksumsDatasetFacet(
            crc32c=f"{file.crc32c:08x}", sha256=file.sha256, size=file.size
        ),
    }


def _outputs(facts: LineageFacts) -> list[OutputDataset]:
    namespace = f"postgres://{facts.host}"
    return [
        OutputDataset(
            namespace, f"{facts.database}.{table.target_table}",
            {"outputStatistics": output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
                rowCount=table.inserted + table.updated + table.unchanged)},
            facets=_table_facets(facts, namespace, table),
        )
        for table in facts.tables
    ]  # fmt: skip


def _table_facets(
    facts: LineageFacts, namespace: str, table: TableBalance
) -> dict[str, DatasetFacet]:
    name = table.target_table
    checks = [
        data_quality_assertions_dataset.Assertion(
            assertion=check.name, success=check.status == "SUCCESS", expected=str(check.expected),
            actual=str(check.actual),
        )
        for found in facts.validations if found.target_table == name
        for check in found.checks if check.status != "UNVERIFIED"
    ]  # fmt: skip
    columns = [
        schema_dataset.SchemaDatasetFacetFields(column.name, column.type)
        for column in facts.columns if column.target_table == name
    ]  # fmt: skip
    source = datasource_dataset.DatasourceDatasetFacet(namespace, f"{namespace}/{facts.database}")
    # The client has the assertions as a facet of inputs alone; the table that was checked is an output.
    found: dict[str, Any] = {
        "dataSource": source,
        "schema": schema_dataset.SchemaDatasetFacet(columns),
        "dataQualityAssertions": data_quality_assertions_dataset.DataQualityAssertionsDatasetFacet(
            checks
        ),
    }
    return found
