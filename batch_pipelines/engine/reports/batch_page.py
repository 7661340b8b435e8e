"""The report of a batch as a page: head, verdict, and a section for each kind of evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batch_pipelines.engine.reports import batch_after, batch_course, batch_proof, batch_source
from batch_pipelines.engine.reports.batch_verdict import attention, unchecked, verdict
from batch_pipelines.engine.reports.figures import said
from batch_pipelines.engine.reports.page import Column, Fact, Page, Section, Table

if TYPE_CHECKING:
    from batch_pipelines.engine.reports.batch_facts import BatchFacts


def batch_page(facts: BatchFacts) -> Page:
    """Lay out what is known of a batch.

    Args:
        facts: What the ledger knows.

    Returns:
        The page.
    """
    level, sentence = verdict(facts)
    short = facts.batch.batch_id[:8]
    return Page(
        kind="Batch report", title=facts.batch.name, level=level, verdict=sentence,
        facts=_head(facts), attention=attention(facts),
        sections=(
            _unchecked(facts),
            batch_course.timeline(facts),
            batch_proof.balance(facts),
            batch_source.files(facts),
            batch_course.throughput(facts),
            batch_proof.validation(facts.validations, (batch_proof.tries(facts),)),
            batch_source.rejects(facts, short),
            batch_source.critical_rows(facts),
            batch_source.columns(facts),
            batch_after.alerts(facts),
            batch_after.archive(facts, short),
            batch_after.verified(facts, short),
            batch_after.rollback(facts, short),
            batch_after.events(facts),
        ),
        made_at=facts.made_at, made_by=facts.made_by,
    )  # fmt: skip


def _head(facts: BatchFacts) -> tuple[Fact, ...]:
    batch = facts.batch
    more = [
        Fact("Duplicate of", batch.duplicate_of, "code"),
        Fact("Superseded by", batch.superseded_by, "code"),
        Fact("Rolled back", batch.rolled_back_at, "time"),
        Fact("Adopted from", batch.adopted_from),
    ]
    return (
        Fact("State", batch.status, "state"),
        Fact("Batch", batch.batch_id, "code"),
        Fact("Feed", batch.feed),
        Fact("Partition", batch.partition_key),
        Fact("Attempt", batch.attempt, "count"),
        Fact("Version of the feed", batch.feed_version, "count"),
        Fact("Asked for by", batch.requested_by),
        Fact("Began (UTC)", batch.started_at, "time"),
        Fact("Visible since (UTC)", batch.published_at, "time"),
        Fact("Ended (UTC)", batch.completed_at, "time"),
        Fact("Correlation", batch.correlation_id, "code"),
        *(fact for fact in more if fact.value is not None),
    )


def _unchecked(facts: BatchFacts) -> Section:
    rows = unchecked(facts)
    table = Table(
        "unchecked",
        "What nobody can vouch for",
        (Column("what"), Column("where"), Column("why")),
        rows,
    )
    text = "" if rows else "Nothing that there is to check was left out."
    return Section("unchecked", "What was not checked", said(text), (table,))
