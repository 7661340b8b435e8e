"""What happens to batches, line by line as it happens."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import psycopg

from batch_pipelines.cli.beside import beside
from batch_pipelines.engine.errors import BatchError
from batch_pipelines.engine.ledger import batches

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Mapping
    from contextlib import AbstractContextManager

    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.postgres.database import Database

_INTERVAL_SECONDS = 1.0
# Older ones change only when somebody asks for it, and that tells them.
_NEWEST = 200
# Of an error, the terminal gets the beginning; `show` has all of it.
_LONGEST = 300
_SHOWN = frozenset({"FAILED", "VALIDATION_FAILED", "PARTIAL_SUCCESS"})


def changes(before: Mapping[str, str], now: Iterable[Batch]) -> list[tuple[Batch, str]]:
    """Find which batches have another state than before; of those between publish and validate, nothing.

    Args:
        before: The state of each batch, by its id.
        now: The batches, newest first.

    Returns:
        Those that are new or have changed, oldest first, each with what is to be said of it.
    """
    return [
        (batch, _told(batch))
        for batch in reversed([*now])
        if before.get(batch.batch_id) != batch.status and batch.status != "PUBLISHED"
    ]


def _told(batch: Batch) -> str:
    parts: list[str] = []
    if batch.status == "IN_PROGRESS":
        again = f", attempt {batch.attempt}" if batch.attempt > 1 else ""
        parts.append(f"by {batch.requested_by}{again}")
    elif batch.status in batches.IN_FORCE and batch.written_records is not None:
        parts.append(f"{batch.written_records:,} records written")
        if batch.rejected_records:
            parts.append(f"{batch.rejected_records:,} set aside")
    elif batch.status == "ROLLED_BACK":
        parts.append(f"by {batch.rolled_back_by}, {batch.rollback_reason}")
    elif batch.status == "FAILED" and batch.error_details:
        why = " ".join(batch.error_details.split()).removeprefix(f"{batch.name}: ")
        parts.append(why if len(why) <= _LONGEST else f"{why[: _LONGEST - 3]}...")
    if batch.status in _SHOWN:
        parts.append(f"batch-pipelines show {batch.name}")
    return "; ".join(parts)


def following(
    database: Database, tell: Callable[[Batch, str], None]
) -> AbstractContextManager[None]:
    """Tell of each change of a batch, for as long as the block lasts.

    Args:
        database: The target database.
        tell: Told a batch that has changed, and what is to be said of it.
    """
    return beside("following", functools.partial(_follow, database, tell))


def _follow(database: Database, tell: Callable[[Batch, str], None], over: threading.Event) -> None:
    known: dict[str, str] | None = None
    while not over.is_set():
        try:
            with database.connect("dev") as connection:
                while not over.wait(_INTERVAL_SECONDS):
                    now = batches.history(connection, limit=_NEWEST)
                    if known is not None:
                        for batch, text in changes(known, now):
                            tell(batch, text)
                    known = {batch.batch_id: batch.status for batch in now}
        except (psycopg.Error, BatchError):
            # A database that is away, or has no ledger yet: whoever needs it says so.
            over.wait(_INTERVAL_SECONDS)
