"""The plan of a restore: what would come back into each table, and what stands in its way.

Counts and names only: a plan is shown in logs, and holds no value of a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from batch_pipelines.engine.errors import RestoreError

if TYPE_CHECKING:
    from batch_pipelines.engine.ledger.batches import Batch

Kind = Literal["partition", "table", "column", "taken", "parent"]


@dataclass(frozen=True)
class Obstacle:
    """Something that stands in the way.

    Attributes:
        kind: `partition`: another batch of it is in force. `table`: it, or its stamp, is gone. `column`:
            one is gone, has another type, or was added and needs a value. `taken`: rows there have the
            same unique key. `parent`: rows refer to ones that are gone.
        table: The table; empty for the partition.
        text: What it is, and what to do about it.
        rows: How many rows of the batch it concerns; 0 where that is all of them.
    """

    kind: Kind
    table: str
    text: str
    rows: int = 0

    def __str__(self) -> str:
        where = f"{self.table}: " if self.table else ""
        return f"{where}{self.text}"


@dataclass(frozen=True)
class TablePlan:
    """What comes back into one table.

    Attributes:
        full_name: The table.
        rows: How many rows.
        notes: What whoever restores should know.
    """

    full_name: str
    rows: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class RestorePlan:
    """What a restore would do.

    Attributes:
        batch: The batch as it is.
        place: Where the bag of its rows stands.
        status: What its state will be.
        tables: Its tables, parents first.
        obstacles: What stands in the way; none where it can be done.
    """

    batch: Batch
    place: str
    status: str
    tables: tuple[TablePlan, ...]
    obstacles: tuple[Obstacle, ...]

    def refusal(self) -> str:
        """Say in a sentence why it cannot be done."""
        found = "; ".join(map(str, self.obstacles))
        return (
            f"Batch {self.batch.batch_id} ({self.batch.name}) cannot be restored, nothing was "
            f"changed: {found}."
        )


class RefusedRestoreError(RestoreError):
    """Something stands in the way of a restore.

    Attributes:
        plan: The plan that says what.
    """

    def __init__(self, plan: RestorePlan) -> None:
        super().__init__(plan.refusal())
        self.plan = plan
