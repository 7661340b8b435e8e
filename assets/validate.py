"""The asset `validate`: the published rows compared with their source, and its checks for people.

The asset itself raises when a check fails: what comes after it must not run, also when it is launched
alone, and a check alone would not stop it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import dagster as dg
from dagster._core.definitions.metadata import RawMetadataValue

from assets.common import (
    Cell,
    batch_metadata,
    critical_rows,
    differing_rows,
    filed_report,
    stage_asset,
    table,
)
from assets.plot import RECENT, throughput
from batch_pipelines.engine.feeds import NO_TABLE, Feed
from batch_pipelines.engine.ledger.proofs import Check, TableValidation
from batch_pipelines.engine.ledger.speeds import recent_speeds
from batch_pipelines.engine.validate import ValidateResult, require_valid, validate
from resources.batches import Batches
from resources.rolled_back import tell_rolled_back

# What is set aside is left out of both sides.
_CHECKS = {
    "record_count": "As many rows in the table as records in the source, less those set aside.",
    "schema": "Every column of the source is in the table.",
    "key_uniqueness": "No primary key stands twice.",
    "aggregates": "Count, exact sum and bounds of every column, against a second reading.",
    "coverage": "Every column is proven: none that is lossy, or that the server computes or changes.",
}
_DIGEST = {"digest": "The digest of all rows, taken again, against that of the source at publish."}
_FILE_CHECKS = {
    "files": "Every file of the batch is there, and none is missing.",
    "manifest": "The sender's manifest lists the files of the batch, and no others.",
    "checksums": "Every file is what was staged, read once more.",
    "promises": "Every file is what its sender or its store says; none came without such a word.",
}
_CELL = 60  # characters


def validate_asset(feed: Feed) -> dg.AssetsDefinition:
    """Make the asset for a feed.

    Args:
        feed: The feed.

    Returns:
        The asset with its checks.
    """
    key = dg.AssetKey([feed.feed, "validate"])

    @stage_asset(
        feed,
        "validate",
        after="bulk_write",
        kinds={"postgres"},
        description="The committed rows against a second, independent reading of the source."
        if feed.publish == "direct"
        else "The rows that wait, against a second, independent reading of the source; then published.",
        check_specs=[
            spec
            for name, kinds in _targets(feed).items()
            for spec in check_specs(key, [name], kinds)
        ],
    )
    def _validate(
        context: dg.AssetExecutionContext, batches: dg.ResourceParam[Batches]
    ) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult[None]]:
        with batches.work(context, feed, "validate") as (connection, work):
            result = validate(connection, work)
            speeds = recent_speeds(connection, feed.feed, "validate", RECENT)
            filed = batches.file_report(connection, work)
        found = {each.target_table: each for each in result.tables}
        for name, kinds in _targets(feed).items():
            yield from check_results(work.key, name, found.get(name), kinds)
        if result.batch.status == "ROLLED_BACK":
            # The stages before it have turned green already.
            tell_rolled_back(context.instance, result.batch)
        # Before the materialization: a partition that is visible and wrong must not turn green.
        require_valid(result)
        yield dg.MaterializeResult(
            metadata={
                **batch_metadata(result.batch, worked=result.worked),
                **_published(feed, result),
                **filed_report(filed),
                "checks": check_table(result.tables),
                "throughput": throughput(speeds, of_records=bool(feed.tables)),
                "seconds": round(result.seconds, 3),
            }
        )

    return _validate


def _published(feed: Feed, result: ValidateResult) -> dict[str, RawMetadataValue]:
    """Tell how many rows have become visible, where it is this stage that publishes."""
    rows = result.batch.written_records
    if feed.publish == "direct" or rows is None:
        return {}
    names = ", ".join(each.table for each in feed.tables)
    return {
        "dagster/partition_row_count": rows,
        "dagster/table_name": names,
        **critical_rows(result.batch, result.critical),
    }


def _targets(feed: Feed) -> dict[str, dict[str, str]]:
    """Give the kinds of checks of each table; of a feed without tables, those of its files."""
    kinds = {**_CHECKS, **(_DIGEST if feed.validate_digests else {})}
    return {each.table: kinds for each in feed.tables} or {NO_TABLE: _FILE_CHECKS}


def check_specs(
    key: dg.AssetKey, tables: Iterable[str], kinds: Mapping[str, str]
) -> list[dg.AssetCheckSpec]:
    """Specify the checks of an asset.

    Args:
        key: The asset.
        tables: Its tables.
        kinds: What is checked of each, by the first part of the name of a check, for people.

    Returns:
        A specification for each table and kind.
    """
    return [
        dg.AssetCheckSpec(_name(table, kind), asset=key, description=description)
        for table in tables
        for kind, description in kinds.items()
    ]


def _name(full_name: str, kind: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in full_name) + f"__{kind}"


def check_table(found: Sequence[TableValidation]) -> dg.MetadataValue:
    """Show all checks of some tables as one table.

    Args:
        found: What was found in each.

    Returns:
        Metadata.
    """
    rows: list[dict[str, Cell]] = [
        {
            "check": f"{each.target_table} {check.name}" if len(found) > 1 else check.name,
            "expected": _shortened(check.expected),
            "actual": _shortened(check.actual),
            "status": check.status,
            "seconds": round(check.seconds, 3),
        }
        for each in found
        for check in each.checks
    ]
    return table(rows)


def check_results(
    key: str, full_name: str, found: TableValidation | None, kinds: Iterable[str]
) -> Iterator[dg.AssetCheckResult]:
    """Give the results of a table's checks.

    Args:
        key: The partition key.
        full_name: The table.
        found: What was found in it; None where nothing could be.
        kinds: What is checked, by the first part of the name of a check.

    Yields:
        A result for each kind.
    """
    for kind in kinds:
        checks = [c for c in (found.checks if found else ()) if c.name.split(".")[0] == kind]
        yield dg.AssetCheckResult(
            check_name=_name(full_name, kind),
            passed=bool(checks) and all(check.status == "SUCCESS" for check in checks),
            # A check that could not be made is no success, but no proof of damage either.
            severity=dg.AssetCheckSeverity.ERROR
            if any(check.status == "FAILED" for check in checks)
            else dg.AssetCheckSeverity.WARN,
            # Dagster shows a check's last result without its partition.
            metadata={
                "partition": dg.MetadataValue.text(key),
                **_check_metadata(checks),
                **_row_metadata(checks, found),
            },
        )


def _check_metadata(checks: Sequence[Check]) -> dict[str, dg.MetadataValue]:
    if not checks:
        return {"not checked": dg.MetadataValue.text("this delivery has nothing to check it by")}
    failed = [check for check in checks if check.status != "SUCCESS"]
    shown = failed or checks
    return {
        "results": table(
            {"check": c.name, "expected": c.expected, "actual": c.actual, "status": c.status}
            for c in shown
        ),
        **({"sql": dg.MetadataValue.md(f"```sql\n{shown[0].sql}\n```")} if shown[0].sql else {}),
    }


def _row_metadata(
    checks: Sequence[Check], found: TableValidation | None
) -> dict[str, dg.MetadataValue]:
    """Show the rows that differ beside the checks that failed for them; no values."""
    if found is None or found.rows is None or all(check.status == "SUCCESS" for check in checks):
        return {}
    rows = found.rows
    return {
        "only in the source": dg.MetadataValue.int(rows.src_extras),
        "only in the table": dg.MetadataValue.int(rows.tgt_extras),
        "mismatches": dg.MetadataValue.int(rows.mismatches),
        "matches": dg.MetadataValue.int(rows.matches),
        "rows that differ": differing_rows(rows.details),
    }


def _shortened(text: str) -> str:
    """Cut what would make the overview's table wider than the page; the checks show all of it."""
    return text if len(text) <= _CELL else f"{text[: _CELL - 1]}…"
