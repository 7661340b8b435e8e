"""The report of a feed as a page: how its batches went over time, and the newest of them compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batch_pipelines.engine.reports.charts import Chart, Series, draw
from batch_pipelines.engine.reports.figures import said, share
from batch_pipelines.engine.reports.page import Attention, Column, Fact, Page, Section, Table
from batch_pipelines.engine.reports.trends import compared, compared_table

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterator

    from batch_pipelines.engine.reports.charts import Picture
    from batch_pipelines.engine.reports.feed_facts import FeedFacts, Period, Unit
    from batch_pipelines.engine.reports.page import Level

COMPARED = 20
"""Batches that stand beside each other in a picture."""
_NAMED = 3
_ALL = "All batches of this time, newest first; duplicates are left out"
_WRITTEN: dict[Unit, str] = {
    "hour": "%Y-%m-%d %H:00", "day": "%Y-%m-%d", "week": "%Y-%m-%d", "month": "%Y-%m", "year": "%Y",
}  # fmt: skip
_COUNTED = (
    "A batch counts, with its records, where it began. Success is measured of batches that have ended, "
    "and one that was superseded or archived since counts as it had ended; one that was rolled back is "
    "no success. Duplicates did nothing, and count as batches alone."
)
_FAILED = frozenset({"FAILED", "VALIDATION_FAILED"})


def feed_page(facts: FeedFacts) -> Page:
    """Lay out what is known of a feed.

    Args:
        facts: What the ledger knows.

    Returns:
        The page.
    """
    level, verdict = _verdict(facts)
    return Page(
        kind="Feed report", title=facts.feed, level=level, verdict=verdict, facts=_head(facts),
        attention=tuple(_attention(facts)),
        sections=(
            _over_time(facts), _compared(facts), _failures(facts), _states(facts), _rejects(facts),
        ),
        made_at=facts.made_at, made_by=facts.made_by,
    )  # fmt: skip


def _verdict(facts: FeedFacts) -> tuple[Level, str]:
    if not facts.periods:
        return "plain", "No batch of it began in this time."
    total = facts.total
    if not total.ended:
        return (
            "plain",
            f"{total.batches:,} batches of it began in this time, and none has ended yet.",
        )
    good, ended = total.succeeded, total.ended
    if ended == 1:
        told = f"The one batch that has ended {'succeeded' if good else 'did not succeed'}"
    elif good == ended:
        told = f"All {ended:,} batches that have ended succeeded"
    else:
        told = (
            f"{good:,} of {ended:,} batches that have ended succeeded ({share(good, ended):.2f} %)"
        )
    told += f", {total.partial:,} of them in part" if total.partial else ""
    if facts.batches:
        told += f". The newest, {facts.batches[-1].partition_key}, is {facts.batches[-1].status}"
        if facts.batches[-1].status in _FAILED:
            return "bad", f"{told}."
    whole = good == ended and not total.partial and not any(_attention(facts))
    return ("good" if whole else "warn"), f"{told}."


def _head(facts: FeedFacts) -> tuple[Fact, ...]:
    total = facts.total
    return (
        Fact("Feed", facts.description or facts.feed),
        Fact("From (UTC)", facts.since or _first(facts), "time"),
        Fact("Until, not included (UTC)", facts.until, "time"),
        Fact("Batches", total.batches, "count"),
        Fact("of these ended", total.ended, "count"),
        Fact("and succeeded", total.succeeded, "count"),
        Fact("Success rate", share(total.succeeded, total.ended), "percent"),
        Fact("Records", total.records, "count"),
        Fact("Loaded", total.written, "count"),
        Fact("Set aside", total.rejected, "count"),
        Fact("Set aside, of the records", total.rejected_percent, "percent"),
        Fact("Bytes", total.bytes, "count"),
        Fact("Throughput of bulk_write, records/s", total.records_per_second, "count"),
    )


def _first(facts: FeedFacts) -> dt.datetime | None:
    return facts.batches[0].started_at if facts.batches else None


def _attention(facts: FeedFacts) -> Iterator[Attention]:
    if facts.paused is not None:
        yield Attention(
            "bad",
            f"It is paused since {facts.paused.paused_at:%Y-%m-%d %H:%M:%S %Z}, by "
            f"{facts.paused.paused_by}: {facts.paused.reason}",
            f"batch-pipelines feeds resume {facts.feed}",
        )
    if facts.standing:
        newest = [each.partition_key for each in reversed(facts.standing)]
        rest = len(newest) - _NAMED
        listed = ", ".join(newest[:_NAMED]) + (f" and {rest:,} more" if rest > 0 else "")
        yield Attention(
            "bad", f"Partitions that stand failed, the newest first: {listed}.",
            f"batch-pipelines rerun-failed --feed {facts.feed}",
        )  # fmt: skip
    if facts.open_alerts:
        yield Attention(
            "warn", f"Alerts that nobody has acknowledged: {facts.open_alerts:,}.",
            f"batch-pipelines alerts --open --feed {facts.feed}",
        )  # fmt: skip


def _over_time(facts: FeedFacts) -> Section:
    if facts.unit is None:
        return Section("over-time", "Over time", ("There is nothing to show.",))
    clock = f"on the clocks of {facts.timezone}"
    by = f"By {facts.unit}, {clock}" + (", named by its Monday" if facts.unit == "week" else "")
    names = tuple(f"{each.begins:{_WRITTEN[facts.unit]}}" for each in facts.periods)
    table = Table(
        "periods", f"{by}; the newest first",
        (Column(facts.unit), Column("batches", "count"), Column("ended", "count"),
         Column("succeeded", "count"), Column("in part", "count"), Column("failed", "count"),
         Column("success %", "percent"), Column("records", "count"), Column("loaded", "count"),
         Column("set aside", "count"), Column("set aside %", "percent"), Column("records/s", "count")),
        tuple(
            (name, p.batches, p.ended, p.succeeded, p.partial, p.failed, share(p.succeeded, p.ended),
             p.records, p.written, p.rejected, p.rejected_percent, p.records_per_second)
            for name, p in reversed(list(zip(names, facts.periods, strict=True)))
        ),
    )  # fmt: skip
    alone = f"All of them began in one {facts.unit}." if len(names) == 1 else ""
    pictures = () if alone else _pictures(facts.unit, names, facts.periods)
    return Section("over-time", "Over time", (_COUNTED, *said(alone)), (table,), pictures)


def _pictures(
    unit: Unit, names: tuple[str, ...], periods: tuple[Period, ...]
) -> tuple[Picture, ...]:
    charts = (
        Chart("time-batches", f"Batches by {unit}, by how they went", names, (
            Series("succeeded", "good", tuple(p.whole for p in periods)),
            Series("in part", "partial", tuple(p.partial for p in periods)),
            Series("failed", "bad", tuple(p.failed for p in periods)),
            Series("other", "other", tuple(p.batches - p.succeeded - p.failed for p in periods)),
        )),
        Chart("time-success", f"Success rate by {unit}, % of the batches that have ended", names, (
            Series("% succeeded", "plain", tuple(p.success_percent for p in periods)),
        ), form="line", top=100),
        Chart("time-throughput", f"Throughput of bulk_write by {unit}, records a second", names, (
            Series("records/s", "plain", tuple(p.records_per_second for p in periods)),
        )),
        Chart("time-rejects", f"Set aside by {unit}, % of the records", names, (
            Series("% set aside", "partial", tuple(p.rejected_percent for p in periods)),
        )),
        Chart("time-records", f"Records by {unit}", names, (
            Series("records", "plain", tuple(p.records for p in periods)),
        )),
    )  # fmt: skip
    return tuple(draw(each) for each in charts)


def _compared(facts: FeedFacts) -> Section:
    if not facts.batches:
        return Section("batches", "Batches compared", ("There is none to compare.",))
    newest = facts.batches[-COMPARED:]
    text = f"The pictures show the newest {len(newest)}, from left to right as they began."
    return Section(
        "batches",
        "Batches compared",
        said(text),
        (compared_table(facts.batches, _ALL),),
        compared(newest),
    )


def _failures(facts: FeedFacts) -> Section:
    table = Table(
        "failures", "Newest first",
        (Column("partition"), Column("batch", "code"), Column("try", "count"), Column("state", "state"),
         Column("began", "time"), Column("cause"), Column("why")),
        tuple(
            (b.partition_key, b.batch_id[:8], b.attempt, b.status, b.started_at, b.cause,
             b.error_details)
            for b in facts.failures
        ),
    )  # fmt: skip
    text = "" if table.rows else "None of them has failed."
    return Section("failures", "Batches that failed", said(text), (table,))


def _states(facts: FeedFacts) -> Section:
    table = Table(
        "states", "Batches of this time, by the state they are in now",
        (Column("state", "state"), Column("cause of failure"), Column("batches", "count"),
         Column("newest began", "time")),
        tuple((s.status, s.cause, s.batches, s.newest) for s in facts.states),
    )  # fmt: skip
    return Section("states", "States", said("" if table.rows else "There is none."), (table,))


def _rejects(facts: FeedFacts) -> Section:
    table = Table(
        "rejects", "By their first reason, the most frequent first",
        (Column("table"), Column("column"), Column("reason"), Column("SQLSTATE", "code"),
         Column("constraint"), Column("records", "count"), Column("in batches", "count"),
         Column("loaded since", "count"), Column("newest", "time")),
        tuple(
            (r.target_table, r.column_name, r.message, r.sqlstate, r.constraint_name, r.records,
             r.batches, r.loaded_since, r.newest)
            for r in facts.reasons
        ),
    )  # fmt: skip
    text = "" if table.rows else "Nothing was set aside."
    return Section("rejects", "Why records were set aside", said(text), (table,))
