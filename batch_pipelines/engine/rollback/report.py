"""A rollback in words, for the terminal and for Dagster's log: counts and batches, no values of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batch_pipelines.engine.rollback.plan import Plan
    from batch_pipelines.engine.rollback.takeback import Rollback, RolledBack


def told(found: Rollback, *, dry_run: bool) -> Iterator[str]:
    """Tell what would happen, or what did.

    Args:
        found: The plan, or what was done.
        dry_run: Whether nothing was changed.

    Yields:
        Lines.
    """
    for batch in found.already:
        when = (
            "" if batch.rolled_back_at is None else f" at {batch.rolled_back_at:%Y-%m-%d %H:%M} UTC"
        )
        yield f"{batch.batch_id}  {batch.name}: rolled back already{when} by {batch.rolled_back_by}"
    if dry_run:
        for plan in found.plans:
            yield from _planned(plan)
        if found.refusal is not None:
            yield found.refusal
        elif found.plans:
            yield "It can be done. A dry run: nothing was changed."
        return
    for done in found.done:
        yield from _done(done)


def _planned(plan: Plan) -> Iterator[str]:
    batch = plan.batch
    yield f"{batch.batch_id}  {batch.name}  {batch.status}"
    for each in plan.tables:
        parts = [
            f"{each.delete:,} rows go",
            f"{each.restore:,} get their before-image back",
            f"{each.reinstate:,} of the superseded batch come back",
            f"{each.owned:,} owned rows go with them",
        ]
        counts = (each.delete, each.restore, each.reinstate, each.owned)
        said = [part for part, count in zip(parts, counts, strict=True) if count] or ["nothing"]
        yield f"  {each.target_table}: {', '.join(said)}"
    for obstacle in plan.obstacles:
        yield f"  in the way: {obstacle}"
    if plan.reinstated is not None:
        yield f"  batch {plan.reinstated} is in force again afterwards"
    for note in plan.notes:
        yield f"  note: {note}"


def _done(done: RolledBack) -> Iterator[str]:
    yield f"{done.batch.batch_id}  {done.batch.name}  rolled back"
    for each in done.tables:
        kept = f", {each.kept:,} kept" if each.kept else ""
        yield (
            f"  {each.target_table}: {each.deleted:,} deleted, {each.restored:,} restored, "
            f"{each.reinstated:,} reinstated, {each.owned:,} owned rows deleted{kept}"
        )
        if each.differing:
            yield f"  {each.target_table}: a trigger changed {each.differing:,} rows that came back"
    if done.reinstated is not None:
        yield f"  batch {done.reinstated} is in force again"
