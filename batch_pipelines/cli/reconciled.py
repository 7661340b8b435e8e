"""What is known of batches that another system has loaded, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batch_pipelines.cli.differences import print_differences
from batch_pipelines.cli.show import complain, print_table, say

if TYPE_CHECKING:
    from batch_pipelines.engine.ledger.proofs import TableValidation
    from batch_pipelines.engine.reconciliation.reconcile import Reconciliation


def print_reconciliation(found: Reconciliation) -> None:
    """Print what is known of a batch that another system has loaded.

    Args:
        found: What was found.
    """
    before = "" if found.worked else ", as found before"
    names = found.batches[0] if len(found.batches) == 1 else f"{len(found.batches)} batches"
    say(f"{found.feed}/{names}: {found.status}{before if found.tables else ''}")
    if found.exception is not None:
        complain(found.exception)
    for table in found.tables:
        if table.found is not None:
            _print_table(table.found)
        elif table.log.exception is not None:
            say(f"  {table.log.target_table}: {table.log.exception}")


def _print_table(found: TableValidation) -> None:
    say(
        f"  {found.target_table}: {found.tgt_records:,} rows, {found.src_records:,} in the source, "
        f"{len(found.checks)} checks"
    )
    if failed := [check for check in found.checks if check.status != "SUCCESS"]:
        print_table(
            "Checks that did not pass",
            ["check", "status", "expected", "actual"],
            [[c.name, c.status, c.expected, c.actual] for c in failed],
        )
    if (rows := found.rows) and rows.details:
        print_differences(rows.details, rows.src_extras + rows.tgt_extras + rows.mismatches)
