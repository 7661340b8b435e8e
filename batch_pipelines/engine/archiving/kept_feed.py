"""The feed as it was when a batch was loaded, kept as a feed file, for its bag."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import yaml

from batch_pipelines.engine.feeds import NO_TABLE

if TYPE_CHECKING:
    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.work import Work


def keep_feed(work: Work, batch_id: str, *, replay: bool = False) -> None:
    """Write a batch's feed into its staging, with the SQL file beside it that creates its tables.

    Args:
        work: The run's work.
        batch_id: The batch.
        replay: Whether it is to stand beside the one by which the batch was loaded first.
    """
    feed, folder = work.feed, work.staged_feed(batch_id)
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{feed.feed}.replay-{work.run_id}.yaml" if replay else f"{feed.feed}.yaml"
    (folder / name).write_text(feed_text(feed), encoding="utf-8")
    if feed.ddl is not None and (ddl := work.settings.feeds / feed.ddl).is_file():
        shutil.copyfile(ddl, folder / ddl.name)


def feed_text(feed: Feed) -> str:
    """Write a feed as a feed file.

    Args:
        feed: The feed.

    Returns:
        YAML, which reads as the same feed; comments are gone.
    """
    said = feed.model_dump(mode="json", exclude_unset=True)
    if not feed.tables:
        said["tables"] = NO_TABLE
    return yaml.safe_dump(said, sort_keys=False, allow_unicode=True)
