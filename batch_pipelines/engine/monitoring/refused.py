"""A rollback that a breach asked for and that could not be done."""

from __future__ import annotations

from batch_pipelines.engine.alerts import Alert


def rollback_refused(event_id: str, batch_id: str, why: str) -> Alert:
    """Make the alert of it.

    Args:
        event_id: The threshold event that asked for it.
        batch_id: The batch that is still visible.
        why: Why it was refused.

    Returns:
        The alert; it also ends the asking.
    """
    return Alert(
        kind="rollback_refused",
        severity="critical",
        subject=f"batch {batch_id[:8]} breached a threshold and could not be rolled back",
        deduplication_key=f"rollback_refused/{event_id}",
        batch_id=batch_id,
        details={"why": why, "next": f"batch-pipelines rollback {batch_id[:8]} --dry-run"},
    )
