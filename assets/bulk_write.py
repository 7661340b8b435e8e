"""The asset `bulk_write`: the batch's rows, published in one transaction."""

from collections.abc import Iterator

import dagster as dg
import pydantic
from dagster._core.definitions.metadata import RawMetadataValue

from assets.common import Cell, batch_metadata, critical_rows, reject_reasons, stage_asset, table
from assets.plot import RECENT, recent
from batch_pipelines.engine.bulk_write import BulkWriteResult, bulk_write
from batch_pipelines.engine.feeds import Feed
from batch_pipelines.engine.fidelity import not_exact
from batch_pipelines.engine.ledger.staged_tables import SCHEMA
from batch_pipelines.engine.reports.trends import recent_batches
from resources.batches import Batches

NO_REJECTS = "no_records_set_aside"
# Changed columns that are shown; the ledger has all of them.
CHANGES = 50


class BulkWriteConfig(dg.Config):
    """What can be set in the launchpad."""

    replay: bool = pydantic.Field(
        default=False,
        description="Load what was set aside of the published batch, now that the cause is mended.",
    )


def bulk_write_asset(feed: Feed) -> dg.AssetsDefinition:
    """Make the asset for a feed.

    Args:
        feed: The feed.

    Returns:
        The asset.
    """
    names = ", ".join(each.table for each in feed.tables)
    key = dg.AssetKey([feed.feed, "bulk_write"])

    @stage_asset(
        feed,
        "bulk_write",
        after="checksum",
        kinds={"postgres", "table"} if names else {"file"},
        description=_description(feed, names),
        check_specs=[
            dg.AssetCheckSpec(
                NO_REJECTS, asset=key, description="Every record of the delivery could be loaded."
            )
        ],
    )
    def _bulk_write(
        context: dg.AssetExecutionContext,
        config: BulkWriteConfig,
        batches: dg.ResourceParam[Batches],
    ) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult[None]]:
        with batches.work(context, feed, "bulk_write") as (connection, work):
            result = bulk_write(connection, work, replay=config.replay)
            compared = recent_batches(connection, feed.feed, result.batch.started_at, RECENT)
        balance: list[dict[str, Cell]] = [
            {
                "table": each.target_table,
                "records": each.source_records,
                "inserted": each.inserted,
                "updated": each.updated,
                "unchanged": each.unchanged,
                "rejected": each.rejected,
                "skipped": each.skipped,
                "removed": each.removed,
            }
            for each in result.tables
        ]
        digests: list[dict[str, Cell]] = [
            {
                "table": each.target_table,
                "sum": f"{each.digest_sum:x}",
                "second moment": f"{each.digest_moment:x}",
            }
            for each in result.tables
        ]
        rows = sum(each.inserted + each.updated + each.unchanged for each in result.tables)
        several = len(result.columns) > 1
        columns = [
            dg.TableColumn(f"{name}.{column.name}" if several else column.name, column.type_name)
            for name, columns in result.columns.items()
            for column in columns
        ]
        yield dg.AssetCheckResult(
            check_name=NO_REJECTS,
            passed=not result.rejects,
            # The rest of the batch is published and proven: not an error.
            severity=dg.AssetCheckSeverity.WARN,
            # Dagster shows a check's last result without its partition.
            metadata={"partition": dg.MetadataValue.text(work.key), **_rejected(result)},
        )
        yield dg.MaterializeResult(
            metadata={
                **batch_metadata(result.batch, worked=result.worked),
                **_rows(result, rows),
                **(
                    {
                        "dagster/table_name": names,
                        "dagster/column_schema": dg.TableSchema(columns),
                    }
                    if names
                    else {"tables": "none"}
                ),
                "balance": table(balance),
                **_rejected(result),
                **critical_rows(result.batch, result.critical),
                **({"recent_batches": recent(compared)} if names else {}),
                "row_digests": table(digests),
                **_fidelity(result),
                **_signatures(result),
                **_changes(result),
                **({"rows_per_second": round(rows / result.seconds)} if result.worked else {}),
                **({"superseded": result.superseded} if result.superseded else {}),
            }
        )

    return _bulk_write


def _description(feed: Feed, names: str) -> str:
    if not names:
        return f"No tables: each {feed.entity_type} is published as it was delivered."
    if feed.publish == "after_validation":
        return f"Rows of {names}, judged; they wait in batch_staging until validate has passed."
    return f"Rows of {names}, published in one transaction, each with its batch id."


def _rows(result: BulkWriteResult, rows: int) -> dict[str, RawMetadataValue]:
    """Tell how many rows are visible, or wait."""
    if result.waiting:
        return {
            "waiting": table(
                {"table": w.target_table, "rows": w.digest.rows, "in": f"{SCHEMA}.{w.name}"}
                for w in result.waiting
            )
        }
    return {"dagster/partition_row_count": rows} if result.tables else {}


def _fidelity(result: BulkWriteResult) -> dict[str, RawMetadataValue]:
    """Tell which columns do not keep the very value that was sent."""
    rows: list[dict[str, Cell]] = [
        {"table": name, "column": each.column, "is": each.kind, "because": each.reason}
        for name, columns in result.fidelity.items()
        for each in not_exact(columns)
    ]
    return {"columns_not_exact": table(rows)} if result.fidelity else {}


def _signatures(result: BulkWriteResult) -> dict[str, RawMetadataValue]:
    """Tell of column signatures: each, and how many different ones the tables have."""
    variants = {
        name: len({tuple(s.columns) for s in result.signatures if s.target_table == name})
        for name in sorted({s.target_table for s in result.signatures})
    }
    rows: list[dict[str, Cell]] = [
        {
            "table": each.target_table,
            "columns": ", ".join(each.columns),
            "entries": each.entries,
            "written": "together" if each.bulk else "singly",
            "statements": each.statements,
            "fallback": each.fallback,
            "seconds": round(each.seconds, 6),
        }
        for each in result.signatures
    ]
    varied = ", ".join(f"{name}: {number}" for name, number in variants.items())
    return {"signatures": table(rows), "schema_variation": varied} if rows else {}


def _changes(result: BulkWriteResult) -> dict[str, RawMetadataValue]:
    """Tell how the delivery's columns compare with the versions that were in force."""
    changes: list[dict[str, Cell]] = [
        {
            "table": event.target_table,
            "column": each.column,
            "change": each.kind,
            "before": each.before,
            "now": each.after,
            "verdict": each.verdict,
            "policy": each.policy,
        }
        for event in result.events
        for each in event.changes
    ]
    found: dict[str, RawMetadataValue] = {}
    if result.events:
        found["feed_signature"] = "; ".join(str(event) for event in result.events)
    if changes:
        found["signature_changes"] = table(changes[:CHANGES])
    return found


def _rejected(result: BulkWriteResult) -> dict[str, RawMetadataValue]:
    return {
        "rejected_rows": sum(each.rejected for each in result.tables),
        "reject_reasons": reject_reasons(result.rejects),
    }
