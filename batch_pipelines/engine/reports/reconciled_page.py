"""The report of a batch that another system has loaded: what comparing it with its source found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from batch_pipelines.engine.reports.batch_facts import Validated, validated
from batch_pipelines.engine.reports.batch_proof import validation
from batch_pipelines.engine.reports.figures import said, seconds
from batch_pipelines.engine.reports.page import Attention, Column, Fact, Page, Section, Table

if TYPE_CHECKING:
    import datetime as dt

    from batch_pipelines.engine.ledger.reconciliations import LogEntry
    from batch_pipelines.engine.reconciliation.reconcile import Reconciliation
    from batch_pipelines.engine.reports.page import Level

_LEVELS: dict[str, Level] = {"SUCCESS": "good", "FAILED": "bad"}


@dataclass(frozen=True)
class ReconciledFacts:
    """What is known of a batch that another system has loaded, or of several compared together.

    Attributes:
        made_at: When the ledger was read.
        made_by: The program, with its version.
        feed: The feed.
        batches: The other system's ids.
        status: The worst of its tables.
        log: The newest entry of the validation log of each table.
        validations: What was found in each, as far as it could be compared.
    """

    made_at: dt.datetime
    made_by: str
    feed: str
    batches: tuple[str, ...]
    status: str
    log: tuple[LogEntry, ...]
    validations: tuple[Validated, ...]


def reconciled_facts(
    found: Reconciliation, *, made_at: dt.datetime, made_by: str
) -> ReconciledFacts:
    """Take what a report tells of a reconciliation.

    Args:
        found: As the ledger has it.
        made_at: Now.
        made_by: The program, with its version.

    Returns:
        The facts, without keys of rows.
    """
    return ReconciledFacts(
        made_at, made_by, found.feed, found.batches, found.status,
        tuple(table.log for table in found.tables),
        tuple(validated(table.found) for table in found.tables if table.found is not None),
    )  # fmt: skip


def reconciled_page(facts: ReconciledFacts) -> Page:
    """Lay out what is known of a batch that another system has loaded.

    Args:
        facts: What the ledger knows.

    Returns:
        The page.
    """
    checks = [check.status for each in facts.validations for check in each.checks]
    failed, unverified = checks.count("FAILED"), checks.count("UNVERIFIED")
    told = f"{checks.count('SUCCESS')} of {len(checks)} checks against the source hold"
    told += f", {failed} failed" if failed else ""
    told += f", {unverified} could not be made" if unverified else ""
    unread = [each for each in facts.log if each.status in {"UNVERIFIED", "IN_PROGRESS"}]
    log = Table(
        "validation_log", "The last comparison of each table",
        (Column("table"), Column("state", "state"), Column("batches in it"), Column("began", "time"),
         Column("seconds", "number"), Column("asked for by"), Column("why")),
        tuple(
            (each.target_table, each.status, ", ".join(each.batches), each.started_at,
             seconds(each.started_at, each.completed_at), each.requested_by, each.exception)
            for each in facts.log
        ),
    )  # fmt: skip
    left_out = Table(
        "unchecked", "What nobody can vouch for", (Column("what"), Column("where"), Column("why")),
        (
            *(("the table", each.target_table, each.exception) for each in unread),
            *((f"check {check.name}", each.target_table, check.actual)
              for each in facts.validations for check in each.checks if check.status == "UNVERIFIED"),
        ),
    )  # fmt: skip
    return Page(
        kind="Reconciliation report",
        title=f"{facts.feed}/{', '.join(facts.batches)}",
        level=_LEVELS.get(facts.status, "warn"),
        verdict=f"Another system has loaded it; {told}.",
        facts=(
            Fact("State", facts.status, "state"),
            Fact("Feed", facts.feed),
            Fact("Batches of the other system", ", ".join(facts.batches)),
        ),
        attention=tuple(
            Attention(
                "bad" if each.status == "FAILED" else "warn",
                f"{each.target_table} is {each.status}: {each.exception}",
            )
            for each in facts.log
            if each.status != "SUCCESS"
        ),
        sections=(
            Section(
                "unchecked", "What was not checked",
                said("" if left_out.rows else "Nothing that there is to check was left out."),
                (left_out,),
            ),
            validation(facts.validations, (log,)),
        ),
        made_at=facts.made_at,
        made_by=facts.made_by,
    )  # fmt: skip
