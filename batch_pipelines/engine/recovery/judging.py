"""Which runs are dead: pure decisions, in which doubt always speaks for the run.

A run that is taken for dead although it lives does no harm to rows or ledger, because it is fenced off.
But it is lost, and so is its work. Not here: what is done about the dead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from batch_pipelines.engine.processes import Life, Process
    from batch_pipelines.engine.recovery.held import Held

# A run of ours writes its process down as the first thing that it does, the embedded server started
# if need be, which takes two minutes at most. One that has not after this has died before it could.
_NAMELESS_SECONDS = 600.0

_GONE = "Its process ({process}) ended without a word."
_LOST = "Its process ended without a word, or lost the database: its lease has expired."
_HANGS = "Its process ({process}) hangs: its lease has expired, and nobody renews it."
_FAILED = "Its run failed between two stages."
_CANCELED = "Its run was cancelled between two stages."
_NAMELESS = "Its process ended before it had begun."


@dataclass(frozen=True)
class SeenRun:
    """A run that is not finished, as Dagster has it.

    Attributes:
        run_id: The run.
        process: Its process; None as long as it has not been written down.
        started: Whether Dagster says that it runs; else it is about to start, or to be cancelled.
        age: Seconds since it changed last.
    """

    run_id: str
    process: Process | None
    started: bool
    age: float


def judge_lease(lease: Held, lives: Life, *, lease_seconds: float) -> str | None:
    """Say whether the run that took a lease is dead.

    Args:
        lease: A lease that was not given back.
        lives: Whether its process lives.
        lease_seconds: How long a lease lives without being renewed, in seconds.

    Returns:
        Why, as a sentence for the ledger; None where the run is or may be alive.
    """
    process = "unknown" if lease.process is None else lease.process.name
    if not lease.locked:
        # Its session is gone: the process with it, or only the connection. The first may be known;
        # else the lease is waited for.
        if lives == "dead":
            return _GONE.format(process=process)
        return _LOST if lease.expired_for > 0 else None
    # Its session is there, and so may be its process, only late: a machine that was asleep renews within
    # a third of the lease of its waking up.
    return _HANGS.format(process=process) if lease.expired_for > lease_seconds / 2 else None


def judge_run(run: SeenRun, lives: Life) -> str | None:
    """Say whether a run that has no lease is dead.

    Args:
        run: A run of ours that is not finished, and has no live lease.
        lives: Whether its process lives; `unknown` where it is not known.

    Returns:
        Why; None where it is or may be alive. A run that waits in the queue has no process, and Dagster
        itself ends one that does not come to start.
    """
    if run.process is not None:
        return _GONE.format(process=run.process.name) if lives == "dead" else None
    return _NAMELESS if run.started and run.age > _NAMELESS_SECONDS else None


def judge_stalled(ended: Literal["failed", "canceled"] | None) -> str | None:
    """Say whether a batch that no run has the lease for was left there.

    Args:
        ended: How its last run ended in Dagster; None where that succeeded, goes on or is not
            known.

    Returns:
        Why; None where its next stage may still be launched.
    """
    if ended is None:
        return None
    return _FAILED if ended == "failed" else _CANCELED
