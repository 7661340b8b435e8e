"""A restore in words, for the terminal and for Dagster's log: counts and names, no values of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batch_pipelines.engine.restoring.restore import Restored


def told(found: Restored, *, dry_run: bool) -> Iterator[str]:
    """Tell what would happen, or what did.

    Args:
        found: The plan, or what was done.
        dry_run: Whether nothing was changed.

    Yields:
        Lines.
    """
    batch, plan = found.batch, found.plan
    if plan is None:
        yield f"{batch.batch_id}  {batch.name}  {batch.status}: its rows are in the tables already"
        return
    done = "" if dry_run else f"  restored: {batch.status}"
    yield f"{batch.batch_id}  {batch.name}{done}"
    yield f"  from {plan.place}"
    for table in plan.tables:
        yield f"  {table.full_name}: {table.rows:,} rows {'would come' if dry_run else 'came'} back"
        for note in table.notes:
            yield f"    note: {note}"
    for obstacle in plan.obstacles:
        yield f"  in the way: {obstacle}"
    if found.refusal is not None:
        yield found.refusal
    elif dry_run:
        yield f"It can be done; the batch would be {plan.status}. A dry run: nothing was changed."
    else:
        yield "Verified, before the commit: they are the rows that had left."
