"""The feed in a bag reads as the feed that it was."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from batch_pipelines.engine.archiving.kept_feed import feed_text
from batch_pipelines.engine.feed_files import load_feed, load_feeds
from tests.support_engine import feed_of

if TYPE_CHECKING:
    from batch_pipelines.engine.feeds import Feed

SHIPPED = [*load_feeds(Path(__file__).parents[3] / "feeds").values()]
ALL = feed_of(
    {"public.t": "*"}, thresholds={"rejected_rows": ["5%", 3]}, owners=["team:x"],
    format={"delimiter": ";"}, archive={"strategy": "compress", "level": 9, "encrypt": True},
    description="ü: 'quoted' # no comment",
)  # fmt: skip


@pytest.mark.parametrize("feed", [*SHIPPED, ALL], ids=lambda feed: feed.feed)
def test_a_feed_that_is_kept_reads_the_same(tmp_path: Path, feed: Feed) -> None:
    path = tmp_path / f"{feed.feed}.yaml"
    path.write_text(feed_text(feed), encoding="utf-8")
    assert load_feed(path) == feed


def test_a_feed_without_tables_that_is_kept_reads_the_same(tmp_path: Path) -> None:
    path = tmp_path / "mail.yaml"
    path.write_text("feed: mail\nsource:\n  path: in/{batch}/*\ntables: none\n")
    feed = load_feed(path)
    path.write_text(feed_text(feed))
    assert load_feed(path) == feed
