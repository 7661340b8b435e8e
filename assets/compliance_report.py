"""The asset `compliance_report`: what the ledger says of a month, for auditors."""

import datetime as dt
import time
import uuid
from collections.abc import Iterator

import dagster as dg
import pydantic
from dagster._core.definitions.metadata import RawMetadataValue

from assets.common import table
from batch_pipelines.engine.compliance.making import Made, Maker, make
from batch_pipelines.engine.compliance.scope import month, regulations_of, scope
from batch_pipelines.engine.reports.filing import program
from batch_pipelines.engine.settings import Settings
from resources.batches import Batches, requester

NAME = "compliance_report"
_CHECK = "every_part_was_made"
# What a list of months shows at a glance.
_KEY_FIGURES = {
    "summary": ("batches", "success_rate", "records", "rejected", "late"),
    "findings": ("open",),
    "critical": ("critical_rows", "raised_p95", "raised_worst", "unacknowledged"),
    "integrity": ("valid_rate", "invalid", "validation_rate"),
    "overrides": ("forced", "rollbacks", "overruled"),
    "access": ("looks",),
    "retention": ("holds", "deleted"),
}


class ComplianceReportConfig(dg.Config):
    """What can be set in the launchpad."""

    regulation: str | None = pydantic.Field(
        default=None, description="Only feeds under it: HIPAA, CLIA, or their own word."
    )
    feed: str | None = pydantic.Field(default=None, description="Only this feed.")
    entity_type: str | None = pydantic.Field(
        default=None, description="Only checksums of these: file, chunk, row, or a feed's word."
    )
    types: list[str] = pydantic.Field(
        default=[], description="Only these parts: summary, findings, critical ...; none for all."
    )


def compliance_report_asset(settings: Settings) -> dg.AssetsDefinition:
    """Make the asset.

    Args:
        settings: Say in which time zone months are, and which is the first.

    Returns:
        The asset. Its partitions are the months that are over.
    """

    @dg.asset(
        name=NAME,
        partitions_def=dg.MonthlyPartitionsDefinition(
            start_date=settings.report_start, timezone=settings.report_timezone, fmt="%Y-%m"
        ),
        backfill_policy=dg.BackfillPolicy.multi_run(1),
        group_name="reports",
        kinds={"postgres", "html"},
        description="What the ledger says of a month, for auditors: stored, provable, to be signed.",
        check_specs=[
            dg.AssetCheckSpec(_CHECK, asset=NAME, description="No part of the report has failed.")
        ],
    )
    def _compliance_report(
        context: dg.AssetExecutionContext,
        config: ComplianceReportConfig,
        batches: dg.ResourceParam[Batches],
    ) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult[None]]:
        own, run = batches.settings, context.run
        about = scope(
            month(context.partition_key, own.report_timezone),
            regulations_of(batches.feeds(), own.regulations), dt.datetime.now(dt.UTC),
            regulation=config.regulation, feed=config.feed, entity_type=config.entity_type,
        )  # fmt: skip
        maker = Maker(
            own.reports / "compliance", requester(run), program(),
            new_id=lambda: str(uuid.uuid4()), monotonic=time.monotonic, run_id=run.run_id,
        )  # fmt: skip
        with batches.connect("compliance report") as connection:
            made = make(connection, about, config.types, maker)
        yield _check(made)
        yield dg.MaterializeResult(metadata=_metadata(made))

    return _compliance_report


def _metadata(made: Made) -> dict[str, RawMetadataValue]:
    found = made.read
    figures: dict[str, RawMetadataValue] = {}
    for section in found.sections:
        if section.content is not None:
            named = {figure.name: figure.value for figure in section.content.figures}
            wanted = _KEY_FIGURES.get(section.type, ())
            figures |= {f"{section.type}/{name}": named[name] for name in wanted}
    parts = table(
        {
            "part": each.title,
            "rows counted": each.content.records if each.content else None,
            "seconds": round(each.seconds, 3),
            "sha256": each.content.sha256[:12] if each.content else None,
            "failed because": each.failure,
        }
        for each in found.sections
    )
    places: dict[str, RawMetadataValue] = {
        each.format: dg.MetadataValue.path(each.place) for each in made.files
    }
    return {
        **places,
        "report": dg.MetadataValue.text(made.record.report_id),
        "next": dg.MetadataValue.text(
            f'batch-pipelines report sign {made.record.report_id[:8]} --statement "..."'
        ),
        "content_sha256": found.content_sha256,
        "bytes": sum(each.bytes for each in made.files),
        "seconds": round(found.seconds, 3),
        "partial": found.scope.is_partial,
        **{name: value for name, value in figures.items() if value is not None},
        "parts": parts,
    }


def _check(made: Made) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=_CHECK,
        passed=not made.read.failed,
        metadata={each.type: each.failure or "" for each in made.read.failed},
    )
