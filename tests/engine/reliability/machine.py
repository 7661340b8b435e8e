"""One machine for all of it: any course of what can happen to batches ends where a plain model says.

Three partitions of a feed contend for the same keys. Deliveries are loaded, damaged, corrected, sent
again; runs fail and are killed (`machine_runs.py`); records are replayed; batches are taken back, put
away, restored, imported again from their bags; people edit rows and change the table. After each step
all is held against the model, and no state has changed but along an edge that there is.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import pytest
from hypothesis import event
from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    invariant,
    precondition,
    rule,
)

from batch_pipelines.engine.bulk_write import bulk_write
from batch_pipelines.engine.errors import BatchError, RestoreError, RollbackError, ThresholdError
from batch_pipelines.engine.ingest import ingest
from batch_pipelines.engine.ledger import batches
from batch_pipelines.engine.ledger.stages import STAGES
from batch_pipelines.engine.reprocessing import require_source
from batch_pipelines.engine.retention import course as retention
from batch_pipelines.engine.retention import holds
from batch_pipelines.engine.retention.plan import Planner
from batch_pipelines.engine.retention.record import Course
from tests.engine.reliability import machine_holds as holding
from tests.engine.reliability.machine_model import IN_FORCE, Loaded, Row
from tests.engine.reliability.machine_runs import IDS, NAMES, Runs
from tests.engine.restoring.support import bring_back
from tests.support_engine import do_stage, new_id
from tests.support_rollback import take_back

if TYPE_CHECKING:
    from batch_pipelines.engine.ledger.batches import Batch


class Machine(Runs):
    """All that can happen to a table and its batches."""

    # What is done with batches afterwards

    def draw(self, data: st.DataObject, *states: str) -> Loaded | None:
        """Choose a batch in one of some states, if there is any."""
        found = [each for each in self.model.batches.values() if each.status in states]
        names = st.sampled_from([f"{each.key} {number}" for number, each in enumerate(found)])
        return found[int(data.draw(names).split()[1])] if found else None

    @rule(data=st.data(), keep=st.booleans())
    def roll_back(self, data: st.DataObject, keep: bool) -> None:
        """Take a batch back, or find out why not."""
        batch = self.draw(data, *IN_FORCE)
        if batch is None:
            return
        if batch.batch_id in self.held:
            with pytest.raises(RollbackError, match="legal hold"):
                take_back(self.site, batch.batch_id, keep_touched=keep)
            event("not taken back: held")
        elif self.model.take_back(batch, keep=keep):
            take_back(self.site, batch.batch_id, keep_touched=keep)
            event("taken back")
        else:
            with pytest.raises(RollbackError):
                take_back(self.site, batch.batch_id, keep_touched=keep)
            event("not taken back")

    @rule(data=st.data())
    def replay(self, data: st.DataObject) -> None:
        """Load what was set aside, where its cause is gone."""
        batch = self.draw(data, "PARTIAL_SUCCESS")
        if batch is None or self.model.touched(batch):
            return
        fitting = self.model.replay(batch)
        with self.site.work(batch.key) as (connection, work):
            if not fitting:
                with pytest.raises(ThresholdError):
                    bulk_write(connection, work, replay=True)
                event("nothing to replay")
                return
            bulk_write(connection, work, replay=True)
            for stage in STAGES[3:]:
                do_stage(stage, connection, work)
        batch.has_bag = True
        event("replayed")

    @rule(data=st.data())
    def reprocess(self, data: st.DataObject) -> None:
        """Import a batch anew from its bag."""
        found = [
            each for each in self.model.batches.values()
            if each.has_bag and each.status in {"SUPERSEDED", "ROLLED_BACK"}
        ]  # fmt: skip
        if not found:
            return
        origin = found[data.draw(st.integers(0, len(found) - 1))]
        current = self.model.current(origin.key)
        if current is not None and current.records == origin.records:
            return
        self.end(origin.key)
        run_id = new_id()
        batch = self.model.publish(run_id, origin.key, origin.records)
        try:
            with self.site.work(origin.key, run_id) as (connection, work):
                source = require_source(
                    connection, self.site.settings, batches.by_id(connection, origin.batch_id)
                )
                ingest(connection, work, reprocess=source.batch_id)
                for stage in STAGES[1:]:
                    do_stage(stage, connection, work)
        except BatchError:
            assert batch.status == "FAILED"
        else:
            assert batch.status != "FAILED"
            batch.has_bag = True
        event("imported from its bag")

    @rule()
    def retain(self) -> None:
        """Put away what is due and not held; rows that people have touched, as they are."""
        due = [
            each for each in self.model.batches.values()
            if each.status in {"SUCCESS", "PARTIAL_SUCCESS"} and each.has_bag
            and each.batch_id not in self.held
        ]  # fmt: skip
        if not due:
            return
        feeds = {self.site.feed.feed: self.site.feed}
        planner = Planner(feeds, (), dt.datetime.now(dt.UTC))
        run = Course(new_id(), "a test")
        result = retention.Retention(self.site.database, self.site.settings, planner, run).run()
        done = {chunk.batch_id for chunk in result.of_state("DELETED")}
        assert done == {each.batch_id for each in due}, result
        for each in due:
            self.model.put_away(each)
        event(f"put away: {len(done)}")

    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        """Bring back what was put away."""
        batch = self.draw(data, "ARCHIVED")
        if batch is None:
            return
        stored = self.site
        if self.model.bring_back(batch):
            bring_back(stored, self.named(batch))
            event("restored")
        else:
            with pytest.raises(RestoreError):
                bring_back(stored, self.named(batch))
            event("not restored")

    def named(self, batch: Loaded) -> Batch:
        """What the ledger says of a batch."""
        return batches.by_id(self.site.connection, batch.batch_id)

    @rule(data=st.data())
    def hold(self, data: st.DataObject) -> None:
        """Keep a batch from retention, or no more."""
        batch = self.draw(data, *IN_FORCE)
        if batch is None:
            return
        if batch.batch_id in self.held:
            holds.lift_hold(
                self.site.connection, self.held.pop(batch.batch_id), reason="settled", by="a clerk"
            )
        else:
            scope = holds.Scope(batch_id=batch.batch_id)
            found = holds.set_hold(self.site.connection, scope, reason="a case", by="counsel")
            self.held[batch.batch_id] = found.hold_id

    # People

    @precondition(lambda self: self.model.rows)
    @rule(data=st.data(), size=st.integers(10, 12))
    def edit(self, data: st.DataObject, size: int) -> None:
        """Somebody changes a row."""
        number = data.draw(st.sampled_from(sorted(self.model.rows)))
        row = self.model.rows[number]
        self.site.sql("UPDATE t SET size = %s WHERE id = %s", size, number)
        self.model.rows[number] = Row((row.values[0], size), row.stamp)

    @precondition(lambda self: self.model.rows)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        """Somebody deletes a row."""
        number = data.draw(st.sampled_from(sorted(self.model.rows)))
        self.site.sql("DELETE FROM t WHERE id = %s", number)
        del self.model.rows[number]

    @rule(number=IDS, name=NAMES, size=st.integers(10, 12))
    def insert(self, number: int, name: str, size: int) -> None:
        """Somebody types a row in."""
        row = Row((name, size))
        if not self.model.fits({number: row}, self.model.rows):
            return
        self.site.sql("INSERT INTO t (id, name, size) VALUES (%s, %s, %s)", number, name, size)
        self.model.rows[number] = row

    @initialize()
    def begin(self) -> None:
        """A row is there before."""
        self.insert(1, "u", 10)

    # What the table looks like

    @rule()
    def demand_unique_names(self) -> None:
        """Names have to be unique from now on, or need not be any more."""
        if self.model.unique_names:
            self.site.sql("DROP INDEX names")
        else:
            names = [row.values[0] for row in self.model.rows.values()]
            if len(names) != len(set(names)):
                return
            self.site.sql("CREATE UNIQUE INDEX names ON t (name)")
        self.model.unique_names = not self.model.unique_names

    @rule()
    def add_or_drop_column(self) -> None:
        """The table gets a column that no delivery brings, or loses it again."""
        change = "DROP extra" if self.model.has_extra else "ADD extra int DEFAULT 7"
        self.model.has_extra = not self.model.has_extra
        self.site.sql(f"ALTER TABLE t {change}")

    # What must hold

    @invariant()
    def all_is_as_the_model_says(self) -> None:
        """Hold all of it against the model."""
        holding.require_rows(self.site, self.model)
        self.states = holding.require_states(self.site, self.model, self.states)
        holding.require_books(self.site, self.model)
        holding.require_proofs(self.site, self.model)
        holding.require_trail(self.site)
