"""Any course of imports, corrections and rollbacks leaves what a simple model says.

Two partitions upsert the same parents, and insert children of their own. The model keeps the versions of
each row over each other. A correction takes the superseded batch's out of those that it finds on top,
and remembers them: they come back when the correction is taken back.
"""

from __future__ import annotations

import copy
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
from hypothesis import settings as profile
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from batch_pipelines.engine.ledger.batches import IN_FORCE
from batch_pipelines.engine.rollback.takeback import RefusedError
from tests.engine.rollback.test_course import COURSES, fresh
from tests.support_rollback import planned, take_back, upserting
from tests.support_soak import short_or_long

if TYPE_CHECKING:
    from tests.engine.rollback.test_course import Fresh

__all__ = ["fresh"]

BY_HAND = "by hand"
COLUMNS = {"parents": ("name", "size"), "children": ("parent", "note")}
DEFAULTS: dict[str, dict[str, Any]] = {
    "parents": {"name": None, "size": 5}, "children": {"parent": None, "note": None},
}  # fmt: skip
FIRST = {"a": 10, "b": 20}
Row: TypeAlias = tuple[str, int]
Stack: TypeAlias = list[tuple[str, dict[str, Any]]]


@dataclass
class Model:
    """What is in the tables, and what comes back.

    Attributes:
        rows: Of each row, who wrote which version over which.
        in_force: Partition of each batch in force, the newest last.
        superseded: Of a batch, what it superseded: that one's id, and its rows as they were.
    """

    rows: dict[Row, Stack] = field(default_factory=dict)
    in_force: dict[str, str] = field(default_factory=dict)
    superseded: dict[str, tuple[str, dict[Row, Stack]]] = field(default_factory=dict)
    published: list[str] = field(default_factory=list)

    def publish(self, batch: str, key: str, delivered: dict[Row, dict[str, Any]]) -> None:
        """Load, in place of what is in force."""
        old = next((b for b, k in self.in_force.items() if k == key), None)
        taken: dict[Row, Stack] = {}
        for row, stack in [*self.rows.items()]:
            if old is not None and stack[-1][0] == old:
                taken[row] = copy.deepcopy(stack)
                self.rows[row] = [version for version in stack if version[0] != old]
        for row, values in delivered.items():
            stack = self.rows.setdefault(row, [])
            # What a superseded batch had brought is not there for a correction.
            below = stack[-1][1] if stack else DEFAULTS[row[0]]
            stack.append((batch, {**below, **values}))
        self._sweep()
        if old is not None:
            del self.in_force[old]
            self.superseded[batch] = (old, taken)
        self.in_force[batch] = key
        self.published.append(batch)

    def _sweep(self) -> None:
        """A version of a batch that is superseded is not what a row goes back to."""
        for row, stack in [*self.rows.items()]:
            if not stack:
                del self.rows[row]

    def dependents(self, batch: str) -> set[str]:
        """Who has written over a batch's rows, or where its superseded ones come back."""
        found = set()
        for stack in self.rows.values():
            writers = [writer for writer, _ in stack]
            if batch in writers:
                found |= set(writers[writers.index(batch) + 1 :])
        _, taken = self.superseded.get(batch, (None, {}))
        for row, before in taken.items():
            own = {writer for writer, _ in before}
            now = [writer for writer, _ in self.rows.get(row, [])]
            found |= {writer for writer in now if writer not in own and writer != batch}
        return found & set(self.in_force)

    def take_back(self, batch: str, *, cascade: bool) -> list[str] | None:
        """Take a batch back; tell which went, or None if it cannot be."""
        gone = []
        while above := self.dependents(batch):
            if not cascade:
                return None
            for other in sorted(above, key=self.published.index, reverse=True):
                if other in self.in_force:
                    more = self.take_back(other, cascade=True)
                    assert more is not None
                    gone += more
        old, taken = self.superseded.pop(batch, (None, {}))
        key = self.in_force.pop(batch)
        stacks = [*self.rows.values()]
        stacks += [stack for _, rows in self.superseded.values() for stack in rows.values()]
        for stack in stacks:
            stack[:] = [version for version in stack if version[0] != batch]
        if old is not None:
            self.in_force[old] = key
            for row, before in taken.items():
                # What was below may have been taken back meanwhile.
                self.rows[row] = before
        alive = {BY_HAND, *self.in_force}
        for stack in self.rows.values():
            while stack and stack[-1][0] not in alive:
                stack.pop()
        self._sweep()
        return [*gone, batch]


class Corrections(RuleBasedStateMachine):
    """The real thing beside the model."""

    def __init__(self, fresh: Fresh) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.site = self.stack.enter_context(fresh())
        self.site.feed = upserting(
            self.site.feed,
            {"table": "public.parents", "files": "p*", "write": "upsert"},
            {"table": "public.children", "files": "c*"},
        )
        self.model = Model()
        for number in (1, 2, 3):
            self.model.rows["parents", number] = [(BY_HAND, {"name": BY_HAND, "size": 5})]

    def teardown(self) -> None:
        """Drop the database."""
        self.stack.close()

    @rule(key=st.sampled_from("ab"), data=st.data(), part=st.booleans())
    def load(self, key: str, data: st.DataObject, part: bool) -> None:
        """Import a partition, or correct it."""
        found: dict[Row, dict[str, Any]] = {}
        # Parent 3 is left alone: children refer to it.
        ids = st.lists(st.sampled_from((1, 2, 4, 5)), unique=True, max_size=4)
        for number in data.draw(ids, label="parents"):
            found["parents", number] = {"name": data.draw(st.sampled_from("xyz"))} | (
                {} if part else {"size": data.draw(st.integers(1, 9))}
            )
        for number in data.draw(ids, label="children"):
            found["children", FIRST[key] + number] = {"parent": 3} | (
                {} if part else {"note": data.draw(st.sampled_from("uvw"))}
            )
        files = {}
        for table, letter in (("parents", "p"), ("children", "c")):
            names = COLUMNS[table][:1] if part else COLUMNS[table]
            lines = [",".join(["id", *names])]
            lines += [
                ",".join(map(str, [n, *values.values()]))
                for (t, n), values in found.items()
                if t == table
            ]
            files[f"{letter}.csv"] = "\n".join(lines) + "\n"
        self.site.deliver(files, key)
        batch = self.site.run(key, stages=("ingest", "checksum", "bulk_write"), force=True)
        self.model.publish(batch.batch_id, key, found)

    @precondition(lambda self: self.model.in_force)
    @rule(data=st.data(), cascade=st.booleans())
    def roll_back(self, data: st.DataObject, cascade: bool) -> None:
        """Take a batch back, or find out why not."""
        batch = data.draw(st.sampled_from([*self.model.in_force]))
        expected = copy.deepcopy(self.model)
        gone = expected.take_back(batch, cascade=cascade)
        refusal = planned(self.site, batch, cascade=cascade).refusal
        assert (refusal is None) == (gone is not None), refusal
        if gone is None:
            with pytest.raises(RefusedError):
                take_back(self.site, batch, cascade=cascade)
            return
        done = take_back(self.site, batch, cascade=cascade)
        assert [each.batch.batch_id for each in done.done] == gone
        self.model = expected

    @invariant()
    def tables_are_the_model(self) -> None:
        """Compare rows, stamps and states."""
        for table, names in COLUMNS.items():
            listed = ", ".join(names)
            found = {
                number: (stamp or BY_HAND, tuple(values))
                for number, stamp, *values in self.site.sql(
                    f"SELECT id, import_batch_id::text, {listed} FROM {table}"
                )
            }
            expected = {
                number: (stack[-1][0], tuple(stack[-1][1][name] for name in names))
                for (t, number), stack in self.model.rows.items()
                if t == table
            }
            assert found == expected
        in_force = {b.batch_id for b in self.site.history() if b.status in IN_FORCE}
        assert in_force == set(self.model.in_force)


@pytest.mark.long
@short_or_long("examples", 4, 200)
def test_corrections_and_rollbacks(fresh: Fresh, examples: int) -> None:
    machine: Any = partial(Corrections, fresh)
    run_state_machine_as_test(machine, settings=profile(COURSES, max_examples=examples))
