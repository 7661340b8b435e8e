"""What is attacked of keeping what is old: retention, restores, reprocessing, erasures, holds."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import TYPE_CHECKING

from batch_pipelines.engine.erasure.course import Eraser, Request
from batch_pipelines.engine.ingest import ingest
from batch_pipelines.engine.ledger.stages import STAGES
from batch_pipelines.engine.reprocessing import require_source
from batch_pipelines.engine.retention import holds
from batch_pipelines.engine.retention.course import Retention, require_done
from batch_pipelines.engine.retention.plan import Planner
from batch_pipelines.engine.retention.record import Course
from tests.engine.reliability.kept import kept
from tests.engine.reliability.scenario import Scenario, Told, delivery, feed
from tests.engine.restoring.support import bring_back
from tests.support_engine import KEY, Site, do_stage
from tests.support_retention import AGED, POLICY, age
from tests.support_rollback import take_back

if TYPE_CHECKING:
    from batch_pipelines.engine.feeds import Feed

_DETAILS = {"before_images": POLICY, "quarantine": POLICY, "ledger": POLICY}
_ALL_BUT_BAGS = feed(retention={"rows": POLICY, **_DETAILS})
_ROWS_ALONE = feed(retention={"rows": POLICY})
_ALL = feed(retention={"rows": POLICY, **_DETAILS, "bags": POLICY})
_IN_A_CIRCLE = "ALTER TABLE parents ADD COLUMN first int REFERENCES children"
_HOLDS = """
SELECT h.reason, h.lift_reason, (SELECT count(*) FROM batch_audit.audit_event WHERE action ~ '^hold')
FROM batch_audit.legal_hold AS h
"""


def _retain(site: Site, told: Told, run_id: str) -> None:
    told.stage = "retention"
    _run_retention(site, site.feed, run_id)


def _run_retention(site: Site, by: Feed, run_id: str) -> None:
    planner = Planner({by.feed: by}, (), dt.datetime.now(dt.UTC))
    course = Course(run_id, "a tester")
    require_done(Retention(site.database, site.settings, planner, course).run())


def _restore(site: Site, told: Told, _: str) -> None:
    told.stage = "restore"
    bring_back(site, site.history()[0])


def _reprocess(site: Site, told: Told, run_id: str) -> None:
    told.stage = "run"
    with site.work(KEY, run_id) as (connection, work):
        told.stage = "reprocess"
        origin = require_source(connection, site.settings, site.history()[1])
        ingest(connection, work, reprocess=origin.batch_id)
        for stage in STAGES[1:]:
            told.stage = stage
            do_stage(stage, connection, work)
        told.stage = "run"


def _erase(site: Site, told: Told, run_id: str) -> None:
    told.stage = "erasure"
    eraser = Eraser(site.database, site.settings, {site.feed.feed: site.feed}, run_id)
    eraser.erase(
        Request(site.feed.feed, "public.children", {"parent": "5"}, "asked for", "a tester")
    )


def _hold(site: Site, told: Told, _: str) -> None:
    told.stage = "hold"
    if not holds.listed(site.connection, lifted=True):
        scope = holds.Scope(feed=site.feed.feed)
        holds.set_hold(site.connection, scope, reason="a case", by="a tester")


def _lift(site: Site, told: Told, _: str) -> None:
    told.stage = "hold"
    for hold in holds.listed(site.connection):
        holds.lift_hold(site.connection, hold.hold_id, reason="it is over", by="a tester")


def _one_that_is_due(site: Site) -> None:
    site.load(delivery(0))
    age(site, AGED)


def _one_that_is_due_in_a_circle(site: Site) -> None:
    _one_that_is_due(site)
    site.sql(_IN_A_CIRCLE)


def _one_of_which_only_bags_are_left(site: Site) -> None:
    _one_that_is_due(site)
    _run_retention(site, _ALL_BUT_BAGS, _A_RUN)


def _one_that_is_archived(site: Site) -> None:
    _one_that_is_due(site)
    _run_retention(site, _ROWS_ALONE, _A_RUN)


def _one_and_a_correction_that_was_taken_back(site: Site) -> None:
    # It lies in landing still: where somebody has removed its bag, it is imported from there instead.
    site.load(delivery(0))
    take_back(site, site.load(delivery(1)).batch_id)


def _one(site: Site) -> None:
    site.load(delivery(0))


def _one_under_a_hold(site: Site) -> None:
    site.load(delivery(0))
    _hold(site, _Nobody(), "")


class _Nobody:
    stage = ""


_A_RUN = "00000000-0000-4000-8000-000000000000"
_RETENTION = Scenario("retention", _ALL_BUT_BAGS, _one_that_is_due, _retain, kept=kept)
OF_KEEPING = (
    _RETENTION,
    replace(
        _RETENTION,
        name="retention of a circle",
        feed=_ROWS_ALONE,
        prepare=_one_that_is_due_in_a_circle,
    ),
    Scenario(
        "retention of bags",
        _ALL,
        _one_of_which_only_bags_are_left,
        _retain,
        is_visible=False,
        kept=kept,
    ),
    Scenario("restore", feed(), _one_that_is_archived, _restore, kept=kept),
    Scenario(
        "reprocessing", feed(), _one_and_a_correction_that_was_taken_back, _reprocess, resumes=True
    ),
    Scenario("erasure", feed(), _one, _erase),
    Scenario("a hold", feed(), _one, _hold, is_visible=False, also=_HOLDS),
    Scenario("a hold is lifted", feed(), _one_under_a_hold, _lift, is_visible=False, also=_HOLDS),
)
