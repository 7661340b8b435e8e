"""What each metric of the ledger is called outside, what its labels are, and what it says.

Names follow Prometheus' conventions: base units, `_total` behind counters. No label holds an id: there
are as many series as feeds times states, however many batches there were.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

PREFIX: Final = "batch_pipelines_"
BUCKETS: Final = ("0.1", "0.5", "1", "5", "10", "30", "60", "300", "1800", "3600", "+Inf")
"""Upper ends of the buckets of durations, in seconds; those of the function `batch_audit.bucket`."""


@dataclass(frozen=True)
class Family:
    """A metric, as it is seen from outside.

    Attributes:
        metric: Its name in the ledger; of a histogram that of its sum.
        name: Its name without the prefix; a counter's without `_total`.
        kind: What it is.
        labels: Names of its labels; the first is `feed` where the ledger tells it by feed.
        help: What it says.
        counts: Of a histogram, the name in the ledger of its buckets.
    """

    metric: str
    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str
    counts: str | None = None


FAMILIES: Final = (
    Family("batches_started", "batches_started", "counter", ("feed",), "Batches begun."),
    Family(
        "batches_ended", "batches", "counter", ("feed", "status"),
        "Times that a batch came into a state; a batch that was taken back has been in several.",
    ),
    Family("batches", "batches_current", "gauge", ("feed", "status"), "Batches in a state now."),
    Family(
        "rows", "rows", "counter", ("feed", "outcome"),
        "Records read, and what became of them: written, rejected, skipped.",
    ),
    Family(
        "critical_rows", "critical_rows", "counter", ("feed",),
        "Rows that fulfil a critical_when of their feed, one for each condition.",
    ),
    Family("source_bytes", "source_bytes", "counter", ("feed",), "Bytes of the files that were loaded."),
    Family(
        "checksums", "checksums", "counter", ("feed", "status"),
        "Checksums computed: valid, invalid, or recorded where there was nothing to compare with.",
    ),
    Family("checksum_bytes", "checksum_bytes", "counter", ("feed",), "Bytes of files read for them."),
    Family("checksum_seconds", "checksum_seconds", "counter", ("feed",), "Time that took."),
    Family("wal_bytes", "wal_bytes", "counter", ("feed",), "Write-ahead log written while publishing."),
    Family(
        "publish_seconds", "publish_seconds", "counter", ("feed",),
        "Time that server processes were busy with the transactions that publish.",
    ),
    Family(
        "stage_seconds", "stage_duration_seconds", "histogram", ("feed", "stage"),
        "Time a stage took, by stage.", "stage_bucket",
    ),
    Family("stage_failures", "stage_failures", "counter", ("feed", "stage"), "Stages that failed."),
    Family(
        "statements", "write_statements", "counter", ("feed", "way"),
        "Statements that wrote rows: bulk ones of many rows, and single ones.",
    ),
    Family("statement_rows", "write_statement_rows", "counter", ("feed", "way"), "Rows they wrote."),
    Family(
        "statement_seconds", "write_statement_seconds", "counter", ("feed", "way"),
        "Time that they took.",
    ),
    Family(
        "fallbacks", "write_fallbacks", "counter", ("feed", "way"),
        "Groups of rows that the table refused together, so that single bad ones were searched for.",
    ),
    Family(
        "schema_changes", "schema_changes", "counter", ("feed", "verdict"),
        "Deliveries that brought other columns than the one before.",
    ),
    Family(
        "rolled_back_rows", "rolled_back_rows", "counter", ("feed", "outcome"),
        "Rows of batches that were rolled back, by what became of them.",
    ),
    Family(
        "verifications", "verifications", "counter", ("feed", "status"),
        "Tables of batches that were proven again.",
    ),
    Family("alerts", "alerts", "counter", ("feed", "kind", "severity"), "Alerts raised."),
    Family(
        "alerts_open", "alerts_open", "gauge", ("feed", "severity"),
        "Warnings and critical alerts that are neither acknowledged nor resolved.",
    ),
    Family(
        "alert_deliveries", "alert_deliveries", "counter", ("channel", "status"),
        "Alerts that a channel took, or that were given up.",
    ),
    Family(
        "alert_deliveries_waiting", "alert_deliveries_waiting", "gauge", ("channel",),
        "Alerts that wait to be sent.",
    ),
    Family(
        "alert_seconds", "alert_latency_seconds", "histogram", ("severity",),
        "Time from what an alert tells of until a channel took it.", "alert_bucket",
    ),
    Family("leases", "leases", "gauge", ("feed", "state"), "Partitions that a run works on now."),
    Family("feeds_paused", "feed_paused", "gauge", ("feed",), "1 for each feed that is paused."),
    Family(
        "thresholds", "threshold_state", "gauge", ("feed", "measure"),
        "Where a threshold stands: 0 ok, 1 warn, 2 breach; without feed, that of all together.",
    ),
    Family("bags", "archive_bags", "gauge", ("kind", "state"), "Bags, by what was last found of them."),
    Family("bag_bytes", "archive_bytes", "gauge", ("kind",), "Bytes of their payload."),
)  # fmt: skip
