"""Taking batches back in tests: requests, and what the tables were before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batch_pipelines.engine.rollback import Request, Rollback, plan, roll_back

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batch_pipelines.engine.feeds import Feed
    from tests.support_engine import Site


def take_back(site: Site, *batch_ids: str, **more: Any) -> Rollback:
    """Roll batches back."""
    return roll_back(site.database, site.settings, _feeds(site), request(*batch_ids, **more))


def planned(site: Site, *batch_ids: str, **more: Any) -> Rollback:
    """Plan to."""
    return plan(site.database, site.settings, _feeds(site), request(*batch_ids, **more))


def request(*batch_ids: str, **more: Any) -> Request:
    """Make a request."""
    return Request(batch_ids, reason="a test", requested_by="a tester", **more)


def content(site: Site, *tables: str) -> dict[str, list[tuple[Any, ...]]]:
    """Rows of tables with their stamps, as text."""
    return {table: site.sql(f"SELECT t::text FROM {table} t ORDER BY 1") for table in tables}


def upserting(feed: Feed, *tables: Mapping[str, object], **more: object) -> Feed:
    """Make another feed of one, with tables of its own."""
    return feed.model_validate(
        {**feed.model_dump(), "tables": list(tables), "thresholds": {}, **more}
    )


def _feeds(site: Site) -> dict[str, Feed]:
    return {site.feed.feed: site.feed}
