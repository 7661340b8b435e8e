"""What is attacked: courses that together take every step that changes tables, ledger or files.

Here are those of batches: imports, replays, cancelling, rollbacks. What keeps what is old has its own
(`scenarios_of_keeping`), and so has the rest of the ledger (`scenarios_of_the_ledger`).
"""

from __future__ import annotations

from batch_pipelines.engine.archive import archive
from batch_pipelines.engine.bulk_write import bulk_write
from batch_pipelines.engine.ledger.stages import STAGES
from batch_pipelines.engine.recovery.cancelling import cancel
from batch_pipelines.engine.validate import require_valid, validate
from tests.engine.reliability.scenario import Scenario, Told, delivery, feed, inserting
from tests.engine.reliability.scenarios_of_keeping import OF_KEEPING
from tests.engine.reliability.scenarios_of_the_ledger import OF_THE_LEDGER
from tests.support_engine import KEY, Site, do_stage
from tests.support_rollback import take_back


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


OF_BATCHES = (
    Scenario("first import", feed(), _deliver, _import, resumes=True),
    Scenario("correction", feed(), _one_and_its_correction_lands, _import, resumes=True),
    Scenario(
        "staged publication", feed(publish="after_validation"), _deliver, _import, resumes=True
    ),
    Scenario(
        "staged correction",
        feed(publish="after_validation"),
        _one_and_its_correction_lands,
        _import,
        resumes=True,
    ),
    Scenario("replay", feed(), _one_and_its_cause_is_mended, _replay),
    Scenario(
        "staged replay", feed(publish="after_validation"), _one_and_its_cause_is_mended, _replay
    ),
    Scenario("duplicate", feed(), _one_that_comes_again, _import, is_visible=False, resumes=True),
    Scenario("cancelling", feed(), _one_whose_run_is_gone, _cancel, is_visible=False),
    Scenario("rollback", feed(), _one, _roll_back),
    Scenario("rollback of a correction", feed(), _one_and_its_correction, _roll_back),
    Scenario(
        "correction by key", inserting(), _one_and_its_correction_lands, _import, resumes=True
    ),
    Scenario("rollback by key", inserting(), _one_and_its_correction, _roll_back),
    Scenario("rollback with what came after", feed(), _two_that_upsert_the_same, _roll_back_first),
    Scenario("rollback but for touched rows", feed(), _one_and_a_person, _roll_back_untouched),
)
SCENARIOS = (*OF_BATCHES, *OF_KEEPING, *OF_THE_LEDGER)
