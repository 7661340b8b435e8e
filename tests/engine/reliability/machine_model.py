"""What must be in a table, in plain Python: all that is loaded, corrected, edited, taken back, put away.

The model knows nothing of digests, images, leases or bags. It keeps the rows of one table, and of each
batch what it has published, what was set aside, and the rows that its correction took out.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TypeAlias

IN_FORCE = {"PUBLISHED", "SUCCESS", "PARTIAL_SUCCESS", "VALIDATION_FAILED"}
EDGES = {
    None: {"IN_PROGRESS", "PUBLISHED", "SUCCESS", "PARTIAL_SUCCESS", "FAILED", "DUPLICATE"},
    "IN_PROGRESS": {"FAILED", "PUBLISHED", "SUCCESS", "PARTIAL_SUCCESS"},
    "FAILED": {"PUBLISHED", "SUCCESS", "PARTIAL_SUCCESS"},
    "PUBLISHED": {"SUCCESS", "PARTIAL_SUCCESS", "SUPERSEDED", "ROLLED_BACK"},
    "SUCCESS": {"SUPERSEDED", "ROLLED_BACK", "ARCHIVED"},
    "PARTIAL_SUCCESS": {"SUCCESS", "SUPERSEDED", "ROLLED_BACK", "ARCHIVED"},
    "SUPERSEDED": {"PUBLISHED", "SUCCESS", "PARTIAL_SUCCESS", "ARCHIVED"},
    "ARCHIVED": {"SUCCESS", "PARTIAL_SUCCESS", "SUPERSEDED"},
    "DUPLICATE": set(),
    "ROLLED_BACK": set(),
}
"""From each state of a batch, those that one step of a course may lead to."""
Values: TypeAlias = tuple[str, int]
"""Name and size."""
Record: TypeAlias = tuple[int, str, str]
"""Id, name and size, as delivered."""


@dataclass(frozen=True)
class Row:
    """A row.

    Attributes:
        values: What it holds.
        stamp: The batch that it says it is of.
    """

    values: Values
    stamp: str | None = None


@dataclass
class Loaded:
    """A batch.

    Attributes:
        batch_id: Its id.
        key: Its partition.
        status: Its state.
        records: What was delivered.
        rows: What it has published, by id.
        rejects: What was set aside, and why, by the number of the record.
        before: The batch that it has superseded.
        taken: Rows as they were when a correction, or retention, took them out of the table.
        with_extra: Whether they were taken with a column more.
        state_before: What a rollback or a restore makes it again.
        has_bag: Whether it was archived.
    """

    batch_id: str
    key: str
    status: str
    records: tuple[Record, ...] = ()
    rows: dict[int, Values] = field(default_factory=dict)
    rejects: dict[int, str] = field(default_factory=dict)
    before: str | None = None
    taken: dict[int, Row] = field(default_factory=dict)
    with_extra: bool = False
    state_before: str = ""
    has_bag: bool = False


@dataclass
class Model:
    """A table, and all batches of it.

    Attributes:
        rows: The table, by id.
        batches: Every batch, oldest first.
        unique_names: Whether a name may stand once only.
        has_extra: Whether the table has a column that no delivery brings.
    """

    rows: dict[int, Row] = field(default_factory=dict)
    batches: dict[str, Loaded] = field(default_factory=dict)
    unique_names: bool = False
    has_extra: bool = False

    def current(self, key: str) -> Loaded | None:
        """The batch of a partition that a new one supersedes."""
        standing = [
            each for each in self.batches.values()
            if each.key == key and each.status in {*IN_FORCE, "ARCHIVED"}
        ]  # fmt: skip
        return standing[-1] if standing else None

    def of(self, batch: Loaded) -> dict[int, Row]:
        """The rows that carry a batch's stamp."""
        return {n: row for n, row in self.rows.items() if row.stamp == batch.batch_id}

    def touched(self, batch: Loaded) -> set[int]:
        """The rows of a batch that somebody has changed, deleted or replaced."""
        return {
            n for n, values in batch.rows.items()
            if self.rows.get(n) != Row(values, batch.batch_id)
        }  # fmt: skip

    def judge(
        self, records: tuple[Record, ...], others: dict[int, Row], among: set[int]
    ) -> tuple[dict[int, Values], dict[int, str]]:
        """Say which of some records are loaded beside other rows, and why the rest is not."""
        good: dict[int, Values] = {}
        rejects: dict[int, str] = {}
        names = {row.values[0] for row in others.values()} if self.unique_names else set()
        for number, (row_id, name, size) in enumerate(records, 1):
            if number not in among:
                continue
            if not size.isdecimal():
                rejects[number] = "22P02"
            elif (
                row_id in others
                or name in names
                or row_id in good
                or (self.unique_names and any(values[0] == name for values in good.values()))
            ):
                rejects[number] = "23505"
            else:
                good[row_id] = (name, int(size))
        return good, rejects

    def publish(self, batch_id: str, key: str, records: tuple[Record, ...]) -> Loaded:
        """Load a delivery, in place of the one before; where all is set aside, it fails."""
        earlier = self.current(key)
        out = self.of(earlier) if earlier is not None else {}
        others = {n: row for n, row in self.rows.items() if n not in out}
        good, rejects = self.judge(records, others, set(range(1, len(records) + 1)))
        batch = Loaded(batch_id, key, "FAILED", records, rejects=rejects)
        self.batches[batch_id] = batch
        if records and not good:
            return batch
        batch.rows = good
        batch.status = "PARTIAL_SUCCESS" if rejects else "SUCCESS"
        if earlier is not None:
            batch.before = earlier.batch_id
            earlier.state_before = earlier.status
            if earlier.status != "ARCHIVED":
                earlier.taken, earlier.with_extra = out, self.has_extra
            earlier.status = "SUPERSEDED"
        self.rows = others | {n: Row(values, batch_id) for n, values in good.items()}
        return batch

    def take_back(self, batch: Loaded, *, keep: bool) -> bool:
        """Take a batch out, if that can be done; with `keep`, what somebody has changed stays.

        What somebody has deleted, or replaced by a row of their own, is gone already.
        """
        touched = self.touched(batch) & set(self.of(batch))
        if touched and not keep:
            return False
        left = {
            n: replace(row, stamp=None) if row.stamp == batch.batch_id else row
            for n, row in self.rows.items()
            if row.stamp != batch.batch_id or n in touched
        }
        earlier = self.batches[batch.before] if batch.before is not None else None
        back = {}
        if earlier is not None and earlier.state_before != "ARCHIVED":
            back = earlier.taken
            if back and earlier.with_extra and not self.has_extra:
                return False
        if not self.fits(back, left):
            return False
        self.rows = left | back
        batch.status = "ROLLED_BACK"
        if earlier is not None:
            earlier.status = earlier.state_before
        return True

    def replay(self, batch: Loaded) -> int:
        """Load what was set aside and fits now; say how many."""
        good, left = self.judge(batch.records, self.rows, set(batch.rejects))
        batch.rows |= good
        batch.rejects = left
        self.rows |= {n: Row(values, batch.batch_id) for n, values in good.items()}
        if good:
            batch.status = "PARTIAL_SUCCESS" if left else "SUCCESS"
        return len(good)

    def put_away(self, batch: Loaded) -> None:
        """Move a batch's rows into the archive."""
        batch.taken, batch.with_extra = self.of(batch), self.has_extra
        batch.state_before, batch.status = batch.status, "ARCHIVED"
        for number in batch.taken:
            del self.rows[number]

    def bring_back(self, batch: Loaded) -> bool:
        """Restore a batch, if nothing stands in the way, and no column of its rows is gone."""
        if not self.fits(batch.taken, self.rows) or (batch.with_extra and not self.has_extra):
            return False
        self.rows |= batch.taken
        batch.status = batch.state_before
        return True

    def fits(self, back: dict[int, Row], left: dict[int, Row]) -> bool:
        """Say whether rows may stand beside others."""
        if set(back) & set(left):
            return False
        names = [row.values[0] for row in [*back.values(), *left.values()]]
        return not self.unique_names or len(names) == len(set(names))
