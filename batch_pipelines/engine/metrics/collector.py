"""The metrics of one ledger, as prometheus_client writes them out."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING

import psycopg
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from batch_pipelines.engine.errors import BatchError
from batch_pipelines.engine.ledger import totals
from batch_pipelines.engine.metrics.families import BUCKETS, FAMILIES, PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from batch_pipelines.engine.ledger.totals import Total
    from batch_pipelines.engine.metrics.families import Family
    from batch_pipelines.engine.postgres.database import Connection

_SUCCEEDED = frozenset({"SUCCESS", "PARTIAL_SUCCESS"})


def no_queue() -> Mapping[str, int]:
    """Know of no queue."""
    return {}


class LedgerCollector(Collector):
    """Reads the metrics whenever somebody asks; without a ledger it says so by `batch_pipelines_up`."""

    def __init__(
        self,
        connect: Callable[[], Connection],
        queue: Callable[[], Mapping[str, int]] = no_queue,
    ) -> None:
        """Keep how to get at them.

        Args:
            connect: Opens a connection to the ledger.
            queue: Counts the runs that have not ended, by their state.
        """
        self._connect = connect
        self._queue = queue

    def describe(self) -> Iterable[Metric]:
        """Name no metrics in advance: registering shall not ask the database."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Read the metrics.

        Yields:
            Each with its values.
        """
        began = time.perf_counter()
        try:
            with self._connect() as connection:
                # Where all batches fail, nobody else does it.
                totals.fold_if_allowed(connection)
                found = totals.read(connection)
            runs = self._queue()
        except (psycopg.Error, BatchError):
            yield GaugeMetricFamily(f"{PREFIX}up", "Whether the ledger could be read.", value=0)
            return
        yield GaugeMetricFamily(f"{PREFIX}up", "Whether the ledger could be read.", value=1)
        yield from families_of(found)
        waiting = GaugeMetricFamily(
            f"{PREFIX}runs", "Runs of Dagster that have not ended.", labels=["status"]
        )
        for status, count in sorted(runs.items()):
            waiting.add_metric([status], count)
        yield waiting
        yield GaugeMetricFamily(
            f"{PREFIX}collect_duration_seconds", "Time it took to read all of this.",
            value=time.perf_counter() - began,
        )  # fmt: skip


def families_of(found: Sequence[Total]) -> Iterator[Metric]:
    """Give the ledger's metrics the names by which they are known outside.

    Args:
        found: What the ledger has.

    Yields:
        Each metric with its values; one that never happened has none.
    """
    by_name: dict[str, list[Total]] = {}
    for each in found:
        by_name.setdefault(each.metric, []).append(each)
    for family in FAMILIES:
        own = by_name.get(family.metric, [])
        if family.kind == "histogram":
            yield _histogram(family, own, by_name.get(family.counts or "", []))
            continue
        kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
        metric = kind(PREFIX + family.name, family.help, labels=family.labels)
        for each in own:
            metric.add_metric(_labels(family, each), each.value)
        yield metric
    yield _last_success(by_name.get("batches_ended", []))


def _labels(family: Family, total: Total) -> list[str]:
    feed = [total.feed] if "feed" in family.labels else []
    return [*feed, *total.labels]


def _histogram(family: Family, sums: Iterable[Total], counts: Iterable[Total]) -> Metric:
    metric = HistogramMetricFamily(PREFIX + family.name, family.help, labels=family.labels)
    buckets: dict[tuple[str, ...], dict[str, float]] = {}
    for each in counts:
        *labels, upper = _labels(family, each)
        buckets.setdefault(tuple(labels), {})[upper] = each.value
    for each in sums:
        labels = _labels(family, each)
        own = buckets.get(tuple(labels), {})
        # Each bucket of Prometheus has those below it, too.
        running = itertools.accumulate(own.get(upper, 0.0) for upper in BUCKETS)
        metric.add_metric(labels, [*zip(BUCKETS, running, strict=True)], each.value)
    return metric


def _last_success(ended: Iterable[Total]) -> Metric:
    metric = GaugeMetricFamily(
        f"{PREFIX}last_success_timestamp_seconds",
        "When a batch of the feed last succeeded, if only in part.", labels=["feed"],
    )  # fmt: skip
    newest: dict[str, float] = {}
    for each in ended:
        if each.labels[0] in _SUCCEEDED:
            newest[each.feed] = max(newest.get(each.feed, 0.0), each.changed_at.timestamp())
    for feed, at in sorted(newest.items()):
        metric.add_metric([feed], at)
    return metric
