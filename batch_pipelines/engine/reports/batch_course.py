"""How a batch went: its stages and runs, how fast it was, and the batches before it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batch_pipelines.engine.reports.charts import Span, draw_timeline
from batch_pipelines.engine.reports.figures import rate, said, seconds
from batch_pipelines.engine.reports.page import Column, Section, Table
from batch_pipelines.engine.reports.trends import LOOKS, compared, compared_table

if TYPE_CHECKING:
    from batch_pipelines.engine.reports.batch_facts import BatchFacts


_MEGABYTE = 1e6


def timeline(facts: BatchFacts) -> Section:
    """Lay out when each stage began and ended, and the runs."""
    spans = tuple(
        Span(s.stage, LOOKS.get(s.status, "other"), s.started_at, s.completed_at)
        for s in facts.stages
    )
    stages = Table(
        "stages", "The last try of each stage",
        (Column("stage"), Column("state", "state"), Column("began", "time"), Column("ended", "time"),
         Column("seconds", "number"), Column("run", "code"), Column("why")),
        tuple(
            (s.stage, s.status, s.started_at, s.completed_at, seconds(s.started_at, s.completed_at),
             s.run_id[:8], s.error_details)
            for s in facts.stages
        ),
    )  # fmt: skip
    runs = Table(
        "runs", "Dagster runs that worked on it", (Column("run", "code"), Column("since", "time")),
        tuple((run.run_id, run.attached_at) for run in facts.runs),
    )  # fmt: skip
    pictures = (
        (
            draw_timeline(
                "timeline-picture", "Stages, from the first one's beginning", spans, facts.made_at
            ),
        )
        if spans
        else ()
    )
    text = "" if spans else "No stage is recorded."
    return Section("timeline", "Timeline", said(text), (stages, runs), pictures)


def throughput(facts: BatchFacts) -> Section:
    """Lay out how fast the stages were, and the batches before it."""
    size = sum(each.size for each in facts.files)
    records = facts.batch.source_records
    timed = [(s.stage, seconds(s.started_at, s.completed_at)) for s in facts.stages]
    table = Table(
        "throughput", "Each stage over all files and records",
        (Column("stage"), Column("seconds", "number"), Column("MB/s", "number"),
         Column("records/s", "count")),
        tuple(
            (stage, seconds, rate(size / _MEGABYTE, seconds), rate(records, seconds))
            for stage, seconds in timed
        ),
    )  # fmt: skip
    wal = facts.volume.wal_bytes
    text = "" if wal is None else (
        f"{size:,} bytes were read; meanwhile PostgreSQL wrote {wal:,} bytes of write-ahead log, that "
        "of its other work included."
    )  # fmt: skip
    if not facts.recent:
        return Section("throughput", "Throughput", said(text), (table,))
    return Section(
        "throughput", "Throughput, and the batches before it", said(text),
        (table, compared_table(facts.recent)), compared(facts.recent, marked=facts.batch.batch_id),
    )  # fmt: skip
