"""Batches whose time is over, in tests: feeds with rules, and a clock that is ahead."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from batch_pipelines.engine.retention.plan import Found, Planner

if TYPE_CHECKING:
    from batch_pipelines.engine.feed_parts.retention import DataClass, Regulation
    from batch_pipelines.engine.feeds import Feed
    from tests.support_engine import Site

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
