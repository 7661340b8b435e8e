"""The feeds, for commands that can do most of their work without."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batch_pipelines.cli.show import complain
from batch_pipelines.engine.errors import FeedError
from batch_pipelines.engine.feed_files import load_feeds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.settings import Settings


def known_feeds(settings: Settings) -> Mapping[str, Feed]:
    """Read the feeds, or say what is wrong with them.

    Args:
        settings: Says where they are.

    Returns:
        The feeds by name; none where a file is wrong.
    """
    try:
        return load_feeds(settings.feeds)
    except FeedError as error:
        complain(str(error))
        return {}
