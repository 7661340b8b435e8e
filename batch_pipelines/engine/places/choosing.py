"""Which kind of place a feed's path leads to. Another scheme gets its line here and its place beside."""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from batch_pipelines.engine.feed_parts.source import PLACEHOLDER
from batch_pipelines.engine.places.folder import Folder

if TYPE_CHECKING:
    from batch_pipelines.engine.feed_parts.source import Source
    from batch_pipelines.engine.places.place import Place


def place_of(source: Source, root: Path) -> Place:
    """Open the place where a feed's path starts.

    Args:
        source: Where the feed's deliveries appear.
        root: Folder where relative paths start.

    Returns:
        A place, of which the path's parts are looked up.

    Raises:
        DeliveryError: The environment does not say how to reach it.
    """
    if source.bucket is not None:
        # It takes a third of a second to import, which feeds of folders need not wait for.
        from batch_pipelines.engine.places.s3 import open_bucket  # noqa: PLC0415

        return open_bucket(source.bucket)
    start = Path("/") if source.path.startswith("/") else root
    named = takewhile(lambda part: PLACEHOLDER not in part and "*" not in part, source.parts[:-1])
    return Folder(start, start.joinpath(*named))
