"""Rows that differ, as a table for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batch_pipelines.cli.show import print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batch_pipelines.engine.ledger.verifications import Difference

# Rows that are shown of a table; --json has more.
_SHOWN = 20


def print_differences(details: Sequence[Difference], total: int) -> None:
    """Print rows that differ, the first of them.

    Args:
        details: Rows by name.
        total: How many differ in all.
    """
    shown = details[:_SHOWN]
    print_table(
        f"Rows that differ, {len(shown)} of {total:,}",
        ["row is", "key", "file", "record", "columns"],
        [[d.kind, _key(d), d.file_name, d.record, _columns(d)] for d in shown],
    )


def _key(row: Difference) -> str | None:
    if row.key is None:
        return None if row.place is None else f"ctid {row.place}"
    return ", ".join(f"{name}={value}" for name, value in row.key.items())


def _columns(row: Difference) -> str | None:
    return None if row.columns is None else ", ".join(row.columns)
