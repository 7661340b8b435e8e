"""Batches whose time is over, in tests: feeds with rules, and a clock that is ahead."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from batch_pipelines.engine.retention.course import Result, Retention
from batch_pipelines.engine.retention.plan import Found, Planner
from batch_pipelines.engine.retention.record import Course
from tests.support_engine import new_id

if TYPE_CHECKING:
    from batch_pipelines.engine.feed_parts.retention import DataClass, Regulation
    from batch_pipelines.engine.feeds import Feed
    from tests.support_engine import Site

# Those that are old already stay as they are.
AGE = """
UPDATE batch_audit.import_history
SET started_at = started_at - age, published_at = published_at - age, completed_at = completed_at - age
FROM (SELECT %s::interval AS age) AS a WHERE started_at > now() - interval '1 day'
"""
AGED = 100
POLICY = {"keep": "90 days", "legal_source": "data policy 4.2"}


def ahead(days: int) -> dt.datetime:
    """The time, so many days from now."""
    return dt.datetime.now(dt.UTC) + dt.timedelta(days=days)


def with_rules(feed: Feed, **retention: object) -> Feed:
    """Make another feed of one, with rules."""
    return feed.model_validate({**feed.model_dump(), "retention": retention})


def planned(
    site: Site, days: int = 100, *, regulations: tuple[Regulation, ...] = ()
) -> dict[tuple[str, DataClass], Found]:
    """What a plan finds so many days from now, by batch and class."""
    planner = Planner({site.feed.feed: site.feed}, regulations, ahead(days))
    return {(each.batch_id, each.data_class): each for each in planner.plan(site.connection)}


def age(site: Site, days: int) -> None:
    """Make batches that were loaded just now so many days older."""
    site.sql(AGE, dt.timedelta(days=days))


def retain(site: Site, days: int = 100, **more: Any) -> Result:
    """Run retention, so many days from now."""
    return retention(site, days, **more).run()


def retention(site: Site, days: int = 100, **more: Any) -> Retention:
    """Make a run of retention, so many days from now.

    The server's clock is not ahead; so rules count from an earlier time instead.
    """
    age(site, days)
    planner = Planner({site.feed.feed: site.feed}, (), dt.datetime.now(dt.UTC))
    course = Course(new_id(), "a tester")
    return Retention(site.database, site.settings, planner, course, **more)
