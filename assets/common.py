"""What the five stage assets share: their key, partitions and policy, and how things are shown."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.definitions.metadata import (
    RawMetadataValue,
)  # not exported, yet in every signature

from batch_pipelines.partitions import feed_partitions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.ledger.critical import CriticalCount
    from batch_pipelines.engine.ledger.rejects import RejectCount
    from batch_pipelines.engine.ledger.verifications import Difference
    from batch_pipelines.engine.reports.filing import Filed, Place

MEGABYTE = 1_000_000
# Reasons for rejects, and differing rows, that are shown; the command line has more of them.
_REASONS = _ROWS = 20
Cell = str | float | int | bool | None


def stage_asset(
    feed: Feed,
    stage: str,
    *,
    after: str | None,
    kinds: set[str],
    description: str,
    check_specs: Sequence[dg.AssetCheckSpec] = (),
    partitioned: bool = True,
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """Decorate a stage function as the asset `[feed, stage]`.

    Args:
        feed: The feed.
        stage: The stage.
        after: The stage before it, None for the first.
        kinds: What Dagster's graph shows as icons.
        description: For the catalog.
        check_specs: Checks that the asset reports.
        partitioned: Whether a run has to do with one partition.

    Returns:
        A decorator.
    """
    return dg.asset(
        key=[feed.feed, stage],
        deps=[] if after is None else [dg.AssetKey([feed.feed, after])],
        partitions_def=feed_partitions(feed) if partitioned else None,
        # One run a partition: a run's id is the batch id of exactly one delivery.
        backfill_policy=dg.BackfillPolicy.multi_run(1) if partitioned else None,
        group_name=feed.feed,
        kinds=kinds,
        description=description,
        owners=feed.owners,
        check_specs=check_specs,
    )


def batch_metadata(batch: Batch, *, worked: bool) -> dict[str, RawMetadataValue]:
    """Show which batch a stage had to do with.

    Args:
        batch: The batch.
        worked: Whether the stage did anything, or found it done.

    Returns:
        Metadata.
    """
    found: dict[str, RawMetadataValue] = {
        "batch_id": dg.MetadataValue.text(batch.batch_id),
        # What it was when the stage ended.
        "batch_status": dg.MetadataValue.text(batch.status),
        "outcome": dg.MetadataValue.text("done" if worked else "nothing to do, as recorded before"),
    }
    if batch.duplicate_of is not None:
        found["duplicate_of"] = dg.MetadataValue.text(batch.duplicate_of)
    return found


def filed_report(filed: Filed | None) -> dict[str, RawMetadataValue]:
    """Show where the report of a batch is: a link where something serves it, and its file.

    Args:
        filed: The report; None where it could not be written.

    Returns:
        Metadata.
    """
    if filed is None:
        return {}
    link = {} if filed.url is None else {"report": dg.MetadataValue.url(filed.url)}
    return {
        **link,
        "report_file": dg.MetadataValue.path(str(filed.path)),
        "verdict": dg.MetadataValue.text(filed.verdict),
    }


def filed_feed_report(place: Place | None) -> dict[str, RawMetadataValue]:
    """Show where the report of a feed is: a link where something serves it, otherwise its file.

    Args:
        place: The report; None where it could not be written.

    Returns:
        Metadata.
    """
    if place is None:
        return {}
    found = (
        dg.MetadataValue.path(str(place.path))
        if place.url is None
        else dg.MetadataValue.url(place.url)
    )
    return {"feed_report": found}


def table(rows: Iterable[Mapping[str, Cell]]) -> dg.MetadataValue:
    """Show rows as a table.

    Args:
        rows: Rows of the same columns.

    Returns:
        Metadata.
    """
    records = [dg.TableRecord(dict(row)) for row in rows]
    if not records:
        return dg.MetadataValue.text("none")
    columns = [dg.TableColumn(name, "string") for name in records[0].data]
    return dg.MetadataValue.table(records, schema=dg.TableSchema(columns))


def hexadecimal(crc: int | None) -> str | None:
    """Write a CRC32C as sidecars have it: 8 hex digits."""
    return None if crc is None else f"{crc:08x}"


def reject_reasons(rejects: Iterable[RejectCount]) -> dg.MetadataValue:
    """Show why records were set aside, without any value of theirs.

    Args:
        rejects: How many records each reason holds back, the most frequent first.

    Returns:
        Metadata.
    """
    return table(
        {
            "table": each.target_table,
            "column": each.column_name,
            "sqlstate": each.sqlstate,
            "constraint": each.constraint_name,
            "message": each.message,
            "records": each.records,
        }
        for each in itertools.islice(rejects, _REASONS)
    )


def critical_rows(batch: Batch, counts: Iterable[CriticalCount]) -> dict[str, RawMetadataValue]:
    """Show how many rows were told of at once, where the feed says which are critical.

    Args:
        batch: The batch.
        counts: How many by condition.

    Returns:
        Metadata; none where the feed has no condition, or nothing is visible yet.
    """
    if batch.critical_records is None:
        return {}
    rows = table(
        {
            "table": each.target_table,
            "condition": each.condition,
            "records": each.records,
            "told before": each.told_before,
            "raised after (s)": each.raised_after,
            "sent after (s)": each.sent_after,
        }
        for each in counts
    )
    return {"critical_records": batch.critical_records, "critical": rows}


def differing_rows(details: Iterable[Difference]) -> dg.MetadataValue:
    """Show which rows differ from what was loaded, without any value of theirs but the key.

    Args:
        details: The rows by name.

    Returns:
        Metadata.
    """
    return table(
        {
            "row is": each.kind,
            "key": None if each.key is None else ", ".join(f"{k}={v}" for k, v in each.key.items()),
            "file": each.file_name,
            "record": each.record,
            "columns": None if each.columns is None else ", ".join(each.columns),
        }
        for each in itertools.islice(details, _ROWS)
    )
