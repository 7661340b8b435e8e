"""What is attacked: courses that together take every step that changes tables, ledger or files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from batch_pipelines.engine.archive import archive
from batch_pipelines.engine.bulk_write import bulk_write
from batch_pipelines.engine.ledger.stages import STAGES
from batch_pipelines.engine.recovery.cancelling import cancel
from batch_pipelines.engine.validate import require_valid, validate
from tests.support_engine import KEY, Site, do_stage, feed_of
from tests.support_rollback import take_back

if TYPE_CHECKING:
    from collections.abc import Callable

    from batch_pipelines.engine.feeds import Feed

DDL = """
CREATE TABLE parents (id int PRIMARY KEY, name text NOT NULL, size int, import_batch_id uuid);
CREATE TABLE children (id int PRIMARY KEY, parent int NOT NULL REFERENCES parents,
    amount numeric(10, 2), at timestamptz, import_batch_id uuid);
CREATE INDEX ON parents (import_batch_id);
CREATE INDEX ON children (import_batch_id);
CREATE INDEX ON children (parent);
INSERT INTO parents SELECT n, 'by hand', n FROM generate_series(1, 5) AS n;
"""
_ROWS = 40


def feed(**more: Any) -> Feed:
    """Make the feed: parents are upserted among rows typed in by hand, children are inserted."""
    return feed_of({"public.parents": "p*"}).model_validate(
        {
            "feed": "orders",
            "source": {"path": "landing/{batch}/*"},
            "tables": [
                {"table": "public.parents", "files": "p*", "write": "upsert"},
                {
                    "table": "public.children",
                    "files": "c*",
                    "critical_when": [{"name": "large", "expression": "amount > 70"}],
                },
            ],
            "thresholds": {"rejected_rows": "50%"},
            "audit": "row",
            "validate_digests": True,
            **more,
        }
    )


def inserting() -> Feed:
    """Make a feed that inserts parents, too: a correction of what others refer to is a keyed diff."""
    tables = [
        {"table": "public.parents", "files": "p*"},
        {"table": "public.children", "files": "c*"},
    ]
    return feed(tables=tables)


def delivery(revision: int) -> dict[str, str]:
    """Make a delivery of which a few records cannot be loaded: their parent 900 is missing."""
    parents = range(3 + revision, 3 + revision + _ROWS // 2)
    children = [
        f"{n},{900 if n % 10 == 0 else 3 + revision + n % (_ROWS // 2)},{n * (1 + revision)}.25,"
        f"2024-05-01T12:00:{n % 60:02d}Z\n"
        for n in range(1 + revision, 1 + revision + _ROWS)
    ]
    half = len(children) // 2
    head = "id,parent,amount,at\n"
    return {
        "p.csv": "id,name,size\n" + "".join(f"{n},name {n} {revision},{n}\n" for n in parents),
        "c1.csv": head + "".join(children[:half]),
        "c2.csv": head + "".join(children[half:]),
    }


class Told(Protocol):
    """Is told what is being done."""

    stage: str


@dataclass(frozen=True)
class Scenario:
    """A course to be attacked.

    Attributes:
        name: Its name.
        feed: The feed.
        prepare: What has happened before.
        act: The course; run again it ends as if it had been run once. It gets the run's id.
        is_visible: Whether it changes the tables.
    """

    name: str
    feed: Feed
    prepare: Callable[[Site], None]
    act: Callable[[Site, Told, str], None]
    is_visible: bool = True

    @property
    def stages(self) -> bool:
        """Whether it is a run of all stages."""
        return self.act is _import


def _import(site: Site, told: Told, run_id: str) -> None:
    told.stage = "run"
    with site.work(KEY, run_id) as (connection, work):
        for stage in STAGES:
            told.stage = stage
            do_stage(stage, connection, work)
        told.stage = "run"


def _replay(site: Site, told: Told, run_id: str) -> None:
    told.stage = "run"
    with site.work(KEY, run_id) as (connection, work):
        told.stage = "replay"
        bulk_write(connection, work, replay=True)
        told.stage = "replay: validate"
        require_valid(validate(connection, work))
        told.stage = "replay: archive"
        archive(connection, work)
        told.stage = "run"


def _roll_back(site: Site, told: Told, _: str) -> None:
    told.stage = "rollback"
    take_back(site, site.history()[-1].batch_id)


def _roll_back_first(site: Site, told: Told, _: str) -> None:
    told.stage = "rollback"
    take_back(site, site.history()[0].batch_id, cascade=True)


def _roll_back_untouched(site: Site, told: Told, _: str) -> None:
    told.stage = "rollback"
    take_back(site, site.history()[-1].batch_id, keep_touched=True)


def _cancel(site: Site, told: Told, _: str) -> None:
    told.stage = "cancel"
    batch = site.history()[-1]
    if batch.status == "IN_PROGRESS":
        cancel(site.database, site.settings, batch.batch_id, "a test")


def _one_whose_run_is_gone(site: Site) -> None:
    _one(site)
    site.deliver(delivery(1))
    site.run(stages=["ingest", "checksum"])


def _one_that_comes_again(site: Site) -> None:
    _one(site)
    site.deliver(delivery(0))


def _one(site: Site) -> None:
    site.load(delivery(0))


def _deliver(site: Site) -> None:
    site.deliver(delivery(0))


def _one_and_its_correction_lands(site: Site) -> None:
    site.load(delivery(0))
    site.deliver(delivery(1))


def _one_and_its_correction(site: Site) -> None:
    site.load(delivery(0))
    site.load(delivery(1))


def _two_that_upsert_the_same(site: Site) -> None:
    site.load(delivery(0))
    own = "id,parent,amount,at\n1000,9,1.50,2024-05-01T12:00:00Z\n"
    site.load({"p.csv": delivery(1)["p.csv"], "c.csv": own}, "second")


def _one_and_a_person(site: Site) -> None:
    site.load(delivery(0))
    site.sql("UPDATE children SET amount = 1 WHERE id = 2")
    site.sql("UPDATE parents SET size = 1 WHERE id IN (4, 9)")


def _one_and_its_cause_is_mended(site: Site) -> None:
    site.load(delivery(0))
    site.sql("INSERT INTO parents VALUES (900, 'by hand', 900)")


SCENARIOS = (
    Scenario("first import", feed(), _deliver, _import),
    Scenario("correction", feed(), _one_and_its_correction_lands, _import),
    Scenario("staged publication", feed(publish="after_validation"), _deliver, _import),
    Scenario(
        "staged correction",
        feed(publish="after_validation"),
        _one_and_its_correction_lands,
        _import,
    ),
    Scenario("replay", feed(), _one_and_its_cause_is_mended, _replay),
    Scenario(
        "staged replay", feed(publish="after_validation"), _one_and_its_cause_is_mended, _replay
    ),
    Scenario("duplicate", feed(), _one_that_comes_again, _import, is_visible=False),
    Scenario("cancelling", feed(), _one_whose_run_is_gone, _cancel, is_visible=False),
    Scenario("rollback", feed(), _one, _roll_back),
    Scenario("rollback of a correction", feed(), _one_and_its_correction, _roll_back),
    Scenario("correction by key", inserting(), _one_and_its_correction_lands, _import),
    Scenario("rollback by key", inserting(), _one_and_its_correction, _roll_back),
    Scenario("rollback with what came after", feed(), _two_that_upsert_the_same, _roll_back_first),
    Scenario("rollback but for touched rows", feed(), _one_and_a_person, _roll_back_untouched),
)
