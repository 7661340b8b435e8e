"""What the machine does with deliveries: loaded, refused, corrected, sent again; runs fail and die."""

from __future__ import annotations

from contextlib import ExitStack
from copy import deepcopy
from typing import TYPE_CHECKING

import psycopg
import pytest
from hypothesis import HealthCheck, event
from hypothesis import settings as profile
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    precondition,
    rule,
)

from batch_pipelines.engine.errors import BatchError
from batch_pipelines.engine.failpoints import armed
from batch_pipelines.engine.feed_parts.retention import Retention, Rule
from tests.engine.reliability import machine_holds as holding
from tests.engine.reliability.machine_model import Loaded, Model
from tests.support_engine import Site, feed_of, new_id
from tests.support_process import At, importing

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from batch_pipelines.engine.feeds import Feed
    from tests.engine.reliability.machine_model import Record

DDL = """
CREATE TABLE t (id int PRIMARY KEY, name text, size int, import_batch_id uuid);
CREATE INDEX ON t (import_batch_id);
"""
KEYS = ("a", "b", "c")
IDS = st.integers(1, 6)
NAMES = st.sampled_from("uvwxyz")
RECORDS = st.lists(
    st.tuples(IDS, NAMES, st.sampled_from(["1", "2", "3", "4", "5", "6", "x"])),
    min_size=1,
    max_size=4,
).map(tuple)
# Where a run fails or dies, and whether its rows are visible then.
PLACES = {
    "ingest.copied": False,
    "checksum.read": False,
    "bulk_write.parsed": False,
    "bulk_write.before_check": False,
    "bulk_write.before_fence": False,
    "bulk_write.after_commit": True,
    "archive.written": True,
    "archive.sealed": True,
}
COURSES = profile(
    deadline=None,
    suppress_health_check=[
        HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much,
    ],
)  # fmt: skip


def due_at_once() -> Feed:
    """Make the feed: its rows are due as soon as they are loaded, which no file can say."""
    feed = feed_of({"public.t": "*.csv"}, thresholds={})
    rule = Rule.model_construct(keep="0 days", legal_source="a test", cut_off="completed")
    return feed.model_copy(update={"retention": Retention.model_construct(rows=(rule,))})


def fail(_: object) -> object:
    """Go wrong."""
    raise psycopg.OperationalError("the connection is lost")


class Runs(RuleBasedStateMachine):
    """Deliveries, and the runs that load them."""

    def __init__(self, fresh: Callable[[], AbstractContextManager[Site]]) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.site = self.stack.enter_context(fresh())
        self.model = Model()
        self.landed: dict[str, tuple[Record, ...]] = {}
        self.held: dict[str, int] = {}
        self.states: dict[str, str] = {}
        # Whose bag stands, and the ledger does not know of it until the stage is run again.
        self.sealed: set[str] = set()

    def teardown(self) -> None:
        """Look at all bags, and drop the database."""
        try:
            holding.require_bags(self.site, self.sealed)
        finally:
            self.stack.close()

    # Deliveries and runs

    def deliver(self, key: str, records: tuple[Record, ...]) -> None:
        """Put a delivery into landing."""
        lines = [f"{row_id},{name},{size}\n" for row_id, name, size in records]
        self.site.deliver({"t.csv": "id,name,size\n" + "".join(lines)}, key)
        self.landed[key] = records

    def end(self, key: str) -> None:
        """What every full run does first with what a killed one has left."""
        for each in self.model.batches.values():
            if each.key == key and each.status == "IN_PROGRESS":
                each.status = "FAILED"

    def run(self, key: str, *, force: bool = False) -> None:
        """Run all stages over what lies in landing."""
        run_id = new_id()
        self.end(key)
        records = self.landed[key]
        current = self.model.current(key)
        if current is not None and current.records == records and not force:
            self.model.batches[run_id] = Loaded(run_id, key, "DUPLICATE", records)
            self.site.run(key, run_id=run_id)
            if current.status == "PUBLISHED":
                current.status = "PARTIAL_SUCCESS" if current.rejects else "SUCCESS"
            if current.status != "ARCHIVED":
                current.has_bag = True
            event("duplicate")
            return
        batch = self.model.publish(run_id, key, records)
        if batch.status == "FAILED":
            with pytest.raises(BatchError):
                self.site.run(key, run_id=run_id, force=force)
            event("all set aside")
            return
        self.site.run(key, run_id=run_id, force=force)
        batch.has_bag = True
        event("correction" if batch.before else "import")

    @rule(key=st.sampled_from(KEYS), records=RECORDS)
    def load(self, key: str, records: tuple[Record, ...]) -> None:
        """Import a partition, or correct it."""
        self.deliver(key, records)
        self.run(key)

    @precondition(lambda self: self.landed)
    @rule(data=st.data(), force=st.booleans())
    def load_again(self, data: st.DataObject, force: bool) -> None:
        """Run a partition again, over the same files."""
        self.run(data.draw(st.sampled_from(sorted(self.landed))), force=force)

    @rule(key=st.sampled_from(KEYS), records=RECORDS)
    def load_damaged(self, key: str, records: tuple[Record, ...]) -> None:
        """Import what is not as its sender has promised."""
        current = self.model.current(key)
        if current is not None and current.records == records:
            return  # what is in force already is not looked at
        self.deliver(key, records)
        (self.site.landing(key) / "t.csv.crc32c").write_text("00000000\n")
        run_id = new_id()
        self.end(key)
        self.model.batches[run_id] = Loaded(run_id, key, "FAILED", records)
        with pytest.raises(BatchError):
            self.site.run(key, run_id=run_id)
        (self.site.landing(key) / "t.csv.crc32c").unlink()
        event("damaged")

    @rule(
        key=st.sampled_from(KEYS), records=RECORDS, place=st.sampled_from(sorted(PLACES)),
        killed=st.booleans(),
    )  # fmt: skip
    def load_and_die(self, key: str, records: tuple[Record, ...], place: str, killed: bool) -> None:
        """Import, and lose the connection, or the process, somewhere."""
        current = self.model.current(key)
        if current is not None and current.records == records:
            return
        run_id = new_id()
        # What cannot be loaded as it is is loaded in another way, which does not pass everywhere.
        if deepcopy(self.model).publish(run_id, key, records).rejects:
            return
        self.deliver(key, records)
        self.end(key)
        trial = self.model.publish(run_id, key, records)
        visible = PLACES[place]
        if not visible:
            self.forget(trial)
        if killed:
            with importing(self.site, run_id, at=At(place), key=key) as started:
                assert started.outcome() is None
            trial.status = (
                "IN_PROGRESS" if not visible
                else "PUBLISHED" if place == "bulk_write.after_commit" else trial.status
            )  # fmt: skip
        else:
            try:
                with armed(place, fail):
                    self.site.run(key, run_id=run_id)
            except (BatchError, psycopg.Error):
                trial.status = (
                    "FAILED" if not visible
                    else "PUBLISHED" if place == "bulk_write.after_commit" else trial.status
                )  # fmt: skip
            else:
                assert place == "bulk_write.after_commit"
                trial.has_bag = True
        if place == "archive.sealed":
            self.sealed.add(run_id)
        event(f"{'killed' if killed else 'failed'} at {place}")

    def forget(self, batch: Loaded) -> None:
        """Have a batch not have happened, but for its name."""
        earlier = self.model.batches[batch.before] if batch.before is not None else None
        for number in self.model.of(batch):
            del self.model.rows[number]
        if earlier is not None:
            earlier.status = earlier.state_before
            if earlier.status != "ARCHIVED":
                self.model.rows |= earlier.taken
        batch.rows, batch.before, batch.status = {}, None, "FAILED"
