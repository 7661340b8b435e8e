"""How far each table has come: tracked, adopted or half done, and the one next command for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from batch_pipelines.engine.adoption import records
from batch_pipelines.engine.adoption.adopt import steps_to_adopt
from batch_pipelines.engine.adoption.filling import is_filled
from batch_pipelines.engine.adoption.histories import (
    BATCH_ID,
    History,
    pending,
    read_history,
    unknown_words,
)
from batch_pipelines.engine.adoption.relations import find_column, find_relation
from batch_pipelines.engine.adoption.rows import unknown_rows
from batch_pipelines.engine.adoption.short_locks import Pace
from batch_pipelines.engine.adoption.track import NEW_STAMP, steps_to_track
from batch_pipelines.engine.catalog import STAMP
from batch_pipelines.engine.errors import AdoptionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batch_pipelines.engine.adoption.records import AdoptedRecord, TrackedRecord
    from batch_pipelines.engine.adoption.steps import Step
    from batch_pipelines.engine.postgres.database import Connection


@dataclass(frozen=True)
class Standing:
    """How far a table has come.

    Attributes:
        table: Its name.
        kind: Whether it was tracked, or adopted as an import history.
        state: `done`, `half done`, or `changed` where it no longer is what it was.
        left: What is left to do, or what is wrong.
        next: The one next command; None where there is nothing to do.
    """

    table: str
    kind: Literal["tracked", "adopted"]
    state: Literal["done", "half done", "changed"]
    left: tuple[str, ...]
    next: str | None


def standings(connection: Connection) -> tuple[Standing, ...]:
    """Look at every table that was tracked or adopted.

    Args:
        connection: A connection in autocommit mode.

    Returns:
        How far each has come; nothing of a ledger that is too old to know.
    """
    if not records.are_kept(connection):
        return ()
    return (
        *(_tracked(connection, record) for record in records.tracked(connection)),
        *(_adopted(connection, record) for record in records.adopted(connection)),
    )


def _tracked(connection: Connection, record: TrackedRecord) -> Standing:
    name, command = record.table_name, f"batch-pipelines db track {record.table_name}"
    try:
        relation = find_relation(connection, name)
        stamp = find_column(connection, relation, STAMP)
        converting = find_column(connection, relation, NEW_STAMP) is not None
        steps = steps_to_track(
            connection, relation, convert=converting, pace=Pace(), tell=lambda _: None
        )
    except AdoptionError as error:
        return Standing(name, "tracked", "changed", (str(error),), _forget(name))
    if converting and stamp is not None and stamp.kind == "text":
        command += " --convert"
    if steps:
        return Standing(name, "tracked", "half done", _words(steps), command)
    if stamp is not None and stamp.kind == "text":
        left = f"its stamp is {stamp.type_name}, and feeds write uuid"
        return Standing(name, "tracked", "half done", (left,), f"{command} --convert")
    return Standing(name, "tracked", "done", (), None)


def _adopted(connection: Connection, record: AdoptedRecord) -> Standing:
    name, command = record.table_name, f"batch-pipelines db adopt {record.table_name}"
    try:
        history = read_history(connection, find_relation(connection, name), record.options)
        left = _left(connection, history)
    except AdoptionError as error:
        return Standing(name, "adopted", "changed", (str(error),), _forget(name))
    if left:
        return Standing(name, "adopted", "half done", left, command)
    running = pending(connection, history)[1]
    waiting = (f"{running:,} jobs have not ended",) if running else ()
    return Standing(name, "adopted", "done", waiting, None)


def _left(connection: Connection, history: History) -> tuple[str, ...]:
    """Say what is left to do to a history; what is asked for depends on what was done before."""
    relation = history.relation
    steps = steps_to_adopt(connection, history, pace=Pace(), tell=lambda _: None)
    # Looking for ids that stand twice is done each time, and nothing that is left.
    if changes := [step for step in steps if not step.only_looks]:
        return _words(changes)
    if not is_filled(connection, relation, source=history.job_id, target=BATCH_ID):
        return ("rows have no batch_id",)
    if words := unknown_words(connection, history):
        return (f"words for a state that no rule knows: {', '.join(words)}",)
    if ended := pending(connection, history)[0]:
        return (f"{ended:,} jobs that have ended are not in the ledger",)
    if rows := sum(len(ids) for ids in unknown_rows(connection).values()):
        return (f"rows of {rows:,} batches in tracked tables are not written down",)
    return ()


def _words(steps: Sequence[Step]) -> tuple[str, ...]:
    return tuple(step.what for step in steps)


def _forget(name: str) -> str:
    return f"batch-pipelines db untrack {name} --keep-column"
