"""What retention and legal holds have to say of a batch, for `show`."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batch_pipelines.cli.show import say
from batch_pipelines.engine.ledger.batches import IN_FORCE
from batch_pipelines.engine.retention import holds, record

if TYPE_CHECKING:
    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.retention.holds import Hold
    from batch_pipelines.engine.retention.record import Chunk

_FORMAT = "%Y-%m-%d %H:%M:%S"


@dataclass(frozen=True)
class Retained:
    """What holds and retention have done with a batch.

    Attributes:
        holds: The holds over it.
        deleted: What was deleted of it, and where it is now.
    """

    holds: list[Hold]
    deleted: tuple[Chunk, ...]


def retained_of(connection: Connection, batch: Batch) -> Retained:
    """Read what holds and retention have done with a batch."""
    return Retained(
        holds.over(connection, batch.batch_id), record.deleted(connection, batch.batch_id)
    )


def print_standing(batch: Batch, kept: Retained) -> None:
    """Say whether a batch can be rolled back, and what holds keep of it.

    Args:
        batch: The batch; not rolled back.
        kept: Says which holds are over it.
    """
    until = batch.rollback_possible_until
    if batch.status == "ARCHIVED":
        say("its rows are in the archive; restored, it is what it was before")
    elif batch.status in IN_FORCE:
        over = until is not None and until < dt.datetime.now(dt.UTC)
        when = "" if until is None else f" until {until.astimezone().strftime(_FORMAT)}"
        say(f"it {'could' if over else 'can'} be rolled back{when}")
    for hold in kept.holds:
        say(f"under {hold}: no rule deletes anything of it")


def print_retained(kept: Retained) -> None:
    """Say what was deleted of a batch, by which rule, and where it is now."""
    for chunk in kept.deleted:
        when = "" if chunk.ended_at is None else chunk.ended_at.astimezone().strftime(_FORMAT)
        where = "" if chunk.place is None else f"; in {chunk.place}"
        say(
            f"Retention: {chunk.data_class} ({chunk.records:,}) left {when} by the rule {chunk.rule}, "
            f"{chunk.legal_source}{where}"
        )
