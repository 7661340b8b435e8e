"""Any course of imports, corrections, hand edits and rollbacks leaves what a simple model says.

The model knows nothing of images or digests. It keeps, of each row, the versions that batches and people
have written over each other; taking a batch back takes its versions out.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
from hypothesis import HealthCheck, event
from hypothesis import settings as profile
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from batch_pipelines.engine.errors import RollbackError
from batch_pipelines.engine.ledger.batches import IN_FORCE
from batch_pipelines.engine.ledger.stages import STAGES
from batch_pipelines.engine.rollback.takeback import RefusedError
from tests.support_engine import feed_of
from tests.support_rollback import planned, take_back, upserting
from tests.support_soak import short_or_long

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from tests.engine.conftest import OpenSite
    from tests.support_engine import Site

    Fresh: TypeAlias = Callable[[], AbstractContextManager[Site]]

DDL = """
CREATE TABLE parents (id int PRIMARY KEY, name text, size int DEFAULT 5, import_batch_id uuid);
CREATE TABLE children (id int PRIMARY KEY, parent int REFERENCES parents, note text,
    import_batch_id uuid);
CREATE INDEX ON parents (import_batch_id);
CREATE INDEX ON children (import_batch_id);
INSERT INTO parents (id, name) SELECT n, 'by hand' FROM generate_series(1, 3) AS n;
"""
COLUMNS = {"parents": ("name", "size"), "children": ("parent", "note")}
DEFAULTS: dict[str, dict[str, Any]] = {
    "parents": {"name": None, "size": 5}, "children": {"parent": None, "note": None},
}  # fmt: skip
COURSES = profile(
    stateful_step_count=14,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
KEYS = st.sampled_from("ab")
PUBLISH = st.sampled_from(["direct", "after_validation"])
IDS = st.integers(1, 6)

Values: TypeAlias = dict[str, Any]
Row: TypeAlias = tuple[str, int]


@dataclass(frozen=True)
class Version:
    """A row as somebody wrote it; `batch` is None where it was a person."""

    batch: str | None
    values: Values


@dataclass
class Written:
    """A batch in force.

    Attributes:
        key: Its partition.
        before: What it has superseded: batch id, and all rows as they were.
    """

    key: str
    before: tuple[str, dict[Row, list[Version]]] | None
    rows: set[Row] = field(default_factory=set)


@pytest.fixture(scope="module")
def fresh(open_site: OpenSite) -> Fresh:
    feed = feed_of({"public.parents": "p*", "public.children": "c*"})
    return partial(open_site, DDL, feed)


class Course(RuleBasedStateMachine):
    """Two partitions that upsert the same rows, people, and whoever takes batches back."""

    def __init__(self, fresh: Fresh) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.site = self.stack.enter_context(fresh())
        self.site.feed = upserting(
            self.site.feed,
            {"table": "public.parents", "files": "p*", "write": "upsert"},
            {"table": "public.children", "files": "c*", "write": "upsert"},
        )
        # Of each row, its versions over each other.
        self.rows: dict[Row, list[Version]] = {}
        self.batches: dict[str, Written] = {}
        self.delivered: dict[str, dict[str, str]] = {}

    def teardown(self) -> None:
        """Drop the database."""
        self.stack.close()

    @initialize()
    def begin(self) -> None:
        """Some rows are typed in by hand."""
        for number in (1, 2, 3):
            self.rows["parents", number] = [Version(None, {"name": "by hand", "size": 5})]

    @rule(key=KEYS, data=st.data(), partial_=st.booleans(), publish=PUBLISH)
    def load(self, key: str, data: st.DataObject, partial_: bool, publish: str) -> None:
        """Import a partition, in one step or in two; the first time it is new, later it corrects."""
        if key in {written.key for written in self.batches.values()}:
            return  # a correction is a course of its own, below
        delivered = self._draw(data, partial_=partial_)
        self.site.feed = self.site.feed.model_copy(update={"publish": publish})
        self._publish(key, delivered)

    def _draw(self, data: st.DataObject, *, partial_: bool) -> dict[Row, Values]:
        found: dict[Row, Values] = {}
        for number in data.draw(st.lists(IDS, unique=True, max_size=4), label="parents"):
            found["parents", number] = {"name": data.draw(st.sampled_from("xyz"))} | (
                {} if partial_ else {"size": data.draw(st.integers(1, 9))}
            )
        known = {n for t, n in self.rows if t == "parents"} | {n for _, n in found}
        for number in data.draw(st.lists(IDS, unique=True, max_size=4), label="children"):
            found["children", number] = {"parent": data.draw(st.sampled_from(sorted(known)))} | (
                {} if partial_ else {"note": data.draw(st.sampled_from("uvw"))}
            )
        return found

    def _publish(self, key: str, delivered: dict[Row, Values]) -> None:
        files = {}
        for table, letter in (("parents", "p"), ("children", "c")):
            own = {n: values for (t, n), values in delivered.items() if t == table}
            names = [*next(iter(own.values()))] if own else [*COLUMNS[table]]
            lines = [",".join(["id", *names])]
            lines += [",".join(map(str, [n, *values.values()])) for n, values in own.items()]
            files[f"{letter}.csv"] = "\n".join(lines) + "\n"
        self.site.deliver(files, key)
        batch = self.site.run(key, stages=STAGES[:4], force=True)
        assert batch.rejected_records == 0
        for row, values in delivered.items():
            versions = self.rows.setdefault(row, [])
            below = versions[-1].values if versions else DEFAULTS[row[0]]
            versions.append(Version(batch.batch_id, {**below, **values}))
        self.batches[batch.batch_id] = Written(key, None, set(delivered))

    @rule(row=st.sampled_from(["parents", "children"]), number=IDS, data=st.data())
    def edit(self, row: str, number: int, data: st.DataObject) -> None:
        """Somebody changes a row by hand, in place."""
        if (row, number) not in self.rows:
            return
        column = "size" if row == "parents" else "note"
        value = data.draw(st.integers(10, 19) if row == "parents" else st.sampled_from("klm"))
        self.site.sql(f"UPDATE {row} SET {column} = %s WHERE id = %s", value, number)
        versions = self.rows[row, number]
        if versions[-1].batch is None:
            last = versions.pop()
            versions.append(Version(None, {**last.values, column: value}))
        elif versions[-1].values[column] != value:
            versions.append(Version(None, {**versions[-1].values, column: value}))

    @precondition(lambda self: self.batches)
    @rule(data=st.data(), how=st.sampled_from(["plainly", "cascade", "keep"]))
    def roll_back(self, data: st.DataObject, how: str) -> None:
        """Take a batch back, or find out why not."""
        batch_id = data.draw(st.sampled_from(sorted(self.batches, key=[*self.batches].index)))
        if how == "keep":
            self._keep(batch_id)
            return
        wanted = self._cascade(batch_id) if how == "cascade" else {batch_id}
        free = wanted is not None and self._is_free(wanted)
        assert (planned(self.site, batch_id, cascade=how == "cascade").refusal is None) == free
        if wanted is None or not free:
            with pytest.raises(RefusedError):
                take_back(self.site, batch_id, cascade=how == "cascade")
            return
        event(f"{how}: {len(wanted)} taken back")
        done = take_back(self.site, batch_id, cascade=how == "cascade")
        assert {each.batch.batch_id for each in done.done} == wanted
        for row, versions in [*self.rows.items()]:
            left = [version for version in versions if version.batch not in wanted]
            if left:
                self.rows[row] = left
            else:
                del self.rows[row]
        for each in wanted:
            del self.batches[each]

    def _keep(self, batch_id: str) -> None:
        """Take back what nobody has touched or refers to; the rest is as if typed in by hand."""
        stays = {
            row
            for row, versions in self.rows.items()
            if self._stamp(versions) == batch_id and versions[-1].batch is None
        }
        going = {
            row: [version for version in versions if version.batch != batch_id]
            for row, versions in self.rows.items()
            if row not in stays and self._stamp(versions) == batch_id
        }
        for row in [row for row, left in going.items() if not left]:
            # A child that goes, or goes back, refers to it no more; one that stays does.
            if any(child not in going or child in stays for child in self._children(row)):
                stays.add(row)
        expected = dict(self.rows)
        for row, versions in self.rows.items():
            if row in stays:
                expected[row] = [Version(None, versions[-1].values)]
            elif row in going:
                expected[row] = going[row]
            elif any(version.batch == batch_id for version in versions):
                # Somebody else's now; what a person wrote in between is theirs.
                place = next(n for n, v in enumerate(versions) if v.batch == batch_id)
                by_hand = versions[place + 1].batch is None
                below = [] if by_hand else versions[:place]
                expected[row] = [*below, *versions[place + 1 :]]
        parents = [
            versions[-1].values["parent"]
            for (table, _), versions in expected.items()
            if table == "children" and versions
        ]
        if any(p is not None and not expected.get(("parents", p)) for p in parents):
            with pytest.raises(RollbackError):
                take_back(self.site, batch_id, keep_touched=True)
            return
        event(f"keep: {'some' if stays else 'no'} rows kept")
        done = take_back(self.site, batch_id, keep_touched=True)
        assert sum(t.kept for t in done.done[0].tables) == len(stays)
        self.rows = {row: versions for row, versions in expected.items() if versions}
        del self.batches[batch_id]

    def _cascade(self, batch_id: str) -> set[str] | None:
        """All that have to go with a batch; None where a person is in the way."""
        wanted = {batch_id}
        while True:
            more = set()
            for row, versions in self.rows.items():
                places = [n for n, v in enumerate(versions) if v.batch in wanted]
                if not places:
                    continue
                above = versions[places[0] :]
                if any(version.batch is None for version in above):
                    return None
                more |= {version.batch for version in above if version.batch is not None}
                if not self._survives(row, wanted):
                    for child in self._children(row):
                        writer = self.rows[child][-1].batch
                        if writer is None:
                            return None
                        more.add(writer)
            if more <= wanted:
                return wanted
            wanted |= more

    def _is_free(self, wanted: set[str]) -> bool:
        for row, versions in self.rows.items():
            places = [n for n, version in enumerate(versions) if version.batch in wanted]
            if places and any(v.batch not in wanted for v in versions[places[0] :]):
                return False
            if places and not self._survives(row, wanted):
                for child in self._children(row):
                    # A child that goes as well, or goes back, refers to it no more.
                    if self.rows[child][-1].batch not in wanted:
                        return False
        return all(self._parent_stays(row, wanted) for row in self.rows if row[0] == "children")

    def _parent_stays(self, row: Row, wanted: set[str]) -> bool:
        left = [version for version in self.rows[row] if version.batch not in wanted]
        parent = left[-1].values["parent"] if left else None
        return parent is None or self._survives(("parents", parent), wanted)

    def _survives(self, row: Row, wanted: set[str]) -> bool:
        return any(version.batch not in wanted for version in self.rows.get(row, []))

    def _children(self, row: Row) -> list[Row]:
        if row[0] != "parents":
            return []
        return [
            child
            for child, versions in self.rows.items()
            if child[0] == "children" and versions[-1].values["parent"] == row[1]
        ]

    @invariant()
    def tables_are_the_model(self) -> None:
        """Compare rows, stamps and states with the model."""
        for table, names in COLUMNS.items():
            listed = ", ".join(names)
            found = {
                number: (tuple(values), stamp)
                for number, stamp, *values in self.site.sql(
                    f"SELECT id, import_batch_id::text, {listed} FROM {table}"
                )
            }
            expected = {
                number: (tuple(versions[-1].values[name] for name in names), self._stamp(versions))
                for (t, number), versions in self.rows.items()
                if t == table
            }
            assert found == expected
        in_force = {b.batch_id for b in self.site.history() if b.status in IN_FORCE}
        assert in_force == set(self.batches)

    def _stamp(self, versions: list[Version]) -> str | None:
        # Whoever changes a row by hand leaves the stamp as it is.
        writers = [version.batch for version in versions if version.batch is not None]
        return writers[-1] if writers else None


@pytest.mark.long
@short_or_long("examples", 4, 200)
def test_upserts_hand_edits_and_rollbacks(fresh: Fresh, examples: int) -> None:
    machine: Any = partial(Course, fresh)
    run_state_machine_as_test(machine, settings=profile(COURSES, max_examples=examples))
