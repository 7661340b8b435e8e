"""What came after a batch: alerts, its archive, proofs made again, rollback, the audit trail."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from batch_pipelines.engine.ledger.batches import IN_FORCE
from batch_pipelines.engine.reports.figures import said
from batch_pipelines.engine.reports.page import Column, Section, Table

if TYPE_CHECKING:
    from batch_pipelines.engine.reports.batch_facts import BatchFacts, EventLine

# Whole rows and their digests, which tell people nothing that is not elsewhere on the page.
_FOR_REBUILDING = frozenset({"history", "root"})


def alerts(facts: BatchFacts) -> Section:
    """Lay out the alerts, and who acknowledged them."""
    table = Table(
        "alerts", "Alerts about it",
        (Column("alert", "code"), Column("severity", "state"), Column("subject"),
         Column("raised", "time"),
         Column("told"), Column("acknowledged", "time"), Column("by"), Column("note"),
         Column("resolved", "time")),
        tuple(
            (str(a.alert_id), a.severity, a.subject, a.raised_at, ", ".join(a.deliveries) or None,
             a.acknowledged_at, a.acknowledged_by, a.acknowledgement_note, a.resolved_at)
            for a in facts.alerts
        ),
    )  # fmt: skip
    return Section("alerts", "Alerts", said("" if facts.alerts else "There was none."), (table,))


def archive(facts: BatchFacts, short: str) -> Section:
    """Lay out the bags, and what was found of them."""
    table = Table(
        "bags", "Its bags",
        (Column("bag", "code"), Column("holds"), Column("is", "state"), Column("files", "count"),
         Column("bytes", "count"), Column("read whole and found right", "time"),
         Column("looked at", "time"),
         Column("SHA-256 of its tag manifest", "code"), Column("problems")),
        tuple(
            (b.place, "rows of tables" if b.kind == "rows" else "what was delivered", b.state,
             b.payload_files, b.payload_bytes, b.verified_at, b.checked_at, b.tagmanifest_sha256,
             "; ".join(b.problems) or None)
            for b in facts.archives
        ),
    )  # fmt: skip
    if not facts.archives:
        return Section("archive", "Archive", ("It has no bag.",))
    return Section(
        "archive", "Archive", (), (table,), commands=(f"batch-pipelines archive verify {short}",)
    )


def verified(facts: BatchFacts, short: str) -> Section:
    """Lay out what was found when the rows were proven again."""
    table = Table(
        "verifications", "What was found last",
        (Column("table"), Column("is", "state"), Column("when", "time"),
         Column("rows expected", "count"),
         Column("rows found", "count"), Column("replaced since", "count"), Column("changed", "count"),
         Column("missing", "count"), Column("added", "count"), Column("twice", "count"),
         Column("columns that no digest covers"), Column("why")),
        tuple(
            (v.target_table, v.status, v.started_at, v.expected_rows, v.actual_rows, v.replaced,
             v.changed, v.missing, v.added, v.duplicated, ", ".join(v.not_covered) or None, v.exception)
            for v in facts.verifications
        ),
    )  # fmt: skip
    commands = (f"batch-pipelines verify {short}",) if facts.batch.status in IN_FORCE else ()
    text = "" if facts.verifications else "Its rows were not proven again since they were loaded."
    return Section("verified", "Proven again", said(text), (table,), commands=commands)


def rollback(facts: BatchFacts, short: str) -> Section:
    """Lay out how it was taken back, or whether it can be."""
    batch = facts.batch
    table = Table(
        "rollback", "What was done in each table, in rows",
        (Column("table"), Column("deleted", "count"), Column("restored", "count"),
         Column("reinstated", "count"), Column("owned", "count"), Column("kept", "count"),
         Column("differing", "count")),
        tuple(
            (t.target_table, t.deleted, t.restored, t.reinstated, t.owned, t.kept, t.differing)
            for t in facts.rollback
        ),
    )  # fmt: skip
    if batch.rolled_back_at is not None:
        text = f"By {batch.rolled_back_by}: {batch.rollback_reason}"
        return Section("rollback", "Rollback", (text,), (table,))
    if batch.status not in IN_FORCE:
        return Section("rollback", "Rollback", ("There is nothing of it to take back.",))
    until = batch.rollback_possible_until
    limit = "" if until is None else f", until {until:%Y-%m-%d %H:%M} UTC"
    text = f"It was not rolled back, and can be{limit}."
    return Section(
        "rollback", "Rollback", (text,), commands=(f"batch-pipelines rollback {short} --dry-run",)
    )


def events(facts: BatchFacts) -> Section:
    """Lay out who did what to it, and where that stands in the chain."""
    found, end = facts.events, facts.chain_end
    table = Table(
        "events",
        "Entries of the audit trail about it; what they keep for rebuilding is in the JSON form alone",
        (Column("entry", "count"), Column("when", "time"), Column("who"), Column("what"),
         Column("is", "state"), Column("details", "code"), Column("SHA-256", "code")),
        tuple(
            (e.seq, e.created_at, e.principal_id, e.action, e.status, _details(e), e.hash)
            for e in found
        ),
    )  # fmt: skip
    own = (
        f"{len(found)} entries, from {found[0].seq:,} to {found[-1].seq:,}" if found else "No entry"
    )
    chain = Table(
        "chain_end", "The end of the whole chain when this report was made",
        (Column("ledger", "code"), Column("entry", "count"), Column("chained", "time"),
         Column("SHA-256", "code")),
        ((end.ledger_id, end.seq, end.at, end.hash),),
    )  # fmt: skip
    text = (
        f"{own} of the chain. Each entry's SHA-256 covers the entry before it: while the chain has at "
        "the entry that is named as its end the SHA-256 that stands here, nothing before it has been "
        "changed since this report was made. The command checks all of it."
    )
    return Section(
        "events",
        "Audit trail",
        (text, *_of_records(facts)),
        (table, chain),
        commands=("batch-pipelines verify --audit",),
    )


def _details(event: EventLine) -> str | None:
    told = {name: value for name, value in event.details.items() if name not in _FOR_REBUILDING}
    return json.dumps(told, ensure_ascii=False) if told else None


def _of_records(facts: BatchFacts) -> tuple[str, ...]:
    said = [e.details for e in facts.events if e.action == "batch.rows.recorded"]
    if not said:
        return ()
    root: Any = said[-1]["row_event"]
    text = (
        f"{root['rows']:,} records have an entry each in row_event, by {said[-1]['principals']} people "
        "as they were delivered, which nobody has proven. The root of the batch's details covers them: "
        f"SHA-256 {root['sha256']}."
    )
    return (text,)
