"""The verdict on a batch: one sentence, what needs somebody, and what nobody has checked."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from batch_pipelines.engine.feeds import NO_TABLE
from batch_pipelines.engine.fidelity import UNPROVEN
from batch_pipelines.engine.ledger.batches import IN_FORCE
from batch_pipelines.engine.ledger.stages import STAGES
from batch_pipelines.engine.reports.page import Attention, Cell, Level
from batch_pipelines.engine.reports.shown import level

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batch_pipelines.engine.reports.batch_facts import BatchFacts

_NAMED = 5
_ORDER: dict[Level, int] = {"bad": 0, "warn": 1, "plain": 2, "good": 3}


def verdict(facts: BatchFacts) -> tuple[Level, str]:
    """Say in one sentence how a batch stands.

    Args:
        facts: What is known of it.

    Returns:
        How good that is, and the sentence. Whatever is wrong makes it `bad`, also where the batch
        itself has succeeded: a damaged bag, or rows that have changed since.
    """
    if any(each.level == "bad" for each in attention(facts)):
        return "bad", _sentence(facts)
    found = level(facts.batch.status)
    # A check that could not be made is no success.
    unverified = any(check.status == "UNVERIFIED" for v in facts.validations for check in v.checks)
    return "warn" if found == "good" and unverified else found, _sentence(facts)


def _sentence(facts: BatchFacts) -> str:
    batch = facts.batch
    if batch.adopted_from is not None:
        return (
            f"It was taken over from {batch.adopted_from}, as job {batch.job_id}: another system "
            "loaded it, and nothing here has read or checked its source."
        )
    if batch.status in {"SUCCESS", "PARTIAL_SUCCESS"}:
        return f"{_loaded(facts)} {_checked(facts)}"
    told = {
        "PUBLISHED": f"{_loaded(facts)} What is loaded is visible, and not validated yet.",
        "VALIDATION_FAILED": f"Its rows are visible, and wrong: {_checked(facts)}",
        "FAILED": f"It failed{_in_stage(facts, 'FAILED')}, and nothing of it is visible.",
        "IN_PROGRESS": f"It is running{_in_stage(facts, 'IN_PROGRESS')}, and nothing of it is visible.",
        "DUPLICATE": _duplicate(facts),
        "SUPERSEDED": f"A corrected delivery has taken its place: batch {batch.superseded_by}.",
        "ROLLED_BACK": f"It was taken back by {batch.rolled_back_by}: {batch.rollback_reason}",
        "ARCHIVED": "Its rows are in its archive, and no longer in their tables.",
    }
    return told[batch.status]


def _in_stage(facts: BatchFacts, status: str) -> str:
    return next((f" in {each.stage}" for each in facts.stages if each.status == status), "")


def _duplicate(facts: BatchFacts) -> str:
    other = facts.duplicate_of
    of = "" if other is None else f" as batch {other.batch_id} ({other.name})"
    now = "" if other is None or other.status in IN_FORCE else f", which is {other.status} now"
    return f"Nothing was done: the same delivery had been loaded already{of}{now}."


def _loaded(facts: BatchFacts) -> str:
    batch = facts.batch
    names = {each.target_table for each in facts.files}
    if not facts.tables and names <= {NO_TABLE}:
        return f"{len(facts.files):,} files were received, and have no rows to load."
    records, written = batch.source_records or 0, batch.written_records or 0
    aside = sum(each.set_aside for each in facts.files)
    without = f" {aside:,} of {len(facts.files):,} files were set aside." if aside else ""
    if not batch.rejected_records:
        skipped = f", {batch.skipped_records:,} of them skipped" if batch.skipped_records else ""
        return f"All {records:,} records were loaded{skipped}.{without}"
    return (
        f"{written:,} of {records:,} records were loaded, and {batch.rejected_records:,} were set "
        f"aside.{without}"
    )


def _checked(facts: BatchFacts) -> str:
    found = [check.status for each in facts.validations for check in each.checks]
    if not found:
        return "No check against the source is recorded."
    failed, unverified = found.count("FAILED"), found.count("UNVERIFIED")
    text = f"{found.count('SUCCESS')} of {len(found)} checks against the source hold"
    if failed:
        text += f", {failed} failed"
    if unverified:
        text += f", {unverified} could not be made"
    return f"{text}."


def attention(facts: BatchFacts) -> tuple[Attention, ...]:
    """List what somebody should look at, the worst first.

    Args:
        facts: What is known of the batch.
    """
    found = [*_of_batch(facts), *_of_evidence(facts), *_of_archive(facts), *_of_alerts(facts)]
    return tuple(sorted(found, key=lambda each: _ORDER[each.level]))


def _of_batch(facts: BatchFacts) -> Iterator[Attention]:
    batch = facts.batch
    partition = f"{shlex.quote(batch.feed)} --batch {shlex.quote(batch.partition_key)}"
    again = f"batch-pipelines import {partition}"
    if batch.status in {"FAILED", "VALIDATION_FAILED"}:
        why = batch.error_details or "The ledger does not say why."
        yield Attention(
            "bad",
            why,
            again if batch.status == "FAILED" else _typed(facts, "rollback", "--dry-run"),
        )
    elif batch.error_details:
        yield Attention("warn", batch.error_details)
    if batch.status == "PUBLISHED":
        yield Attention("warn", "It is visible and not validated.", again)
    if facts.waiting:
        rows = ", ".join(f"{number:,} for {table}" for table, number in facts.waiting.items())
        yield Attention("warn", f"Rows wait and are not visible: {rows}.", again)
    if batch.status in IN_FORCE and batch.rejected_records:
        yield Attention(
            "warn", f"{batch.rejected_records:,} records were set aside.", _typed(facts, "rejects")
        )
    kept = sum(each.kept for each in facts.rollback)
    if kept:
        yield Attention(
            "warn",
            f"{kept:,} rows that were changed since stayed in their tables when it was rolled back.",
        )


def _of_evidence(facts: BatchFacts) -> Iterator[Attention]:
    for each in facts.files:
        if each.problem is not None:
            what = "was set aside" if each.set_aside else "is bad"
            yield Attention(
                "warn" if each.set_aside else "bad", f"File {each.file_name} {what}: {each.problem}"
            )
    invalid = sum(each.invalid for each in facts.checksum_counts)
    if invalid:
        yield Attention(
            "warn",
            f"{invalid:,} checksums were not what was expected when they were taken; see Files.",
        )
    for found in facts.validations:
        for level_, status, told in (
            ("bad", "FAILED", "failed"),
            ("warn", "UNVERIFIED", "could not be made"),
        ):
            names = [check.name for check in found.checks if check.status == status]
            if names:
                yield Attention(
                    "bad" if level_ == "bad" else "warn",
                    f"{found.target_table}: {_listed(names)} {told}.",
                )
    for again in facts.verifications:
        if again.status != "SUCCESS":
            what = (
                "not as it was loaded" if again.status == "FAILED" else "could not be proven again"
            )
            yield Attention(
                "bad" if again.status == "FAILED" else "warn",
                f"{again.target_table} was {what} when it was verified last.", _typed(facts, "verify"),
            )  # fmt: skip


def _of_archive(facts: BatchFacts) -> Iterator[Attention]:
    for each in facts.archives:
        if each.state != "VALID":
            yield Attention(
                "warn" if each.state == "UNVERIFIED" else "bad",
                f"The {'bag' if each.kind == 'bag' else 'bag of rows'} {each.place} is {each.state}"
                + "".join(f"; {problem}" for problem in each.problems[:_NAMED]),
                _typed(facts, "archive verify"),
            )  # fmt: skip
    if facts.batch.status in {"SUCCESS", "PARTIAL_SUCCESS"} and not facts.archives:
        yield Attention("warn", "It has no bag yet.")


def _of_alerts(facts: BatchFacts) -> Iterator[Attention]:
    for each in facts.alerts:
        if each.is_open:
            yield Attention(
                "bad" if each.severity == "critical" else "warn",
                f"Alert {each.alert_id} is open: {each.subject}",
                f"batch-pipelines alerts ack {each.alert_id}",
            )  # fmt: skip


def unchecked(facts: BatchFacts) -> tuple[tuple[Cell, ...], ...]:
    """List what was not checked: what, where and why, one row each.

    Args:
        facts: What is known of the batch.
    """
    return (
        *_unchecked_stages(facts),
        *_unchecked_files(facts),
        *_unchecked_rows(facts),
        *_unchecked_since(facts),
    )


def _unchecked_stages(facts: BatchFacts) -> Iterator[tuple[Cell, ...]]:
    if facts.batch.status == "DUPLICATE" or facts.batch.adopted_from is not None:
        return
    done = {each.stage for each in facts.stages}
    for stage in STAGES:
        if stage not in done:
            yield f"stage {stage}", None, "it did not run"


def _unchecked_files(facts: BatchFacts) -> Iterator[tuple[Cell, ...]]:
    for each in facts.files:
        if each.expected_crc32c is None and not each.expected_digests:
            yield (
                "the file as its sender had it",
                each.file_name,
                "nobody promised a checksum; it is known as it arrived",
            )
        if each.records is None and each.target_table != NO_TABLE and not each.set_aside:
            yield "the number of records", each.file_name, "they were not counted"


def _unchecked_rows(facts: BatchFacts) -> Iterator[tuple[Cell, ...]]:
    for table in facts.tables:
        known = {each.column: each for each in facts.columns.get(table.target_table, ())}
        unproven = [name for name, each in known.items() if each.kind in UNPROVEN]
        for name in dict.fromkeys([*table.filled, *table.server_changed, *unproven]):
            why = known[name].reason if name in known else "no digest covers it"
            yield "whether a column holds what was sent", f"{table.target_table}: {name}", why
    for found in facts.validations:
        for check in found.checks:
            if check.status == "UNVERIFIED":
                yield f"check {check.name}", found.target_table, check.actual
    validated = {each.target_table for each in facts.validations}
    for table in facts.tables:
        if table.target_table not in validated:
            yield (
                "the rows against a second reading of the source",
                table.target_table,
                "it was not validated",
            )


def _unchecked_since(facts: BatchFacts) -> Iterator[tuple[Cell, ...]]:
    verified = {each.target_table for each in facts.verifications}
    if facts.batch.status in IN_FORCE:
        for table in facts.tables:
            if table.target_table not in verified:
                yield (
                    "whether the rows are still those that were loaded",
                    table.target_table,
                    "never verified since",
                )
    for each in facts.archives:
        if each.state == "UNVERIFIED":
            yield "the bag", each.place, "it could not be reached when it was last looked at"
    if facts.batch.status in IN_FORCE and not facts.archives:
        yield "the bag", None, "there is none yet"


def _typed(facts: BatchFacts, command: str, *more: str) -> str:
    return " ".join(["batch-pipelines", command, facts.batch.batch_id[:8], *more])


def _listed(names: list[str]) -> str:
    rest = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
