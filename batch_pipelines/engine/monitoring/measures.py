"""What is measured over batches. Pure: what the ledger knows of them stands in `facts`."""

from __future__ import annotations

import itertools
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from batch_pipelines.engine.monitoring.facts import BatchFacts, Facts, Speed

# One slow batch may be anything; and of fewer than this there is no history to speak of.
_RECENT, _LEAST_HISTORY = 3, 5


@dataclass(frozen=True)
class Measured:
    """A measure.

    Attributes:
        value: Its value; a share in percent.
        batch_id: The newest batch that it is made of, if any.
    """

    value: float
    batch_id: str | None = None


def measure(facts: Facts) -> dict[str, Measured]:
    """Measure batches.

    Args:
        facts: What the ledger knows of them.

    Returns:
        Every measure by its name; one of which nothing is known is 0.
    """
    batches = facts.batches
    return {
        "failed_in_a_row": _in_a_row(batches),
        "invalid_checksums": _sum(batches, lambda batch: batch.invalid_checksums),
        "rejected_rows": _rejected(batches),
        "throughput_drop": _drop(facts.speeds),
        "schema_variation": _sum(batches, lambda batch: int(batch.varies)),
        "late_deliveries": Measured(facts.late_deliveries),
    }


def _in_a_row(batches: Sequence[BatchFacts]) -> Measured:
    failed = [*itertools.takewhile(lambda batch: batch.failed, batches)]
    return Measured(len(failed), failed[0].batch_id if failed else None)


def _sum(batches: Iterable[BatchFacts], of: Callable[[BatchFacts], int]) -> Measured:
    counted = [(of(batch), batch.batch_id) for batch in batches if of(batch)]
    return Measured(sum(n for n, _ in counted), counted[0][1] if counted else None)


def _rejected(batches: Sequence[BatchFacts]) -> Measured:
    records = sum(batch.source_records for batch in batches)
    found = _sum(batches, lambda batch: batch.rejected_records)
    return Measured(100 * found.value / records, found.batch_id) if records else Measured(0)


def _drop(speeds: Sequence[Speed]) -> Measured:
    recent, history = speeds[:_RECENT], speeds[_RECENT:]
    known = len(recent) == _RECENT and len(history) >= _LEAST_HISTORY
    if not known or not all(speed.counts for speed in recent):
        return Measured(0)
    usual = statistics.median(speed.rows_per_second for speed in history)
    now = statistics.median(speed.rows_per_second for speed in recent)
    return Measured(max(0.0, 100 * (1 - now / usual)), recent[0].batch_id)
