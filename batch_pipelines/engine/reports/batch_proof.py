"""What proves a batch: the balance of its records, and the checks of its rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batch_pipelines.engine.reports.figures import said, seconds
from batch_pipelines.engine.reports.page import Column, Section, Table

if TYPE_CHECKING:
    from batch_pipelines.engine.ledger.proofs import TableBalance
    from batch_pipelines.engine.reports.batch_facts import BatchFacts, Validated


def balance(facts: BatchFacts) -> Section:
    """Lay out how many records there were and what became of each."""
    validated = {each.target_table: each for each in facts.validations}
    rows = tuple(
        (t.target_table, counted, t.source_records, t.inserted, t.updated, t.unchanged, t.rejected,
         t.skipped, t.superseded_within, t.removed, t.erased, t.erased_rejects,
         validated[t.target_table].tgt_records if t.target_table in validated else None,
         _balances(t, counted))
        for t in facts.tables
        for counted in [_counted(facts, t.target_table)]
    )  # fmt: skip
    table = Table(
        "balance",
        "inserted + updated + unchanged + set aside + skipped + superseded within = records",
        (Column("table"), Column("counted in files", "count"), Column("records", "count"),
         Column("inserted", "count"), Column("updated", "count"), Column("unchanged", "count"),
         Column("set aside", "count"), Column("skipped", "count"),
         Column("superseded within", "count"), Column("removed", "count"),
         Column("erased", "count"), Column("erased from what was set aside", "count"),
         Column("rows validated", "count"), Column("balances", "state")),
        rows,
    )  # fmt: skip
    waiting = "".join(
        f" {n:,} rows for {name} wait for validation." for name, n in facts.waiting.items()
    )
    text = (
        "Files are counted by a second, simpler reader that shares no code with the loader; rows "
        "by PostgreSQL. Removed are rows of a batch that this one took the place of; erased, those "
        "that have left it since, for the sake of a person." + waiting
        if rows
        else "No row of it has come as far as a table." + waiting
    )
    return Section("balance", "Balance", (text,), (table,))


def _counted(facts: BatchFacts, table: str) -> int | None:
    found = [part.records for each in facts.files if (part := each.of_table(table)) is not None]
    return None if None in found else sum(number for number in found if number is not None)


def _balances(table: TableBalance, counted: int | None) -> str:
    written = table.inserted + table.updated + table.unchanged
    outcomes = written + table.rejected + table.skipped + table.superseded_within
    if counted is None:
        return "UNVERIFIED"
    return "yes" if outcomes == table.source_records == counted else "no"


def validation(found: tuple[Validated, ...], more: tuple[Table, ...] = ()) -> Section:
    """Lay out what validation found.

    Args:
        found: What it found in each table.
        more: Tables about how it came to that.

    Returns:
        The section, with the statements by which anyone can repeat the checks.
    """
    checks = Table(
        "checks", "Every check, with what the source says and what the table says",
        (Column("check"), Column("table"), Column("expected"), Column("actual"), Column("is", "state"),
         Column("seconds", "number")),
        tuple(
            (c.name, v.target_table, c.expected, c.actual, c.status, c.seconds)
            for v in found for c in v.checks
        ),
    )  # fmt: skip
    rows = Table(
        "rows_compared", "Rows compared singly, where a check failed",
        (Column("table"), Column("only in the source", "count"), Column("only in the table", "count"),
         Column("mismatches", "count"), Column("matches", "count")),
        tuple(
            (v.target_table, v.src_extras, v.tgt_extras, v.mismatches, v.matches)
            for v in found if v.src_extras is not None
        ),
    )  # fmt: skip
    differing = Table(
        "differing_rows", "Rows that differ, by their place in the source; `show` names their keys",
        (Column("row is"), Column("table"), Column("file"), Column("record", "count"),
         Column("columns")),
        tuple(
            (d.kind, v.target_table, d.file_name, d.record, ", ".join(d.columns or ()) or None)
            for v in found for d in v.differing
        ),
    )  # fmt: skip
    text = "" if found else "It was not validated."
    return Section(
        "validation",
        "Validation",
        said(text),
        (checks, rows, differing, *more, _statements(found)),
    )


def _statements(found: tuple[Validated, ...]) -> Table:
    """Give each statement once, with the checks that it answers."""
    answered: dict[str, list[str]] = {}
    for each in found:
        for check in each.checks:
            if check.sql:
                answered.setdefault(check.sql, []).append(f"{each.target_table} {check.name}")
    return Table(
        "statements", "How to repeat the checks, in psql",
        (Column("check"), Column("statement", "code")),
        tuple((", ".join(names), sql) for sql, names in answered.items()),
    )  # fmt: skip


def tries(facts: BatchFacts) -> Table:
    """List each time that a table was validated."""
    return Table(
        "validation_log", "Each time that a table was validated",
        (Column("table"), Column("state", "state"), Column("began", "time"), Column("seconds", "number"),
         Column("why")),
        tuple(
            (v.target_table, v.status, v.started_at, seconds(v.started_at, v.completed_at), v.exception)
            for v in facts.validation_tries
        ),
    )  # fmt: skip
